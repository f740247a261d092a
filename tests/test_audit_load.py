"""Models from every kind of place: files, wrappers, the hub's cache, this project, callables."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import planted_vit
import pytest
import timm
import torch
from safetensors.torch import save_file

from registers.audit import images as photos
from registers.audit import infer, weights
from registers.audit.api import audit, tokens
from registers.audit.errors import AuditError
from registers.audit.load import load
from registers.models import checkpoint
from registers.models.backbone import Architecture, build
from registers.tokens import capture

NAME = "vit_tiny_patch16_224"
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=0).eval()


@pytest.fixture(scope="module")
def pixels():
    torch.manual_seed(1)
    return torch.randn(1, 3, 224, 224)


@pytest.fixture(scope="module")
def norms(vit, pixels):
    return tokens(vit, pixels).norms


def saved(path, content):
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in content.items()}, path)
    else:
        torch.save(content, path)
    return path


WRAPPERS = {
    "plain": lambda tensors: tensors,
    "model": lambda tensors: {"model": tensors, "epoch": 3},
    "state_dict": lambda tensors: {"state_dict": {f"module.{k}": v for k, v in tensors.items()}},
    "teacher": lambda tensors: {
        "student": {},
        "teacher": {
            **{f"backbone.{k}": v for k, v in tensors.items()},
            "dino_head.mlp.0.weight": torch.zeros(3, 3),
        },
    },
    "both": lambda tensors: {
        "model": {f"module.backbone.{k}": v for k, v in tensors.items()},
    },
    "visual": lambda tensors: {f"visual.{k}": v for k, v in tensors.items()},
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_state_dicts_in_their_wrappers(kind, vit, pixels, norms, tmp_path):
    path = saved(tmp_path / "w.pth", WRAPPERS[kind](vit.state_dict()))
    bank = tokens(path, pixels)
    np.testing.assert_allclose(bank.norms, norms, rtol=1e-6)
    assert bank.card.sha256 == weights.digest(path)
    assert any("inferred from shapes: vit_tiny_patch16_224" in note for note in bank.card.notes)


def test_safetensors_and_a_file_of_another_suffix(vit, pixels, norms, tmp_path):
    path = saved(tmp_path / "w.safetensors", vit.state_dict())
    np.testing.assert_allclose(tokens(path, pixels, arch=NAME).norms, norms, rtol=1e-6)
    with pytest.raises(AuditError, match="must end in"):
        tokens(path.rename(tmp_path / "w.ckpt"), pixels)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil()))
    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "evil.npz", **{"embedding/kernel": np.array([Evil()], dtype=object)})
    for name, options in (
        ("evil.pth", {"arch": NAME}),
        ("evil.bin", {"arch": NAME}),
        ("evil.npz", {"arch": NAME}),
        ("evil.npy", {"prefix": 1}),
    ):
        with pytest.raises(AuditError) as error:
            tokens(tmp_path / name, None, **options)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_left_at_its_random_start(vit, tmp_path):
    tensors = dict(vit.state_dict())
    del tensors["blocks.7.mlp.fc1.weight"]
    path = saved(tmp_path / "part.pth", tensors)
    with pytest.raises(AuditError, match=r"lacks blocks\.7\.mlp\.fc1\.weight"):
        load(str(path), arch=NAME)
    with pytest.raises(AuditError, match="no known architecture"):
        load(str(path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(AuditError, match="damaged"):
        load(str(path), arch=NAME)


def test_shapes_that_fit_several_architectures_are_not_guessed(tmp_path):
    model = timm.create_model("vit_base_patch16_clip_224", num_classes=0, depth=12)
    with pytest.raises(AuditError, match="quickgelu"):
        infer.architecture_of(model.state_dict(), tmp_path)


def test_dinov2s_own_file_is_converted(tmp_path, pixels):
    """The names of facebookresearch/dinov2: mask_token, register_tokens, w12 and w3."""
    model = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=224, num_classes=0).eval()
    own = model.state_dict()
    theirs = {k.replace("reg_token", "register_tokens"): v for k, v in own.items()}
    theirs["mask_token"] = torch.zeros(1, 384)
    cls_position = torch.randn(1, 1, 384)  # timm folds it into the token
    theirs["cls_token"] = own["cls_token"] - cls_position
    theirs["pos_embed"] = torch.cat([cls_position, own["pos_embed"]], dim=1)
    path = saved(tmp_path / "dinov2.pth", theirs)
    bank = tokens(path, pixels, size=224)
    expected = tokens(model, pixels)
    np.testing.assert_allclose(bank.norms, expected.norms, rtol=1e-4, atol=1e-6)
    assert len(bank.layout.registers) == 4


# --- this project ------------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", [True, False])
def test_a_backbone_of_this_project_gives_the_same_norms(tmp_path, antialias):
    architecture = Architecture(
        width=48, depth=3, heads=3, patch=4, image=32, registers=4, antialias=antialias
    )
    torch.manual_seed(0)
    backbone = build(architecture, name="dinov2-r4-s0").eval()
    folder = tmp_path / "dinov2-r4-s0"
    folder.mkdir()
    checkpoint.save(folder / "last.safetensors", backbone, {"method": "dinov2"})
    pixels = torch.randn(4, 3, 40, 40)  # positions are interpolated
    captured = capture(backbone, pixels)
    for place in (folder, folder / "last.safetensors"):
        bank = tokens(place, pixels)
        np.testing.assert_array_equal(bank.norms, captured.norms)
        np.testing.assert_array_equal(bank.outputs, captured.outputs)
        np.testing.assert_allclose(bank.qkv(-1).k, captured.k, rtol=1e-6, atol=1e-6)
        assert len(bank.layout.registers) == 4 and bank.grid == (10, 10)
        assert bank.card.sha256 == backbone_digest(folder)
    assert audit(folder).audits[0].bank.images.pixels.shape == (24, 3, 32, 32)


def backbone_digest(folder):
    return json.loads((folder / "last.json").read_text())["weights_sha256"]


# --- the hub -----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, offline."""
    from huggingface_hub import constants

    hub = tmp_path / "home" / "hub"
    hub.mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    return hub


