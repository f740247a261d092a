"""Tokens of any other code: arrays, tensors, files and callables, and what is none."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from registers.audit.api import audit, tokens
from registers.audit.errors import AuditError


@pytest.fixture(scope="module")
def array():
    return np.random.default_rng(0).normal(size=(4, 197, 8)).astype(np.float32)


def test_tensors_are_taken_as_arrays_are(array):
    expected = tokens(array, prefix=1)
    for same in (torch.tensor(array), torch.tensor(array, requires_grad=True), [array]):
        np.testing.assert_array_equal(tokens(same, prefix=1).norms, expected.norms)
    half = tokens(torch.tensor(array).bfloat16(), prefix=1)
    np.testing.assert_allclose(half.norms, expected.norms, rtol=0.01)
    layers = [torch.tensor(array), torch.tensor(2 * array)]
    for several in (layers, tuple(layers), torch.stack(layers), np.stack([array, 2 * array])):
        bank = tokens(several, prefix=1)
        assert bank.norms.shape == bank.normed.shape == (4, 2, 197)
        np.testing.assert_array_equal(bank.outputs, 2 * array)
        assert bank.card.architecture == "features (2, 4, 197, 8)"
    assert len(audit(layers, prefix=1).audits) == 2, "models side by side"


def test_a_file_is_read_without_warnings_and_stays_as_it_is(array, tmp_path):
    path = tmp_path / "f.npy"
    np.save(path, array)
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank = tokens(path, prefix=1)
    np.testing.assert_array_equal(bank.outputs, array)
    assert path.read_bytes() == before and bank.card.source == str(path)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((4, 197, 0)), r"shapes \[\(4, 197, 0\)\]: must be .*none empty"),
        (np.zeros((0, 4, 197, 8)), "none empty"),
        (np.zeros((4, 8)), "must be"),
        (np.full((4, 197, 8), "x"), "values of type <U1; must be .*real numbers"),
        (np.zeros((4, 197, 8), complex), "values of type complex128; must be"),
        (torch.zeros(4, 197, 8, dtype=torch.complex64), "values of type complex64; must be"),
        (np.zeros((4, 197, 8), bool), "values of type bool; must be"),
        ([np.zeros((4, 197, 8)), np.zeros((4, 196, 8))], "all of one shape"),
        ([], "must be"),
        ([[1, 2], [3]], "must be"),
        (["vit_base_patch16_224"], "must be .*real numbers"),
        (torch.eye(3).to_sparse(), "Tensor is no array of numbers"),
        ([None], "NoneType; must be an array or a tensor"),
    ],
)
def test_what_is_no_array_of_tokens_is_one_line(wrong, words, tmp_path):
    with pytest.raises(AuditError, match=words) as error:
        tokens(wrong, prefix=1)
    assert "\n" not in str(error.value)
    if isinstance(wrong, np.ndarray):
        np.save(tmp_path / "f.npy", wrong)
        with pytest.raises(AuditError, match=words):
            tokens(tmp_path / "f.npy", prefix=1)


def of_objects(path):
    np.save(path, np.array([None]), allow_pickle=True)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), r"damaged \(.*; must be one array"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), r"damaged \(.*; must be one array"),
        (lambda path: path.write_bytes(b""), r"damaged or not a \.npy file \(it is empty\); must"),
        (lambda path: path.write_bytes(pickle.dumps(1)), r"damaged or not a \.npy file"),
        (lambda path: path.write_bytes(b"<html>"), "is an HTML page, not an array"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs"),
            "is a Git LFS pointer, not an array",
        ),
        (of_objects, "holds Python objects; must be one array of numbers"),
        (lambda path: (path.unlink(), path.mkdir()), r"cannot be read \(Is a directory\)"),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_a_damaged_file_says_what_is_accepted(array, tmp_path, write, words):
    path = tmp_path / "f.npy"
    np.save(path, array)
    write(path)
    with pytest.raises(AuditError, match=f"f.npy: {words}") as error:
        tokens(path, prefix=1)
    assert "\n" not in str(error.value) and "pickle" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_features_that_are_not_finite_are_named_with_their_layer(array, value):
    layers = np.stack([array, array]).astype(float)
    layers[1, 2, 0] = value  # a prefix token counts too
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AuditError, match=r"mine: NaN, .* in 1 of 788 tokens of layer 2"):
            tokens(layers, prefix=1, name="mine")


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_device_is_of_models(array, device):
    for model in (array, lambda x: x):
        with pytest.raises(AuditError, match=f"device = {device}: is for models by name or file"):
            tokens(model, prefix=1, device=device)
    assert len(tokens(array, prefix=1, device="cpu").norms) == 4


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: None, "mine: NoneType; must be an array or a tensor"),
        (lambda x: {"x": x}, "mine: dict; must be"),
        (lambda x: torch.zeros(len(x), 65), "mine: features have shapes"),
        (lambda x: torch.zeros(len(x) + 1, 65, 8), "mine: gave 9 token sequences for 8 images"),
        (
            lambda x: torch.rand(len(x), 60 + len(x), 8),
            "mine: gave different .layers, tokens, channel",
        ),
        (lambda x: [torch.rand(len(x), 9, 8)] * len(x), "mine: gave different .layers, tokens"),
    ],
)
def test_what_a_callable_returns_is_checked(function, words):
    with pytest.raises(AuditError, match=words) as error:
        tokens(function, torch.zeros(12, 3, 8, 8), prefix=1, name="mine")
    assert "\n" not in str(error.value)
