"""Test-time registers in scale released: made of what was fetched, asked as every backbone is."""

import json

import numpy as np
import planted_release
import pytest
import torch
import yaml
from hub_server import Hub, serving
from planted_release import ADDED, PLAIN
from planted_vit import NEURONS, WRITER
from safetensors.torch import save
from small_hub import asked

from registers import artifacts, published
from registers.draw import draw
from registers.evals.dense import feature_maps
from registers.measure import measure
from registers.measurements import read
from registers.models import checkpoint
from registers.outliers import find_cutoff
from registers.readers import catalogue
from registers.released import start
from registers.released.added import add_registers
from registers.released.fetch import fetch
from registers.settings import released
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

PIXELS = planted_release.SIDE
COUNTS = {"train": 12, "val": 16}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of labelled images, the images and where they are flat."""
    folder = tmp_path_factory.mktemp("flat")
    return folder, *planted_release.write_images(folder, COUNTS)


def fetched(place, images, planted=True):
    """Settings of a run in this folder that has fetched the model from a hub on this machine."""
    folder, *truth = images
    path = place / "released.yaml"
    path.write_text(yaml.safe_dump({"models": planted_release.entries(), "audited": []}))
    hub = Hub()
    weights = planted_release.model(*truth) if planted else planted_release.model()
    hub.put(f"timm/{planted_release.NAME}", "model.safetensors", save(weights.state_dict()))
    with pytest.MonkeyPatch.context() as patch, serving(hub) as address:
        asked(address, place / "cache", patch)
        patch.setattr(released, "CATALOGUE", path)
        patch.chdir(place)
        small = {
            "image_size": PIXELS,
            "maps.size": PIXELS,
            "linear.train_images": 12,
            "linear.val_images": 16,
            "linear.iterations": 4,
            "linear.batch": 4,
        }
        params = {"scale": "released", "data": f"folder:{folder}", "overrides": small}
        settings = load_settings({**params, "mlflow_uri": f"sqlite:///{place}/mlflow.db"})
        catalogue.prepare(settings, "eval")
        fetch(settings, PLAIN)
        yield settings, add_registers(settings, ADDED)


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    yield from fetched(tmp_path_factory.mktemp("run"), images)


@pytest.fixture
def clean(tmp_path, images):
    yield from fetched(tmp_path, images, planted=False)


def pixels(backbone, folder):
    """The validation images as a backbone sees them."""
    from PIL import Image

    files = sorted(folder.glob("val/*/*.png"))
    return torch.stack([backbone.look(Image.open(file).convert("RGB"), PIXELS) for file in files])


# --- made of what was fetched


def test_the_planted_neurons_are_moved_and_the_card_says_so(run, images):
    settings, line = run
    assert line == f"{ADDED}: 4 neurons of layer 3 moved to 4 test-time registers"
    path = settings.layout.checkpoint(ADDED)
    source = settings.layout.checkpoint(PLAIN)
    assert path.stat().st_ino == source.stat().st_ino, "the same weights, on the disk once"
    card = json.loads(path.with_suffix(".json").read_text())
    recipe = card["test_time_registers"]
    assert {tuple(pair) for pair in recipe["neurons"]} == {(WRITER + 1, n) for n in NEURONS}
    assert recipe["source_sha256"] == card["weights_sha256"] == card["published"]["sha256"]
    assert card["published"]["test_time_of"] == PLAIN and card["published"]["licence"]
    assert (card["registers"], recipe["registers"], card["id"]) == (4, 4, ADDED)

    plain, added = checkpoint.load(source), checkpoint.load(path)
    seen = [backbone.observe(pixels(backbone, images[0])).norms for backbone in (plain, added)]
    high, low = (norms[:, -1, 1 + tokens :].numpy() for norms, tokens in zip(seen, (0, 4)))
    assert find_cutoff(high).second_mode and not find_cutoff(low).second_mode
    assert seen[1][:, -1, 1:5].min() > 5 * np.median(low), "the added tokens have the norm now"


def test_without_outliers_the_run_goes_on_and_says_so(clean):
    settings, line = clean
    assert line.startswith(f"{ADDED}: no outliers, nothing to move")
    card = json.loads(settings.layout.checkpoint(ADDED).with_suffix(".json").read_text())
    assert card["test_time_registers"]["neurons"] == [] and "moved" not in card["published"]
    backbone = checkpoint.load(settings.layout.checkpoint(ADDED))
    assert backbone(torch.randn(1, 3, PIXELS, PIXELS)).registers.shape == (1, 4, 48)
    assert published.unmoved(settings).keys() == {ADDED}
    assert "4 empty tokens (no outliers" in published.added_in_words(settings)
    words = published.caption(settings, [PLAIN, ADDED])
    assert words.startswith("The registers of DeiT-III were added at test time, without training")
    assert "in DeiT-III nothing is moved to them and they are empty (no outliers" in words
    assert published.caption(settings, [PLAIN]) == ""


# --- as every backbone


def test_linear_scores_and_the_table_name_them(run):
    settings, _ = run
    for name in (PLAIN, ADDED):
        measure(settings, "linear", name)
    rows = read(str(settings.layout.measurement("linear", ADDED)))
    top1 = rows[rows["metric"] == "top1"]
    assert len(top1) == 1 and top1["value"].notna().all() and top1["registers"].item() == 4
    draw(settings, "table2")
    table = settings.layout.drawing("tables", "table2")
    assert "DeiT-III+test-time reg" in table.with_suffix(".md").read_text()
    assert "added at test time, without training" in table.with_suffix(".txt").read_text()


@pytest.mark.parametrize("normed", [True, False])
def test_dense_heads_see_patches_alone_and_no_outliers(run, images, normed):
    """What segmentation and depth are trained on."""
    settings, _ = run
    seen = {}
    for name in (PLAIN, ADDED):
        backbone = checkpoint.load(settings.layout.checkpoint(name))
        seen[name] = feature_maps(backbone, pixels(backbone, images[0]), normed).patches
        assert seen[name].shape == (16, 48, 7, 7)
    high, low = (seen[name].norm(dim=1).max() for name in (PLAIN, ADDED))
    assert normed or high > 10 * low


def test_families_pair_a_model_with_its_test_time_registers(run):
    settings, _ = run
    for name in ("ends", "focus", "main", "released"):
        assert [str(id) for id in artifacts.family(settings, name)] == [PLAIN, ADDED]
    assert [str(id) for id in artifacts.family(settings, "plain")] == [PLAIN]
    assert [str(id) for id in artifacts.family(settings, "four")] == [ADDED]


def test_a_plan_says_what_is_made_and_fetches_nothing_for_it(run):
    settings, _ = run
    text = start.plan(settings)
    assert text.startswith("1 published model, 1 MB; all are on this machine")
    assert f"4 test-time registers, made of {PLAIN}" in text
    assert all(not model.test_time_of for model in start.missing(settings))


# --- in the catalogue


def test_names_with_test_time_registers_are_read_and_written():
    id = BackboneId.parse(ADDED)
    assert id.test_time and id.registers == 4 and str(id) == ADDED
    assert not BackboneId.parse(PLAIN).test_time


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": ADDED}, "test_time_of: None is not allowed; must be deit3-base-r0-s0"),
        ({"id": "deit3-base-r4-s0", "test_time_of": PLAIN}, "must be deit3-base-r4-s0-tt"),
        ({"id": ADDED, "test_time_of": "deit3-base-r9-s0"}, "did you mean deit3-base-r0-s0"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path, monkeypatch, row, words):
    path = tmp_path / "released.yaml"
    plain, _ = planted_release.entries()
    wrong = {**({} if "test_time_of" in row else plain), "paper": "a test", **row}
    path.write_text(yaml.safe_dump({"models": [plain, wrong]}))
    monkeypatch.setattr(released, "CATALOGUE", path)
    with pytest.raises(ConfigError) as error:
        released.catalogue()
    assert words in str(error.value) and "\n" not in str(error.value)
