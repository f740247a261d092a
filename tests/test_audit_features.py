"""Tokens of any other code: arrays, tensors, files and callables, and what is none."""

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


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: None, "mine: NoneType; must be an array or a tensor"),
        (lambda x: {"x": x}, "mine: dict; must be"),
        (lambda x: torch.zeros(len(x), 65), "mine: features have shapes"),
        (lambda x: torch.zeros(len(x) + 1, 65, 8), "mine: gave 9 token sequences for 8 images"),
        (lambda x: torch.rand(len(x), 60 + len(x), 8), "mine: gave other .layers, tokens, channel"),
        (lambda x: [torch.rand(len(x), 9, 8)] * len(x), "mine: gave other .layers, tokens"),
    ],
)
def test_what_a_callable_returns_is_checked(function, words):
    with pytest.raises(AuditError, match=words) as error:
        tokens(function, torch.zeros(12, 3, 8, 8), prefix=1, name="mine")
    assert "\n" not in str(error.value)
