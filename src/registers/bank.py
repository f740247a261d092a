"""The token bank on disk: a folder of memory-mapped arrays. Reading it needs no torch.

tokens.py writes it.
"""

import csv
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from registers.files import sha256
from registers.models.sequence import Tokens, split_tokens


def _array(name: str) -> cached_property:
    """An array of the bank's folder, checked and memory-mapped when it is first read."""

    def read(bank: "TokenBank") -> np.ndarray:
        return np.load(bank.checked(f"{name}.npy"), mmap_mode="r")

    return cached_property(read)


class TokenBank:
    """A folder of arrays and an index: what one pass over a data set left behind.

    norms.npy (images, L, N) float32; outputs.npy (sample, N, D), q.npy, k.npy, v.npy
    (sample, H, N, d) and embeddings.npy (sample, P, D) of the first `sample` images; attention.npy
    (1 + R + 1, P) float32: attention of [CLS], each register and the central patch to the patches,
    mean over heads and all images (Fig. 16). index.json: what was looked at, and the SHA-256 of
    every other file; index.csv: name, label and attributes of each image.

    Half precision: the sample's arrays are float16 unless asked otherwise. Measured with
    benchmarks/token_bank.py --half on a ViT-S/16 at 224 pixels with planted outliers of 10 times
    the median norm: rows of attention recomputed from float16 q and k move by 4e-4 on average and
    4e-3 at most (total variation; logits up to 54, mean entropy 0.6 nats), by 1.5e-2 at most where
    rows are almost one-hot (logits up to 214). bfloat16 moves them 8 times as far. Norms, from
    which outliers are told, stay float32.

    A file is compared with its SHA-256 when it is first read. Raises ValueError, which names the
    file and the remedy, for one that is missing or damaged.
    """

    norms = _array("norms")
    outputs = _array("outputs")
    q = _array("q")
    k = _array("k")
    v = _array("v")
    embeddings = _array("embeddings")
    mean_attention = _array("attention")

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            text = (self.folder / "index.json").read_text()
        except FileNotFoundError as error:
            raise ValueError(
                f"token bank = {folder}: no index.json there; write the bank first"
            ) from error
        try:
            self.index = json.loads(text)
            self._digests = self.index["sha256"]
        except (ValueError, KeyError) as error:
            raise self._damaged("index.json", "not an index of this version") from error

    def __len__(self) -> int:
        return self.index["images"]

    # --- what was looked at

    @property
    def name(self) -> str:
        """The backbone's id."""
        return self.index["backbone"]

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.index["data"]

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
    def labels(self) -> np.ndarray:
        """(images,) class indices; -1 where an image has none."""
        return self._column("label")

    @cached_property
    def attributes(self) -> dict[str, np.ndarray]:
        """(images,) values of each attribute; -1 where an image has none."""
        return {name: self._column(name) for name in self.index["attributes"]}

    @property
    def names(self) -> list[str]:
        return [row["name"] for row in self._table]

    # --- tokens

    def split_norms(self, layer: int) -> Tokens:
        """Norms after block `layer` (1..L).

        cls (images,), registers (images, R), patches (images, P). Raises ValueError for a layer
        that does not exist.
        """
        if not 1 <= layer <= self.layers:
            raise ValueError(f"layer: {layer} is not allowed; must be from 1 to {self.layers}")
        return split_tokens(self.norms[:, layer - 1], self.registers)

    def patch_norms(self) -> np.ndarray:
        """(images, P) norms of patches after the last block: those from which outliers are told."""
        return np.asarray(self.split_norms(self.layers).patches)

    def final_tokens(self) -> Tokens:
        """Tokens of the sample as a linear probe sees them, see `standardised`."""
        return split_tokens(standardised(self.outputs), self.registers)

    # --- files

    def checked(self, name: str) -> Path:
        """Path of a file of the bank whose content is that of the index."""
        path = self.folder / name
        try:
            digest = sha256(path)
        except FileNotFoundError as error:
            raise self._damaged(name, "the file is missing") from error
        if digest != self._digests.get(name):
            raise self._damaged(name, "its SHA-256 is not the one in index.json")
        return path

    def _damaged(self, name: str, how: str) -> ValueError:
        return ValueError(
            f"{self.folder / name}: {how}; delete the folder {self.folder} and run snakemake again"
        )

    def _column(self, name: str) -> np.ndarray:
        return np.array([int(row[name]) if row[name] else -1 for row in self._table])

    @cached_property
    def _table(self) -> list[dict[str, str]]:
        with open(self.checked("index.csv"), newline="") as file:
            return list(csv.DictReader(file))


def standardised(tokens: np.ndarray) -> np.ndarray:
    """Final tokens as a linear probe sees them, float32.

    That is the final LayerNorm without its scale and shift, which are themselves linear. tokens:
    (..., D) before the final norm. eps as in timm's and the official ViTs, 1e-6.
    """
    x = np.asarray(tokens, dtype=np.float32)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
