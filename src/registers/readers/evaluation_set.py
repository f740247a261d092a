"""What a question looks at: the two splits of one data set, opened when they are first used.

In a module of its own so that a question that names the type does not depend on every reader.
"""

from collections.abc import Callable
from functools import cached_property

from registers.data.sample import Dataset


class EvaluationSet:
    """One data set of a question's role.

    name: what its rows say in the column `data`.
    open_split: opens "train" or "val"; None where the set has no such split.
    """

    def __init__(self, name: str, open_split: Callable[[str], Dataset | None]) -> None:
        self.name = name
        self._open_split = open_split

    @classmethod
    def of(cls, name: str, train: Dataset | None, val: Dataset | None) -> "EvaluationSet":
        """Two splits that are open already, as tests have them."""
        return cls(name, {"train": train, "val": val}.get)

    @cached_property
    def train(self) -> Dataset | None:
        """Images to fit or tune on; None where a set has none (nothing to tune LOST on)."""
        return self._open_split("train")

    @cached_property
    def val(self) -> Dataset:
        """Images to measure on."""
        return self._open_split("val")
