"""Each recipe's architecture at scale `paper` against its official source."""

import json

import pytest
import torch

from registers.methods.deit3 import Deit3
from registers.methods.dino import Dino
from registers.methods.dinov2 import Dinov2
from registers.methods.mae import Mae
from registers.methods.method import Method
from registers.methods.openclip import OpenClip
from registers.models import backbone
from registers.models.backbone import Architecture, build, resized_positions, swiglu_width
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings


class Planned(Exception):
    """Ends the building of a recipe once it has said which backbone it wants."""

    def __init__(self, architecture):
        super().__init__("planned")
        self.architecture = architecture


RECIPES = {"deit3": Deit3, "openclip": OpenClip, "dinov2": Dinov2, "dino": Dino, "mae": Mae}
# deit README_revenge.md (ImageNet-21k) and models_v2.py; open_clip ViT-B-16.json; dinov2
# configs/train/vitl14.yaml and ssl_default_config.yaml; dino main_dino.py and
# vision_transformer.py; mae models_mae.py
PUBLISHED = {
    "deit3-r0-s0": dict(width=768, depth=12, heads=12, patch=16, drop_path=0.1, layer_scale=1e-4),
    "deit3-large-r0-s0": dict(width=1024, depth=24, heads=16, drop_path=0.3, layer_scale=1e-4),
    "openclip-r0-s0": dict(width=768, depth=12, heads=12, patch=16, pre_norm=True),
    "dinov2-r0-s0": dict(
        width=1024, depth=24, heads=16, patch=14, ffn="swiglu", drop_path=0.4, layer_scale=1e-5
    ),
    "dinov2-giant-r0-s0": dict(width=1536, depth=40, heads=24, ffn="swiglu", drop_path=0.4),
    "dino-r0-s0": dict(
        width=768, depth=12, heads=12, patch=16, drop_path=0.1, drop_path_rises=True
    ),
    "mae-r0-s0": dict(width=1024, depth=24, heads=16, patch=16),
}
PLAIN = dict(ffn="mlp", drop_path=0.0, layer_scale=None, pre_norm=False, drop_path_rises=False)


def planned(name, monkeypatch, scale="paper") -> Architecture:
    """The architecture that a recipe asks for, without building its 300 million parameters."""

    def stop(architecture, *rest):
        raise Planned(architecture)

    id = BackboneId.parse(name)
    monkeypatch.setattr(backbone, "build", stop)
    with pytest.raises(Planned) as caught:
        RECIPES[id.method](load_settings({"scale": scale}), id, None)
    return caught.value.architecture


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipe_has_the_official_architecture(monkeypatch, name):
    architecture = planned(name, monkeypatch)
    expected = PLAIN | PUBLISHED[name]
    if name == "dinov2-giant-r0-s0":
        expected["layer_scale"] = 1e-5  # configs/train/vitg14.yaml
    assert {key: getattr(architecture, key) for key in expected} == expected


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
@pytest.mark.parametrize("method", RECIPES)
def test_short_scales_drop_no_branches_and_have_an_mlp(monkeypatch, scale, method):
    architecture = planned(f"{method}-r0-s0", monkeypatch, scale)
    assert (architecture.ffn, architecture.drop_path) == ("mlp", 0.0)


def test_every_method_is_held_against_its_source():
    assert {BackboneId.parse(name).method for name in PUBLISHED} == set(RECIPES)
    assert all(issubclass(recipe, Method) for recipe in RECIPES.values())


def test_drop_path_of_dino_rises_over_the_blocks():
    """dino/vision_transformer.py: torch.linspace(0, drop_path_rate, depth)."""
    tiny = dict(width=24, depth=3, heads=2, patch=4, image=16, drop_path=0.1)
    rising = build(Architecture(**tiny, drop_path_rises=True)).vit.blocks
    even = build(Architecture(**tiny)).vit.blocks
    assert [block.drop_path1.drop_prob for block in rising] == pytest.approx([0, 0.05, 0.1])
    assert [block.drop_path2.drop_prob for block in even] == [0.1] * 3


@pytest.mark.parametrize("width", [24, 752, 1024, 1456, 1504, 1536])
def test_swiglu_has_the_official_width(width):
    """dinov2/layers/swiglu_ffn.py: hidden 4 D, then (int(hidden * 2 / 3) + 7) // 8 * 8."""
    assert swiglu_width(width) == (int(width * 4 * 2 / 3) + 7) // 8 * 8
    with torch.device("meta"):
        backbone = build(Architecture(width, 1, 2, 14, 28, ffn="swiglu"))
    vit = backbone.vit
    json.dumps(backbone.architecture.timm())  # the card of a checkpoint holds it
    assert vit.blocks[0].mlp.fc1.out_features == 2 * swiglu_width(width)
    assert vit.blocks[0].mlp.fc2.in_features == swiglu_width(width)


def test_positions_without_antialiasing_are_resized_as_the_official_code_does():
    """interpolate_pos_encoding of dinov2/models/vision_transformer.py, written out."""
    positions = torch.randn(1, 256, 8, generator=torch.Generator().manual_seed(0))
    scale = (7 + 0.1) / 16
    grid = positions.reshape(1, 16, 16, 8).permute(0, 3, 1, 2)
    official = torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    official = official.permute(0, 2, 3, 1).reshape(1, 49, 8)
    assert torch.equal(resized_positions(positions, (16, 16), (7, 7)), official)
    assert resized_positions(positions, (16, 16), (16, 16)) is positions


def test_the_offset_acts_in_the_backbone():
    a = Architecture(width=8, depth=1, heads=2, patch=2, image=16, antialias=False)
    model = build(a)
    with torch.no_grad():
        model.vit.pos_embed.normal_(generator=torch.Generator().manual_seed(0))
    images = torch.zeros(1, 3, 6, 6)
    patches = model.vit.patch_embed(images).flatten(1, 2)
    expected = patches + resized_positions(model.vit.pos_embed, (8, 8), (3, 3))
    assert torch.allclose(model.embed(images)[:, 1:], expected)
