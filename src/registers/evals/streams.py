"""Reading a data set to its end although some of its files cannot be used: they are named once, counted, and left out."""

import logging
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from registers.data.sample import Dataset, Sample

log = logging.getLogger(__name__)


class Stream:
    """The usable samples among the first `limit` of a data set, one at a time. `left_out` grows while it is read.

    needs: which truths a sample must have ("mask", "depth", "boxes"); one without is left out as well. A file that cannot be used is
    one ValueError or OSError of the reader, or a ValueError of `check`.
    """

    def __init__(
        self,
        dataset: Dataset,
        limit: int | None = None,
        needs: Iterable[str] = (),
        progress: str = "",
        check: Callable[[Sample], None] | None = None,
    ) -> None:
        self.dataset, self.needs, self.progress, self.check = dataset, tuple(needs), progress, check
        self.limit = len(dataset) if limit is None else min(limit, len(dataset))
        self.left_out: list[str] = []
        self.used = 0

    def __iter__(self) -> Iterator[Sample]:
        for index in tqdm(range(self.limit), desc=self.progress, unit="image", disable=not self.progress, mininterval=1):
            if (sample := self.get(index)) is not None:
                self.used += 1
                yield sample
        if not self.used:
            reason = f"; the first: {self.left_out[0]}" if self.left_out else ""
            raise ValueError(f"none of {self.limit} images can be used{reason}")

    def get(self, index: int) -> Sample | None:
        """One sample, or None where it cannot be used."""
        try:
            sample = self.dataset[index]
            for truth in self.needs:
                value = getattr(sample, truth)
                if value is None or not len(value):
                    raise ValueError(f"{sample.name}: has no {truth}")
            if self.check:
                self.check(sample)
            return sample
        except (OSError, ValueError) as error:
            message = str(error).splitlines()[0]
            if message not in self.left_out:
                self.left_out.append(message)
                log.warning("%s (left out)", message)
            return None

    def note(self) -> str:
        """For a row's note: how many images were left out, and why the first of them; empty when none was."""
        if not self.left_out:
            return ""
        return f"; {len(self.left_out)} of {self.limit} images left out, the first: {self.left_out[0]}"
