"""The audit finds what was planted, and finds nothing where nothing was."""

import argparse
import csv
import io
import json

import numpy as np
import planted_vit
import pytest
import torch
from planted_vit import FAMILIES, HEAD, NEURONS, PREFIX, WRITER

from registers.audit import command
from registers.audit.api import audit, outliers, tokens
from registers.audit.errors import AuditError
from registers.audit.layout import TokenLayout
from registers.audit.verdict import judge, places


@pytest.fixture(scope="module")
def planted():
    """A DINOv2 with four registers, its images and where the flat patches are."""
    model = planted_vit.build("dinov2 reg4")
    pixels, mask = planted_vit.images(model)
    return planted_vit.plant(model, pixels, mask), pixels, mask


@pytest.fixture(scope="module")
def report(planted):
    model, pixels, _ = planted
    return audit(model, pixels, name="planted")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_planted_is_found_and_a_clean_twin_has_none(family):
    model = planted_vit.build(family)
    pixels, mask = planted_vit.images(model)
    clean = audit(model, pixels).audits[0]
    assert not clean.verdict.outliers and clean.verdict.words.startswith("outliers: no")
    assert clean.neurons == () and "no patch is an outlier" in clean.neurons_note

    planted_vit.plant(model, pixels, mask)
    found = audit(model, pixels).audits[0]
    assert found.bank.layout.prefix == PREFIX[family]
    verdict = found.verdict
    assert verdict.outliers and verdict.at_output
    assert (verdict.onset, verdict.until) == (WRITER + 1, 5)
    np.testing.assert_array_equal(verdict.mask, mask)
    assert verdict.share == pytest.approx(mask.mean())
    assert {(row.layer, row.neuron) for row in found.neurons[:4]} == {
        (WRITER + 1, neuron) for neuron in NEURONS
    }
    assert found.neurons[3].at_outliers > 10 * found.neurons[3].elsewhere
    top = found.top_heads(1)[0]
    assert (top.layer, top.head) == (WRITER + 2, HEAD) and top.patches_to_outliers > 0.9
    assert found.places.texture < 0.01
    assert verdict.hidden_by_norm is True
    # the four neurons write the same vector everywhere
    assert found.contents.layer == verdict.layer
    assert found.contents.outliers.constant > 0.95 > 0.5 > found.contents.others.constant


def test_the_verdict_in_words(report):
    words = report.verdict.words
    assert words.startswith("outliers: yes, 4.7 % of patches, ")
    assert "from layer 3 of 5 on" in words
    assert words.endswith("they disappear behind the final norm")
    text = report.text()
    for part in ("layer 4 head 1", "layer 3 neuron", "sha256", "[CLS]", "registers", "> 150"):
        assert part in text


def test_every_written_norm_is_the_step_of_the_residual_stream(planted, report):
    """What the four neurons write together is what the outliers gain."""
    mask = planted[2]
    together = sum(row.written for row in report.audits[0].neurons[:4])
    after = np.median(report.bank.patch_norms(WRITER + 1)[mask])
    assert together == pytest.approx(after, rel=0.05)


def test_attention_of_the_bank_is_asked_for_by_token(report):
    bank = report.bank
    assert bank.attention(4, "cls").shape == (16, 3, 1, 5 + 64)
    assert bank.attention(-2, "registers", images=[0, 3]).shape == (2, 3, 4, 69)
    np.testing.assert_array_equal(bank.attention(4, slice(0, 1)), bank.attention(4, "cls"))
    np.testing.assert_array_equal(bank.attention(4, [0]), bank.attention(4, "cls"))
    for layer, queries in ((9, "cls"), (0, "cls"), (1, "heads"), (1, [70])):
        with pytest.raises(AuditError):
            bank.attention(layer, queries)
    without = tokens(planted_vit.build("siglip"), torch.randn(2, 3, 128, 128))
    with pytest.raises(AuditError, match="no such token"):
        without.attention(1, "cls")


def test_registers_counted_as_patches_would_be_told(planted):
    """What users get wrong: the bank keeps [CLS] and registers apart."""
    model, pixels, _ = planted
    bank = tokens(model, pixels)
    assert bank.patch_norms().shape == (16, 64) and bank.norms.shape == (16, 5, 69)
    assert outliers(bank).outliers


# --- the verdict on norms alone ----------------------------------------------------------------


def norms_of(layers, height=10.0, share=0.03, images=20, patches=100, seed=0):
    """(B, L, 1 + P) norms around 10; in the given layers some patches are `height` x as high."""
    rng = np.random.default_rng(seed)
    norms = rng.normal(10, 0.5, (images, 6, 1 + patches))
    mask = rng.random((images, patches)) < share
    for layer in layers:
        norms[:, layer - 1, 1:][mask] *= height
    return norms, mask, TokenLayout(("[CLS]",), patches, (10, 10))


def judged(norms, layout, normed=None):
    normed = np.full_like(norms, np.nan) if normed is None else normed
    return judge(norms, normed, np.zeros(norms.shape, int), layout)


def test_outliers_inside_that_are_gone_at_the_output():
    norms, mask, layout = norms_of([2, 3, 4])
    rows, verdict = judged(norms, layout)
    assert (verdict.onset, verdict.until, verdict.at_output) == (2, 4, False)
    assert "in layers 2 to 4 of 6, gone at the output" in verdict.words
    np.testing.assert_array_equal(verdict.mask, mask)
    assert [row.cutoff is None for row in rows] == [True, False, False, False, True, True]


