"""The order of training data: batches do not depend on processes, nor on where a run resumes."""

import random

import numpy as np
import pytest
import torch

from registers.data.order import Examples, Order, loader, seed_step


def order(**choices) -> list:
    return list(Order(24, batch=8, steps=8, seed=0, **choices))


def test_two_processes_share_each_batch_and_keep_mirrored_pairs_together():
    parts = [order(processes=2, rank=rank) for rank in (0, 1)]
    for step, batch in enumerate(order()):
        shares = [part[step] for part in parts]
        assert sorted(shares[0] + shares[1]) == sorted(batch)
        pairs = {frozenset((batch[i], batch[-1 - i])) for i in range(4)}
        assert {frozenset((s[i], s[-1 - i])) for s in shares for i in range(2)} == pairs


def test_each_epoch_draws_every_sample_once_in_an_order_of_its_own():
    indices = [index for batch in order() for _, index in batch]
    epochs = [indices[:24], indices[24:48]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(24))] * 2
    assert epochs[0] != epochs[1]
    assert [number for batch in order() for number, _ in batch] == list(range(64))


def test_a_resumed_run_draws_what_it_would_have_drawn():
    assert order(first=5) == order()[5:]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_does_not_depend_on_workers_or_on_the_examples_before_it(workers):
    def augment(sample):
        return torch.tensor([float(sample), torch.rand(()), np.random.rand(), random.random()])

    batches = list(loader(range(24), augment, Order(24, 8, 8, 0, first=6), workers))
    examples = Examples(range(24), augment, seed=0)
    for batch, places in zip(batches, order()[6:], strict=True):
        assert torch.equal(batch, torch.stack([examples[place] for place in places]))


def test_a_step_has_noise_of_its_own():
    draws = []
    for step in (0, 1, 0):
        seed_step(3, step)
        draws.append((float(torch.rand(())), np.random.rand(), random.random()))
    assert draws[0] == draws[2]
    assert not {*draws[0]} & {*draws[1]}
