"""The catalogue of published models, what a run of them makes, and the photos that it looks at."""

import re

import numpy as np
import pytest
import timm
from PIL import Image

from registers import artifacts, inputs
from registers.claims.selectors import select
from registers.measurements import Measurement, write
from registers.readers import catalogue, photos
from registers.released import document
from registers.settings import released
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.settings.paths import check_paths

MODELS = released.catalogue()
ADDED = ("r0-s0", "r4-s0-tt")  # a model, and the same with test-time registers


# --- the catalogue


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_timm_knows_each_model_under_this_repository_and_licence(model):
    config = timm.get_pretrained_cfg(model.timm)
    assert config.hf_hub_id == model.repository
    assert config.license == model.licence
    assert model.non_commercial == ("-nc-" in model.licence)
    registers = re.search(r"_reg(\d)", model.timm)
    if not model.test_time_of:
        assert model.backbone.registers == (int(registers[1]) if registers else 0)
    assert timm.is_model(model.timm.partition(".")[0])


def test_models_of_the_audit_alone_are_known_to_timm():
    for model in released.audited():
        assert timm.get_pretrained_cfg(model.timm).license == model.licence


def test_sizes_are_those_of_the_scale():
    settings = load_settings({"scale": "released", "models": "all"})
    for id, name in (("dinov2-giant-r4-s0", "giant"), ("deit3-small-r0-s0", "small")):
        import torch

        with torch.device("meta"):
            vit = timm.create_model(MODELS[id].timm)
        size = settings.sizes[name]
        assert (vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads) == (
            size.width,
            size.depth,
            size.heads,
        )
        assert MODELS[id].mb == round(sum(p.numel() for p in vit.parameters()) * 4e-6)


def test_the_page_has_the_table_of_the_catalogue():
    page = document.PAGE.read_text()
    assert document.with_table(page) == page, "run python -m registers.released.document"


# --- which models a run has


def test_models_are_chosen_by_word_or_by_name():
    assert load_settings({"scale": "released", "models": "all"}).models == tuple(MODELS)
    default = load_settings({"scale": "released"}).models
    assert default == tuple(id for id, model in MODELS.items() if model.default)
    assert sum(MODELS[id].mb for id in default) < 2100
    one = load_settings({"scale": "released", "models": "mae-base-r0-s0"})
    assert one.models == ("mae-base-r0-s0",) and one.recipes["mae"].size == "base"


def test_the_model_it_is_made_of_comes_along():
    settings = load_settings({"scale": "released", "models": "openclip-base-r4-s0-tt"})
    assert settings.models == ("openclip-base-r0-s0", "openclip-base-r4-s0-tt")
    model = MODELS["openclip-base-r4-s0-tt"]
    assert (model.mb, model.timm) == (0, "vit_base_patch16_clip_224.laion2b")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"scale": "released", "models": "dinov2-r0-s0"}, "did you mean dinov2-base-r0-s0"),
        ({"scale": "released", "models": []}, "a list of at least one"),
        ({"scale": "released", "overrides": {"models": 5}}, "a list of at least one"),
        ({"scale": "smoke", "models": "all"}, "must be left out, as scale smoke trains its own"),
    ],
)
def test_a_wrong_choice_of_models_is_one_line(params, words):
    with pytest.raises(ConfigError) as error:
        load_settings(params)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_families_hold_the_models_there_are_by_their_full_names():
    settings = load_settings({"scale": "released", "models": "all"})
    names = {
        name: [str(id) for id in artifacts.family(settings, name)]
        for name in ("ends", "sizes", "steps", "noaa", "dino", "mae", "four")
    }
    dinov2 = ["dinov2-giant-r0-s0", "dinov2-giant-r4-s0"]
    added = [f"{name}-{end}" for name in ("deit3-base", "openclip-base") for end in ADDED]
    assert names["ends"] == [*added, *dinov2]
    assert names["sizes"] == [f"dinov2-{s}-r0-s0" for s in ("small", "base", "large", "giant")]
    assert names["steps"] == names["noaa"] == dinov2[:1] and names["four"] == dinov2[1:]
    assert (names["dino"], names["mae"]) == (["dino-base-r0-s0"], ["mae-large-r0-s0"])