def put(cache, repository, files):
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(SHA)
    for name, content in files.items():
        if isinstance(content, str):
            (snapshot / name).write_text(content)
        else:
            saved(snapshot / name, content)


def test_a_name_of_timm_from_the_cache_with_its_revision(cache, vit, pixels, norms):
    name = f"{NAME}.augreg_in21k"
    put(cache, f"timm/{name}", {"model.safetensors": vit.state_dict()})
    bank = tokens(name, pixels)
    np.testing.assert_allclose(bank.norms, norms, rtol=1e-6)
    assert bank.card.revision == SHA and bank.card.source.endswith(f"timm/{name}")


def test_a_repository_of_the_hub_at_a_revision(cache, vit, pixels, norms):
    config = {"architecture": NAME, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    put(
        cache,
        "me/mine",
        {"config.json": json.dumps(config), "model.safetensors": vit.state_dict()},
    )
    loaded = load(f"hf-hub:me/mine@{SHA}")
    assert loaded.normalization == ((0.5,) * 3, (0.5,) * 3)
    np.testing.assert_allclose(tokens(f"hf-hub:me/mine@{SHA}", pixels).norms, norms, rtol=1e-6)
    put(cache, "me/theirs", {"config.json": json.dumps({"model_type": "dinov2"})})
    with pytest.raises(AuditError, match="transformers"):
        load("hf-hub:me/theirs")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (f"{NAME}.augreg_in21k", f"hf download timm/{NAME}.augreg_in21k model.safetensors"),
        (f"hf-hub:me/mine@{SHA}", f"hf download me/mine config.json --revision {SHA}"),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", "hf download laion/CLIP-ViT-B-16-laion2B"),
        ("dinov2_vitl14_reg", "curl -LO https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"),
    ],
)
def test_offline_one_line_says_what_is_missing_and_how_to_get_it(cache, name, command):
    with pytest.raises(AuditError) as error:
        load(name)
    assert command in str(error.value) and "\n" not in str(error.value)


