"""Options of `registers audit` that cannot do anything are refused before anything is computed."""

import argparse

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from registers.audit import command
from registers.audit.api import audit, tokens
from registers.audit.errors import AuditError

NAME = "vit_tiny_patch16_224"


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tokens, to be in."""
    (tmp_path / "w.pkl").write_bytes(b"\x80\x04.")
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(20, 37, 8)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("random:" + NAME, "--arch", "x"), "arch = x: is for files of weights"),
        ((NAME + ".augreg_in21k", "--arch", "x"), "arch = x: is for files of weights"),
        (("hf-hub:a/b", "--arch", "x"), "arch = x: is for files of weights"),
        (("random:" + NAME, "--grid", "6x6"), "grid: is for arrays"),
        (("random:" + NAME, "--prefix", "1"), "prefix: is for arrays"),
        (("f.npy", "--prefix", 1, "--images", "x"), "images: is for models; f.npy holds"),
        (("f.npy", "--prefix", 1, "--size", "96"), "size: is for models"),
        (("f.npy", "--prefix", 1, "--arch", "foo"), "arch.* is for "),
        (("f.npy", "--prefix", 1, "--limit", "3"), "limit: is for models"),
        (
            ("f.npy", "--prefix", 1, "--no-html", "--html", "x.html"),
            "cannot be combined with --no-html",
        ),
        (("f.npy", "--prefix", 1, "--device", "auto"), "device = auto: is for models"),
        (("missing.pth", "--arch", NAME), "no such file"),
        (("w.pkl", "--arch", NAME), r"w\.pkl: must end in one of .* \(weights\) or in \.npy"),
        (("random:" + NAME, "--size", "8"), "size = 8x8: must be a multiple of the patch, 16x16"),
        (("random:",), "random:: no model of timm"),
        (("hf-hub:",), "must be hf-hub:OWNER/NAME"),
        (("open_clip:",), "must be open_clip:NAME/TAG"),
        (("open_clip:ViT-B-16/openaii",), "the tag must be one of .*did you mean openai?"),
    ],
)
def test_options_that_do_nothing_are_refused(folder, arguments, words):
    with pytest.raises(AuditError, match=words) as error:
        run(*arguments)
    assert "\n" not in str(error.value)


def test_arch_is_of_files_beside_models_that_name_theirs(folder):
    vit = timm.create_model(NAME, num_classes=0, depth=2, img_size=32)
    with pytest.raises(AuditError, match="arch = x"):
        tokens(vit, torch.zeros(1, 3, 32, 32), arch="x")
    vit = timm.create_model(NAME, num_classes=0)
    save_file(vit.state_dict(), folder / "w.safetensors")
    pixels = torch.randn(1, 3, 224, 224)
    both = audit([folder / "w.safetensors", vit], pixels, arch=NAME).audits
    assert not any("inferred" in note for note in both[0].bank.card.notes)
    np.testing.assert_allclose(both[0].bank.norms, both[1].bank.norms, rtol=1e-6)


@pytest.mark.parametrize("grid", ["foo", "14", "6x", "0x6", "6x6x1"])
def test_a_grid_is_down_times_across(grid, capsys):
    with pytest.raises(SystemExit):
        run("f.npy", "--grid", grid)
    assert f"{grid}: must be patches down x across, like 16x20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("--html", "f.npy/x.html"),
        ("--csv", "x" * 300 + ".csv"),
        ("--json", "x" * 250 + ".json"),  # .partial is too long
        ("--html", "/proc/x.html"),
        ("--html", "folder.html"),
        ("--save", "f.npy/x.safetensors"),
    ],
)
def test_a_path_that_cannot_be_written_is_told_before_the_audit(folder, option, path, monkeypatch):
    monkeypatch.setattr("registers.audit.api.audit", lambda *_, **__: pytest.fail("it ran"))
    (folder / "folder.html").mkdir()
    saving = ("--test-time-registers", 1) if option == "--save" else ()
    with pytest.raises(AuditError, match=f"{option} = .*: cannot be written") as error:
        run("f.npy", "--prefix", 1, *saving, option, path)
    assert "\n" not in str(error.value) and "MB" not in str(error.value)
    assert not list(folder.glob("*.partial"))


def test_outputs_go_to_folders_that_are_not_there_yet(folder):
    assert run("f.npy", "--prefix", 1, "--no-html", "--json", "a/b/c.json") == 0
    assert [path.name for path in (folder / "a" / "b").iterdir()] == ["c.json"]


def test_the_text_names_its_columns_and_counts_as_people_do(folder, capsys):
    np.save(folder / "one.npy", np.random.default_rng(0).normal(size=(1, 401, 8)))
    run("one.npy", "--prefix", 1, "--no-html")
    text = capsys.readouterr().out
    assert "one mode in the one layer given" in text and "\n1 image, " in text
    assert text.partition("outliers: no")[0].count("one.npy") == 1
    head = next(line for line in text.splitlines() if line.startswith("layer "))
    assert "  outliers  " in head and "above it" not in text