def test_what_photos_cannot_answer_is_left_out_with_its_reason(tmp_path):
    settings = load_settings({"scale": "released"})
    absent = artifacts.absent(settings)
    assert set(absent) == {"table1", "table2", "table4", "table6", "fig08", "fig17"}
    assert absent["table1"] == "needs labelled images (data.use.eval)"
    assert "mae" in absent["fig17"]
    (tmp_path / "train").mkdir()
    labelled = load_settings({"scale": "released", "data": f"folder:{tmp_path}"})
    assert set(artifacts.absent(labelled)) == {"fig17"}
    masked = load_settings({"scale": "released", "data": {"use": {"depth": "nyud:x"}}})
    assert not artifacts.unanswerable(masked, "depth")
    assert artifacts.unanswerable(masked, "segmentation").startswith("needs images with masks")
    assert not artifacts.absent(load_settings({"scale": "laptop"}))


def test_claims_mean_the_size_that_the_figures_show(tmp_path):
    settings = load_settings({"scale": "released"})
    paths = []
    for name, value in (("dinov2-small-r0-s0", 1.0), ("dinov2-base-r0-s0", 2.0)):
        paths.append(tmp_path / f"{name}.csv")
        write(paths[-1], [Measurement("norms", "max_over_median", name, value)], run="x")
    rows = inputs.rows(settings, [str(path) for path in paths])
    chosen = select(rows, {"question": "norms", "method": "dinov2", "registers": 0})
    assert list(chosen["value"]) == [2.0]
    small = select(rows, {"question": "norms", "method": "dinov2", "size": "small"})
    assert list(small["value"]) == [1.0]


# --- photos


def test_default_photos_come_with_installed_packages():
    views = photos.Photos()
    installed = photos.installed()
    assert len(installed) >= 6 and len(views) == len(installed) * len(photos.VIEWS)
    whole = [views[i].image.size for i in range(len(installed))]
    assert all(width == height >= 300 for width, height in whole)
    assert views[0].label is None and views.fingerprint == photos.Photos().fingerprint
    boxed = photos.BoxedPhotos()
    for i in range(len(boxed)):
        image = boxed[i].image
        x0, y0, x1, y1 = boxed[i].boxes[0]
        assert 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height


def test_photos_of_a_folder_need_no_labels(tmp_path):
    (tmp_path / "trip" / "day 2").mkdir(parents=True)
    for name in ("b.jpg", "day 2/a.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "trip" / name)
    (tmp_path / "trip" / "broken.jpg").write_bytes(b"no image")
    settings = load_settings({"scale": "released", "data": f"photos:{tmp_path / 'trip'}"})
    check_paths(settings)
    assert settings.run == "released-trip"
    seen = catalogue.open_dataset(settings, "eval", "val")
    assert [seen[i].name for i in range(len(seen))] == ["b.jpg", "day 2/a.png"]
    before = catalogue.files_state(settings, "eval")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "trip" / "c.png")
    assert catalogue.files_state(settings, "eval") != before
    with pytest.raises(ConfigError, match="have no split train"):
        catalogue.open_dataset(settings, "labels", "train")
    (tmp_path / "empty").mkdir()
    empty = load_settings({"scale": "released", "data": f"photos:{tmp_path / 'empty'}"})
    with pytest.raises(ConfigError, match="no images there or below"):
        catalogue.open_dataset(empty, "eval", "val")
    missing = load_settings({"scale": "released", "data": f"photos:{tmp_path / 'nowhere'}"})
    with pytest.raises(ConfigError, match="a folder of photos"):
        check_paths(missing)