def test_unknown_names_tags_and_models_are_told(cache):
    with pytest.raises(AuditError, match=r"no such tag; must be one of .*augreg"):
        load(f"{NAME}.nonsense")
    with pytest.raises(AuditError, match="the tag must be one of"):
        load("open_clip:ViT-B-16/nonsense")
    with pytest.raises(AuditError, match="no model of open_clip"):
        load("open_clip:ViT-Q-99/openai")


# --- callables and features --------------------------------------------------------------------


def test_a_callable_that_returns_tokens(vit, pixels, norms):
    def mine(images):
        parts = vit.forward_intermediates(
            images, norm=False, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        return [torch.cat([prefix, patches], 1) for patches, prefix in parts]

    bank = tokens(mine, pixels, prefix=1)
    np.testing.assert_allclose(bank.norms, norms, rtol=1e-5)
    assert bank.card.name == "mine" and bank.grid == (14, 14)
    with pytest.raises(AuditError, match="give the model"):
        bank.attention()
    with pytest.raises(AuditError, match="prefix must say"):
        tokens(mine, pixels)


def test_arrays_of_one_layer_or_several():
    array = np.random.default_rng(0).normal(size=(5, 1 + 12, 8)).astype(np.float32)
    one = tokens(array, prefix=1, grid=(3, 4))
    assert one.norms.shape == (5, 1, 13) and one.grid == (3, 4)
    several = tokens(np.stack([array, 2 * array]), prefix=1)
    assert several.norms.shape == (5, 2, 13) and several.grid is None
    np.testing.assert_allclose(several.norms[:, 1], 2 * one.norms[:, 0], rtol=1e-6)
    with pytest.raises(AuditError, match="must be"):
        tokens(array[0], prefix=1)


def test_texture_is_low_where_a_patch_is_flat():
    model = planted_vit.build("dinov2")
    pixels, mask = planted_vit.images(model)
    texture = photos.texture(pixels, model.patch_embed.grid_size)
    assert texture[mask].max() < 1e-6 and texture[~mask].min() > 0.5


# --- what goes wrong on the way ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("gated", "accept its licence"),
        ("repository", "no such repository on the hub"),
        ("revision", "has no revision"),
        ("entry", "has none of model.safetensors"),
        ("disk", "could not be stored .*No space left.*run again to resume"),
        ("network", "cannot be fetched .*hf download"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_line(error, line, monkeypatch, cache):
    import huggingface_hub
    from huggingface_hub import errors

    from registers.audit import hub

    def fail(*arguments, **options):
        kinds = {
            "gated": errors.GatedRepoError,
            "repository": errors.RepositoryNotFoundError,
            "revision": errors.RevisionNotFoundError,
            "entry": errors.EntryNotFoundError,
            "network": errors.HTTPError,
        }
        if error == "disk":
            raise OSError(28, "No space left on device")
        raise kinds[error].__new__(kinds[error], error)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(AuditError, match=line) as raised:
        hub.fetch("timm/x", hub.WEIGHT_FILES, SHA)
    assert "\n" not in str(raised.value)


def test_the_page_and_the_verdict_need_no_torch():
    code = (
        "import sys, registers.audit.page, registers.audit.text, registers.audit.command\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_registers_can_be_called_without_losing_its_modules():
    code = """
import sys, registers
from registers.audit.library import install
install("registers")
assert "torch" not in sys.modules
from registers.outliers import find_cutoff
import numpy as np
tokens = np.random.default_rng(0).normal(size=(20, 65, 32))
tokens[:, 5::20] *= 12
bank = registers.tokens(tokens, prefix=1)
assert registers.outliers(bank).outliers and registers.audit(tokens, prefix=1).verdict.outliers
from registers import tokens as module
assert module.capture and registers.outliers.find_cutoff is find_cutoff
"""
    subprocess.run([sys.executable, "-c", code], check=True)