def test_the_final_norm_hides_them_or_not():
    norms, _, layout = norms_of([5, 6])
    flat = np.random.default_rng(1).normal(7, 0.1, norms.shape)
    assert "disappear behind the final norm" in judged(norms, layout, flat)[1].words
    assert "still stand out behind the final norm (10 x)" in judged(norms, layout, norms)[1].words
    assert "final norm" not in judged(norms, layout)[1].words


def test_the_fields_other_definitions_are_columns():
    norms, mask, layout = norms_of([6], height=20)
    massive = np.zeros(norms.shape, int)
    massive[:, 5, 1:][mask] = 2
    rows, _ = judge(norms, np.full_like(norms, np.nan), massive, layout)
    assert rows[5].above_150 == pytest.approx(mask.mean())
    assert rows[5].massive_share == pytest.approx(mask.mean()) and rows[0].massive_share == 0
    assert rows[5].percentile_98 == pytest.approx(np.quantile(norms[:, 5, 1:], 0.98))


def test_a_long_tail_is_no_outlier():
    rng = np.random.default_rng(0)
    norms = rng.lognormal(2, 0.5, (20, 6, 101))
    _, verdict = judged(norms, TokenLayout(("[CLS]",), 100, (10, 10)))
    assert not verdict.outliers and "one mode in all 6 layers" in verdict.words


def test_places_are_counted_against_the_border_there_is():
    mask = np.zeros((4, 16), bool)
    mask[:, 0] = True
    placed = places(mask, TokenLayout((), 16, (4, 4)), np.ones((4, 16)))
    assert placed.border_share == 1 and placed.border_expected == 12 / 16
    assert placed.frequency[0, 0] == 1 and placed.texture == 1


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_norms_that_say_nothing_are_refused(value):
    norms = np.full((4, 2, 101), value)
    with pytest.raises(AuditError, match="layer 1"):
        judged(norms, TokenLayout(("[CLS]",), 100, (10, 10)))


def test_massive_activations_as_sun_et_al_define_them():
    from registers.audit.watch import massive

    x = torch.full((1, 4, 100), 0.05)
    x[0, 0, 0] = 101  # above 100 and 1000 x 0.05
    x[0, 1, 0] = 99  # not above 100
    assert massive(x).tolist() == [[1, 0, 0, 0]]
    assert massive(x * 10)[0, 1] == 1, "99 x 10 is above both"
    x[:] = 0.5
    x[0, 2, 3] = 400  # above 100 but not 1000 x 0.5
    assert massive(x).sum() == 0


# --- the command -------------------------------------------------------------------------------


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(20, 1 + 64, 32)).astype(np.float32)
    np.save(folder / "clean.npy", clean)
    clean[:, 1::20] *= 12
    np.save(folder / "planted.npy", clean)
    return folder


def test_exit_status_for_ci(features, capsys, tmp_path):
    for name, status in (("clean", 0), ("planted", command.FAILED)):
        path = features / f"{name}.npy"
        fail = ("--fail-on", "outliers", "--no-html")
        assert run(path, "--prefix", 1, *fail) == status
    assert "--fail-on outliers" in capsys.readouterr().out
    assert run(features / "planted.npy", "--prefix", 1, "--no-html") == 0


def test_page_json_and_csv(features, tmp_path, capsys):
    paths = [tmp_path / f"audit.{kind}" for kind in ("html", "json", "csv")]
    both = [features / "clean.npy", features / "planted.npy"]
    run(*both, "--prefix", 1, "--html", paths[0], "--json", paths[1], "--csv", paths[2])
    assert "side by side" in capsys.readouterr().out
    html = paths[0].read_text()
    assert html.count("<img") >= 6 and "side by side" not in html and "at the output" in html
    assert "http" not in html.replace("https://huggingface.co", ""), "the page needs no network"
    content = json.loads(paths[1].read_text())
    assert [entry["verdict"]["outliers"] for entry in content] == [False, True]
    assert len(content[0]["model"]["sha256"]) == 64 and content[0]["versions"]["torch"]
    rows = list(csv.DictReader(io.StringIO(paths[2].read_text())))
    assert len(rows) == 2 and rows[1]["sha256"] == content[1]["model"]["sha256"]
    assert float(rows[1]["share"]) == pytest.approx(4 / 64)


def test_a_report_is_shown_in_notebooks_and_terminals(report, capsys):
    report.show()
    assert "outliers: yes" in capsys.readouterr().out
    fragment = report._repr_html_()
    assert fragment.lstrip().startswith("<div") and "</html>" not in fragment
    assert "outliers: yes" in repr(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["planted.npy"], "prefix must say"),
        (["planted.npy", "--prefix", "70"], "must be below 65"),
        (["planted.npy", "--prefix", "1", "--grid", "8x9"], "must hold 64 patches"),
        (["planted.npy", "--prefix", "1", "--html", "page.txt"], "must end in .html"),
        (["missing.npy", "--prefix", "1"], "no such file"),
        (["vit_base_patch16"], "no such file and no model of timm.*did you mean"),
        (["random:resnet18"], "ConvNet"),
    ],
)
def test_what_cannot_be_audited_is_one_line(features, arguments, message, monkeypatch):
    monkeypatch.chdir(features)
    with pytest.raises(AuditError, match=message) as error:
        run(*arguments)
    assert "\n" not in str(error.value)
