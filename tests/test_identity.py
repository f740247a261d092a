"""What a training depends on, and the names of backbones."""

import json

import pytest

from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.identity import training_identity
from registers.settings.load import load_settings


def identity(name="dinov2-r4-s0", **params):
    settings = load_settings({"scale": "smoke", **params})
    return training_identity(settings, BackboneId.parse(name))


@pytest.mark.parametrize(
    "params",
    [
        {"data": {"use": {"eval": "folder:photos", "labels": "folder:x"}}},
        {
            "overrides": {
                "world.val": 5,
                "linear.iterations": 3,
                "log_every": 7,
                "recipes.mae.lr": 1,
            }
        },
        {"registers": [4], "seeds": [0, 1], "mlflow_uri": "http://x", "stale": "retrain"},
    ],
)
def test_what_another_job_uses_is_no_part_of_a_trainings_identity(params):
    assert identity(**params) == identity()
    assert json.loads(json.dumps(identity(), allow_nan=False)) == identity()


@pytest.mark.parametrize(
    "params",
    [
        {"overrides": {"recipes.dinov2.lr": 1}},
        {"overrides": {"sizes.tiny.depth": 3}},
        {"overrides": {"image_size": 32}},
        {"overrides": {"world.pixels": 64}},
        {"overrides": {"world.train": 64}},
        {"overrides": {"fractions": [0.0]}},
        {"precision": "bf16-mixed"},
        {"data": {"use": {"images": "folder:x"}}},
    ],
)
def test_what_a_training_uses_is_part_of_its_identity(params):
    assert identity(**params) != identity()
    assert identity("dinov2-r4-s0-at050") == identity()
    for other in ("dinov2-r0-s0", "dinov2-r4-s1", "dinov2-r4-s0-noaa", "dinov2-small-r4-s0"):
        assert identity(other) != identity()


def test_captions_made_of_class_names_are_part_of_openclips_identity(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    params = {"data": "folder:photos", "overrides": {"zeroshot.classes": str(names)}}
    before = identity("openclip-r0-s0", **params)
    assert before != identity("openclip-r0-s0", data="folder:photos")
    names.write_text("cats\ndogs\n")
    assert before != identity("openclip-r0-s0", **params)
    assert identity("dinov2-r4-s0", **params) == identity("dinov2-r4-s0", data="folder:photos")


# --- names of backbones


@pytest.mark.parametrize(
    "name",
    [
        "dinov2-r4-s0",
        "dinov2-giant-r0-s1",
        "deit3-r16-s0-noaa",
        "dinov2-r0-s0-at050",
        "dinov2-tiny-r0-s2-noaa-at000",
    ],
)
def test_backbone_names_read_back_as_written(name):
    assert str(BackboneId.parse(name)) == name


@pytest.mark.parametrize("name", ["dinov2", "dinov2-r-s0", "DINOV2-r0-s0", "dinov2-r0-s0-at5", ""])
def test_other_backbone_names_are_refused(name):
    with pytest.raises(ConfigError, match="must be a name like"):
        BackboneId.parse(name)
