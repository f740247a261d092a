"""The order of training data and every random draw, from a seed and a number alone.

Nothing is drawn from a generator with a history: the order of the data follows from (seed, epoch),
the augmentation of an example from (seed, its number in the run), the noise of a step from
(seed, step). So a killed training resumes to the same weights, and a step's batch is the same for
any number of processes and loader workers.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from registers.data.sample import Dataset, Sample

Place = tuple[int, int]  # number of an example in the run, index of its sample in the data set


class Examples(torch.utils.data.Dataset):
    """Example `number` of the run: sample `index`, augmented by draws that follow from `number`."""

    def __init__(self, samples: Dataset, augment: Callable[[Sample], Any], seed: int) -> None:
        self.samples = samples
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: Place) -> Any:
        number, index = place
        seed_example(self.seed, number)
        return self.augment(self.samples[index])


class Order(torch.utils.data.Sampler):
    """For each step, the places of one process in the global batch.

    samples: size of the data set; each epoch is a permutation of it.
    batch: of all processes together. steps: of the whole training.
    first: the step to begin with. processes, rank: how many there are, and which this is.

    Slots i and B-1-i always meet on one process, in mirrored places, because CutMix and mixup pair
    them (timm.data.Mixup).
    """

    def __init__(
        self,
        samples: int,
        batch: int,
        steps: int,
        seed: int,
        *,
        first: int = 0,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        self.samples = samples
        self.batch = batch
        self.steps = steps
        self.seed = seed
        self.first = first
        self.slots = list(range(batch))
        if processes > 1:
            half = batch // 2 // processes
            front = self.slots[rank * half : (rank + 1) * half]
            self.slots = front + [batch - 1 - slot for slot in reversed(front)]

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[Place]]:
        epoch = -1
        order = np.empty(0, np.int64)
        for step in range(self.first, self.steps):
            places = []
            for slot in self.slots:
                number = step * self.batch + slot
                if number // self.samples != epoch:
                    epoch = number // self.samples
                    generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
                    order = generator.permutation(self.samples)
                places.append((number, int(order[number % self.samples])))
            yield places


def loader(
    samples: Dataset, augment: Callable[[Sample], Any], order: Order, workers: int
) -> DataLoader:
    """Batches of augmented examples in this order, made by `workers` processes (0: by this one)."""
    return DataLoader(
        Examples(samples, augment, order.seed),
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def seed_step(seed: int, step: int) -> None:
    """Seed torch on all devices, numpy and random, for one step."""
    key = _key(0, seed, step)
    torch.manual_seed(key % 2**63)
    _seed_others(key)


def seed_example(seed: int, number: int) -> None:
    """Seed torch on the CPU, numpy and random, for one example.

    It takes 1 microsecond where torch.manual_seed, which visits every kind of device, takes 120.
    """
    key = _key(1, seed, number)
    torch.default_generator.manual_seed(key % 2**63)
    _seed_others(key)


def _key(*numbers: int) -> int:
    content = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(content, "little")


def _seed_others(key: int) -> None:
    np.random.seed(key % 2**32)
    random.seed(key)
