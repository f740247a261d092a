"""The token bank on disk (the second door): a folder of memory-mapped arrays. Reading it needs no torch; tokens.py writes it."""

import csv
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from registers.models.sequence import Tokens, split_tokens


class TokenBank:
    """A folder of arrays and an index: what one pass over a data set left behind. Arrays are memory-mapped when read.

    norms.npy (images, L, N) float32; outputs.npy (sample, N, D), q.npy, k.npy, v.npy (sample, H, N, d) and embeddings.npy
    (sample, P, D) of the first `sample` images; attention.npy (1 + R + 1, P) float32: attention of [CLS], each register and
    the central patch to the patches, mean over heads and all images (Fig. 16). index.json: what was looked at; index.csv: name,
    label and attributes of each image.

    Half precision: the sample's arrays are float16 unless asked otherwise. Measured with benchmarks/token_bank.py --half on a ViT-S/16
    at 224 pixels with planted outliers of 10 times the median norm: rows of attention recomputed from float16 q and k move by 4e-4 on
    average and 4e-3 at most (total variation; logits up to 54, mean entropy 0.6 nats), by 1.5e-2 at most where rows are almost
    one-hot (logits up to 214). bfloat16 moves them 8 times as far. Norms, from which outliers are told, stay float32.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.index = json.loads((self.folder / "index.json").read_text())
        except FileNotFoundError as error:
            raise ValueError(
                f"token bank = {folder}: no index.json there; write the bank first"
            ) from error

    def __len__(self) -> int:
        return self.index["images"]

    @property
    def name(self) -> str:
        """The backbone's id."""
        return self.index["backbone"]

    @property
    def registers(self) -> int:
        return self.index["registers"]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return tuple(self.index["grid"])

    @property
    def layers(self) -> int:
        return self.index["layers"]

    @property
    def sample(self) -> int:
        """How many images have outputs, q, k, v and embeddings."""
        return self.index["sample"]

    @cached_property
    def norms(self) -> np.ndarray:
        return self._array("norms")

    @cached_property
    def outputs(self) -> np.ndarray:
        return self._array("outputs")

    @cached_property
    def q(self) -> np.ndarray:
        return self._array("q")

    @cached_property
    def k(self) -> np.ndarray:
        return self._array("k")

    @cached_property
    def v(self) -> np.ndarray:
        return self._array("v")

    @cached_property
    def embeddings(self) -> np.ndarray:
        return self._array("embeddings")

    @cached_property
    def mean_attention(self) -> np.ndarray:
        return self._array("attention")

    @cached_property
    def labels(self) -> np.ndarray:
        """(images,) class indices; -1 where an image has none."""
        return np.array([int(row["label"]) if row["label"] else -1 for row in self._table])

    @cached_property
    def attributes(self) -> dict[str, np.ndarray]:
        """(images,) values of each attribute."""
        return {
            a: np.array([int(row[a]) if row[a] else -1 for row in self._table])
            for a in self.index["attributes"]
        }

    @property
    def names(self) -> list[str]:
        return [row["name"] for row in self._table]

    def split_norms(self, layer: int) -> Tokens:
        """Norms after block `layer` (1..L): cls (images,), registers (images, R), patches (images, P)."""
        if not 1 <= layer <= self.layers:
            raise ValueError(f"layer = {layer}: allowed are 1 to {self.layers}")
        return split_tokens(self.norms[:, layer - 1], self.registers)

    def _array(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @cached_property
    def _table(self) -> list[dict[str, str]]:
        with open(self.folder / "index.csv", newline="") as file:
            return list(csv.DictReader(file))
