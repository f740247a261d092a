"""Checkpoints: what is loaded is what was saved, and damage is named with its cure."""

import json

import pytest
import torch
from PIL import Image

from registers.data.transforms import OPENAI, evaluation, to_tensor
from registers.models import checkpoint
from registers.models.backbone import Architecture, build
from registers.settings.errors import ConfigError

SHAPE = Architecture(width=16, depth=2, heads=2, patch=4, image=16, registers=2)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    backbone = build(SHAPE, "dinov2-r2-s0", OPENAI)
    path = tmp_path / "dinov2-r2-s0" / "at050.safetensors"
    checkpoint.save(path, backbone, {"step": 5}, {"projection": torch.ones(3)})
    return backbone, path


def test_a_loaded_backbone_knows_its_name_how_it_sees_and_its_card(saved):
    backbone, path = saved
    loaded = checkpoint.load(path, name="dinov2-r2-s0-at050")
    assert loaded.name == "dinov2-r2-s0-at050"
    assert checkpoint.load(path).name == "dinov2-r2-s0"  # the card's, of the training
    assert loaded.normalization == OPENAI
    assert loaded.path == path and loaded.card["step"] == 5
    assert loaded.device == torch.device("cpu") and not loaded.training
    state = backbone.vit.state_dict()
    assert all(torch.equal(state[k], v) for k, v in loaded.vit.state_dict().items())
    assert torch.equal(checkpoint.load_extras(path)["projection"], torch.ones(3))

    image = Image.effect_noise((40, 30), 60).convert("RGB")
    assert torch.equal(loaded.look(image, 16), evaluation(16, None, OPENAI)(image))
    assert torch.equal(loaded.look(image, 16, 20), evaluation(16, 20, OPENAI)(image))
    assert torch.equal(loaded.normalised(image), to_tensor(image, OPENAI))


@pytest.mark.parametrize("ending", [".safetensors", ".extras.safetensors", ".json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_damage_is_named_with_its_cure(saved, ending, damage):
    _, path = saved
    file = path.with_suffix(ending)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-20] ^= 1
    file.write_bytes({"cut": content[:-9], "empty": b""}.get(damage, content))
    if damage == "gone":
        file.unlink()
    with pytest.raises(ConfigError, match=rf"{file.name}.*(delete the folder|train it first)") as e:
        checkpoint.load(path)
        checkpoint.load_extras(path)
    assert "\n" not in str(e.value)


def test_an_edited_card_is_not_believed(saved):
    _, path = saved
    file = path.with_suffix(".json")
    content = json.loads(file.read_text())
    content["normalization"][0][0] = 0.5
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="edited or damaged"):
        checkpoint.load(path)


def test_a_damaged_state_is_named(tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ConfigError, match=r"state\.pt: damaged .*; delete it") as error:
        checkpoint.load_state(path)
    assert "\n" not in str(error.value)
