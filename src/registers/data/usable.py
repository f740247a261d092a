"""Reading a data set to its end although some of its files cannot be used: they are named once, counted, and left out."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from registers.data.sample import Dataset, Sample

MAX_ASPECT_RATIO = 100  # longest side over shortest, where the shorter one is resized: a line of 1 x 5000 pixels would become a gigabyte
log = logging.getLogger(__name__)


class UsableSamples:
    """The usable samples among the first `limit` of a data set, one at a time. `left_out` grows while it is read.

    needs: which truths a sample must have ("label", "mask", "depth", "boxes"); one without is left out as well. A file that cannot be
    used is one ValueError or OSError of the reader, or a ValueError of `check`. what: how the note calls them. Readers that would put
    another image in a bad file's place (`strict`) are asked not to: a metric counts each image once.
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
        self.dataset, self.needs, self.progress, self.check, self.what = (
            dataset,
            tuple(needs),
            progress,
            check,
            what,
        )
        self.limit = len(dataset) if limit is None else min(limit, len(dataset))
        self.left_out: list[str] = []
        self.used = 0

    def __iter__(self) -> Iterator[Sample]:
        for index in tqdm(
            range(self.limit),
            desc=self.progress,
            unit="image",
            disable=not self.progress,
            mininterval=1,
        ):
            if (sample := self.get(index)) is not None:
                self.used += 1
                yield sample
        if not self.used:
            raise self.nothing()

    def draws(self, order: Iterable[int]) -> Iterator[Sample]:
        """Samples in a given, perhaps endless order. Raises ValueError when as many in a row as there are cannot be used."""
        failures = 0
        for index in order:
            sample = self.get(index)
            failures = failures + 1 if sample is None else 0
            if failures > self.limit:
                raise self.nothing()
            if sample is not None:
                yield sample

    def get(self, index: int) -> Sample | None:
        """One sample, or None where it cannot be used."""
        try:
            sample = self.dataset[index]
            for truth in self.needs:
                value = getattr(sample, truth)
                if value is None or (hasattr(value, "__len__") and not len(value)):
                    raise ValueError(f"{sample.name}: has no {truth}")
            if self.check:
                self.check(sample)
            return sample
        except (OSError, ValueError) as error:
            self.leave_out(str(error).splitlines()[0])
            return None

    def leave_out(self, message: str) -> None:
        if message not in self.left_out:
            self.left_out.append(message)
            log.warning("%s (left out)", message)

    def nothing(self) -> ValueError:
        reason = f"; the first: {self.left_out[0]}" if self.left_out else ""
        return ValueError(f"none of {self.limit} {self.what} can be used{reason}")

    def note(self) -> str:
        """For a row's note: that the set is but a part of one; how many images were left out, and why the first. Empty: neither."""
        part = getattr(self.dataset, "part", "")
        note = f"; {self.what}: {part}" if part else ""
        if self.left_out:
            note += f"; {len(self.left_out)} of {self.limit} {self.what} left out, the first: {self.left_out[0]}"
        return note


def labelled(
    dataset: Dataset, limit: int, classes: int, what: str = "images", progress: str = ""
) -> UsableSamples:
    """Samples with a label from 0 to classes - 1, of a shape that can be resized by its shorter side."""

    def check(sample: Sample) -> None:
        if not 0 <= sample.label < classes:
            raise ValueError(
                f"{sample.name}: label {sample.label} is out of range; allowed are 0 to {classes - 1}"
            )
        if max(sample.image.size) > MAX_ASPECT_RATIO * min(sample.image.size):
            width, height = sample.image.size
            raise ValueError(
                f"{sample.name}: {width} x {height} pixels; allowed is a long side of at most {MAX_ASPECT_RATIO} times the short one"
            )

    return UsableSamples(dataset, limit, ["label"], progress, check, what)
