"""Usable samples: a data set read to its end although some of its files cannot be used.

Those are named once, counted and left out.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from registers.data.sample import Dataset, Sample

# Longest side over shortest of images that are resized by their shorter side: at 224 pixels, a line
# of 1 x 5000 pixels would become an image of 224 x 1,120,000, 750 MB.
MAX_ASPECT_RATIO = 100
log = logging.getLogger(__name__)


class UsableSamples:
    """The usable samples among the first `limit` of a data set, one at a time.

    dataset: readers that put another image in the place of a bad file (`strict` is False) are asked
        not to: a metric counts each image once.
    limit: how many samples to look at; None means all.
    needs: what a sample must have, e.g. "label", "mask", "depth" or "boxes".
    progress: the label of a progress bar; "" shows none.
    check: raises ValueError for a sample that cannot be used for another reason.
    what: what the note calls the samples.

    A file that cannot be used is one ValueError or OSError of the reader, one without what it
    needs, or a ValueError of `check`. `left_out` and `used` grow while samples are read.
    """

    def __init__(
        self,
        dataset: Dataset,
        limit: int | None = None,
        needs: Iterable[str] = (),
        progress: str = "",
        check: Callable[[Sample], None] | None = None,
        what: str = "images",
    ) -> None:
        if getattr(dataset, "strict", True) is False:
            dataset = copy.copy(dataset)
            dataset.strict = True
        self.dataset = dataset
        self.limit = len(dataset) if limit is None else min(limit, len(dataset))
        self.needs = tuple(needs)
        self.progress = progress
        self.check = check
        self.what = what
        self.left_out: list[str] = []
        self.used = 0

    def __iter__(self) -> Iterator[Sample]:
        """Each usable sample once. Raises ValueError where there is none."""
        indices = tqdm(
            range(self.limit),
            desc=self.progress,
            unit="image",
            disable=not self.progress,
            mininterval=1,
        )
        for index in indices:
            sample = self.get(index)
            if sample is not None:
                self.used += 1
                yield sample
        if not self.used:
            raise self.nothing()

    def draws(self, order: Iterable[int]) -> Iterator[Sample]:
        """Usable samples in a given, perhaps endless order.

        Raises ValueError when as many in a row as there are cannot be used.
        """
        failures = 0
        for index in order:
            sample = self.get(index)
            if sample is not None:
                failures = 0
                yield sample
                continue
            failures += 1
            if failures > self.limit:
                raise self.nothing()

    def get(self, index: int) -> Sample | None:
        """One sample, or None where it cannot be used."""
        try:
            sample = self.dataset[index]
            for name in self.needs:
                if not _has(sample, name):
                    raise ValueError(f"{sample.name}: has no {name}")
            if self.check:
                self.check(sample)
            return sample
        except (OSError, ValueError) as error:
            self._leave_out(str(error).splitlines()[0])
            return None

    def nothing(self) -> ValueError:
        """The error that says that no sample can be used, and why the first cannot."""
        reason = f"; the first: {self.left_out[0]}" if self.left_out else ""
        return ValueError(f"none of {self.limit} {self.what} can be used{reason}")

    def note(self) -> str:
        """What a row's note must say of the samples; "" where there is nothing to say.

        That the data set is a part of one; how many samples were left out, and why the first.
        """
        part = getattr(self.dataset, "part", "")
        note = f"; {self.what}: {part}" if part else ""
        if self.left_out:
            count = f"{len(self.left_out)} of {self.limit} {self.what} left out"
            note += f"; {count}, the first: {self.left_out[0]}"
        return note

    def _leave_out(self, message: str) -> None:
        if message not in self.left_out:
            self.left_out.append(message)
            log.warning("%s (left out)", message)


def labelled(
    dataset: Dataset, limit: int, classes: int, what: str = "images", progress: str = ""
) -> UsableSamples:
    """Samples with a label from 0 to classes - 1 that can be resized by their shorter side."""

    def check(sample: Sample) -> None:
        if not 0 <= sample.label < classes:
            raise ValueError(
                f"{sample.name}: label {sample.label} is out of range; must be 0 to {classes - 1}"
            )
        width, height = sample.image.size
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise ValueError(
                f"{sample.name}: {width} x {height} pixels; the long side must be at most "
                f"{MAX_ASPECT_RATIO} times the short one"
            )

    return UsableSamples(dataset, limit, ["label"], progress, check, what)


def _has(sample: Sample, name: str) -> bool:
    """Whether a sample has an annotation, and one that is not empty."""
    value = getattr(sample, name)
    if value is None:
        return False
    return not hasattr(value, "__len__") or len(value) > 0
