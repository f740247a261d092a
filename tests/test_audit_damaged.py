"""Weights and config.json that are damaged or something else: one line with the file's name."""

import hashlib
import json
import pickle
import re
import warnings

import pytest
import timm
import torch
from safetensors.torch import save_file

from registers.audit import weights
from registers.audit.errors import AuditError
from registers.audit.load import load

NAME = "vit_tiny_patch16_224"
PAGE = b"\n<!DOCTYPE html><html><body>403</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def refused(path, **options):
    with pytest.raises(AuditError) as error:
        load(str(path), **options)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors", ".npz"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PAGE, "is an HTML page, not weights; was the download refused?"),
        (POINTER, "is a Git LFS pointer, not weights; must be the file itself"),
    ],
)
def test_what_is_no_file_of_weights_is_told(tmp_path, suffix, content, words):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    assert words in refused(path, arch=NAME)


@pytest.mark.parametrize("content", [b"hello", b"a", b"", b"\x80", b"\x80\x02hello", b"PK\x03"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_damaged_weights_are_one_line(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    assert "damaged" in refused(path, arch=NAME)


def torch_file(path, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "script":
        torch.jit.script(torch.nn.Identity()).save(path)
    elif kind == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        torch.save(
            {"blocks.0.x": torch.ones(300)}, path, _use_new_zipfile_serialization=kind == "zip"
        )
        content = path.read_bytes()
        if kind == "zip":  # its pickle, behind the names in the archive
            at = content.index(b"\x80\x02")
            path.write_bytes(content[: at + 2] + bytes(4) + content[at + 6 :])
        else:
            path.write_bytes(content[:-500])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pickle", "damaged, or a pickle that torch.save did not write; must be tensors by name"),
        ("zip", "damaged, or a pickle that torch.save did not write; must be tensors by name"),
        ("cut", "damaged or not a file of weights .*; must be tensors by name"),
        ("script", "is a TorchScript program, not weights; must be tensors by name"),
        ("module", "more than tensors .*run code .torch.nn.modules.linear.Linear.; save its state"),
    ],
)
def test_what_torch_cannot_read_is_said_without_its_advice(tmp_path, kind, words):
    path = tmp_path / "a.pt"
    torch_file(path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refused(path, arch=NAME)
    assert re.search(words, message)
    assert "weights_only" not in message and "\x1b" not in message


def test_both_formats_of_torch_and_safetensors_pass(tmp_path):
    tensors = {"blocks.0.x": torch.ones(2)}
    torch.save(tensors, tmp_path / "new.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "a.safetensors")
    for path in tmp_path.iterdir():
        assert torch.equal(weights.read(path)["blocks.0.x"], torch.ones(2))
    # a safetensors file whose length begins like a page
    header = json.dumps({}).encode().ljust(0x213C, b" ")
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert (tmp_path / "b.safetensors").read_bytes()[:2] == b"<!"
    weights.check_kind(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("not json", "not readable as JSON"),
        ([1], "must be a JSON object"),
        ({}, "names no architecture"),
        ({"architecture": 5}, "architecture: 5"),
        ({"architecture": NAME, "model_args": 5}, "model_args: 5"),
        ({"architecture": NAME, "model_args": {"foo": 5}}, "cannot be built with .*foo"),
        ({"architecture": NAME, "model_args": {"num_heads": 0}}, "cannot be built"),
        ({"architecture": NAME, "pretrained_cfg": 5}, "pretrained_cfg: 5"),
        ({"architecture": NAME, "pretrained_cfg": {"input_size": 5}}, "input_size: 5"),
        ({"architecture": NAME, "pretrained_cfg": {"input_size": [3, 0, 9]}}, "input_size.1: 0"),
        ({"architecture": NAME, "pretrained_cfg": {"std": [1, 1, 0]}}, "std.2: 0"),
        ({"architecture": "vit_of_nobody"}, "no model of timm"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_line_with_its_name(tmp_path, config, words):
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(AuditError, match=words) as error:
        load(str(tmp_path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_config_with_what_the_audit_does_not_know_is_taken(tmp_path):
    config = {
        "architecture": NAME,
        "num_features": 192,
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "mean": [0.5] * 3,
            "tag": "mine",
            "std": None,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    vit = timm.create_model(NAME, num_classes=0, img_size=64)
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    loaded = load(str(tmp_path))
    assert loaded.size == (64, 64) and loaded.normalization[0] == (0.5,) * 3


# --- a recipe of test-time registers, which anybody may edit


RECIPE = {"registers": 1, "neurons": [[3, 5]]}


def write_recipe(path, **changes):
    """Weights of a tiny ViT with a recipe beside them, changed; None leaves a key out."""
    vit = timm.create_model(NAME, num_classes=0, img_size=32, depth=4)
    save_file(vit.state_dict(), path)
    content = {
        "name": "mine",
        "timm": {"name": NAME, "arguments": {"num_classes": 0, "img_size": [32, 32], "depth": 4}},
        "normalization": [[0.5] * 3, [0.5] * 3],
        "test_time_registers": RECIPE,
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    } | changes
    content = {key: value for key, value in content.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


def test_a_recipe_as_it_is_written_opens(tmp_path):
    loaded = load(str(write_recipe(tmp_path / "a.safetensors")))
    assert loaded.anatomy.prefix[-1] == "test-time register 1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights_sha256": None}, r"a\.json: weights_sha256 is missing"),
        ({"timm": None}, r"a\.json: timm is missing"),
        ({"timm": {"name": "none", "arguments": {}}}, "timm cannot build .*none"),
        ({"timm": {"name": NAME, "arguments": {"x": 1}}}, "timm cannot build .* 'x'"),
        ({"timm": {"name": NAME, "arguments": {"depth": 3}}}, "timm cannot build "),
        ({"timm": {"name": NAME, "arguments": {"pretrained": True}}}, "timm cannot build "),
        (
            {"normalization": [[0.5] * 3, [0.5, 0.5, 0]]},
            r"normalization\.1\.2: 0: .*greater than 0",
        ),
        ({"test_time_registers": 5}, "test_time_registers: 5: "),
        ({"test_time_registers": {"registers": 1}}, r"test_time_registers\.neurons is missing"),
        ({"test_time_registers": RECIPE | {"neurons": [[0, 5]]}}, r"neurons\.0\.0: 0: .*greater"),
        ({"test_time_registers": RECIPE | {"neurons": [[9, 5]]}}, "layer 9, but the model has 4"),
        ({"test_time_registers": RECIPE | {"neurons": [[3, 768]]}}, "from 0, not 768"),
        ({"test_time_registers": RECIPE | {"registers": 10**9}}, "must be from 1 to 1024"),
    ],
)
def test_a_recipe_that_was_edited_is_one_line(tmp_path, changes, words):
    path = write_recipe(tmp_path / "a.safetensors", **changes)
    with pytest.raises(AuditError, match=words) as error:
        load(str(path))
    assert "\n" not in str(error.value)


def test_nobody_is_told_to_delete_the_folder_of_a_copied_checkpoint(tmp_path):
    path = write_recipe(tmp_path / "a.safetensors", test_time_registers=None, architecture={})
    with pytest.raises(AuditError, match="not the card of a checkpoint") as error:
        load(str(path))
    assert "delete the folder" not in str(error.value)
