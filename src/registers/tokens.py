"""Looking at a backbone: what one forward pass leaves behind, and the bank of it on disk.

Shapes: B images, L layers, N = 1 + R + P tokens in the order [CLS], registers, patches; D channels,
H heads of d channels.
"""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from registers.bank import TokenBank
from registers.data.sample import Dataset, Sample
from registers.files import sha256
from registers.models.backbone import Backbone
from registers.models.sequence import split_tokens

FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Capture:
    """What a bank holds of one batch of images. See `models.backbone.Observation`.

    norms: (B, L, N), L2 over channels of the residual stream after each block; the last is before
    the final norm (paper, section 2.1).
    outputs: (B, N, D), the residual stream after the last block, before the final norm.
    q, k, v: (B, H, N, d) of the last block, as attention takes them (after q_norm and k_norm where
    a model has them, before the factor 1 / sqrt d).
    embeddings: (B, P, D), right after the patch embedding, before position (Fig. 5a).
    """

    norms: Tensor
    outputs: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    embeddings: Tensor


def capture(backbone: Backbone, images_B3HW: Tensor) -> Capture:
    """One forward pass of a backbone in evaluation mode; q, k and v are the last block's."""
    observed = backbone.observe(images_B3HW)
    return Capture(
        norms=observed.norms,
        outputs=observed.outputs,
        q=observed.q[-1],
        k=observed.k[-1],
        v=observed.v[-1],
        embeddings=observed.embeddings,
    )


def attention(q: Tensor, k: Tensor, queries: Sequence[int] | slice) -> Tensor:
    """Rows of softmax(q k^T / sqrt d) for some queries: (B, H, Q, N), in float32 at least.

    q, k: (B, H, N, d) of a `Capture`. queries: token indices; 0 is [CLS], 1 + r register r,
    1 + R + p patch p.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    q = q[:, :, queries].to(dtype)
    k = k.to(dtype)
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)


def central_patch(grid: tuple[int, int]) -> int:
    """Number of the patch at row h // 2, column w // 2, whose attention is kept beside [CLS]'s."""
    height, width = grid
    return height // 2 * width + width // 2


def write_bank(
    folder: str | Path,
    backbone: Backbone,
    dataset: Dataset,
    *,
    images: int,
    sample: int,
    batch: int,
    size: int,
    dtype: str = "float16",
    data: str = "",
    progress: bool = True,
) -> TokenBank:
    """One forward pass over the first images of a data set; the folder appears whole or not at all.

    Memory does not grow with the number of images.

    images: how many are looked at; all where the data set has fewer.
    sample: of how many of them outputs, q, k, v and embeddings are kept.
    batch: images of one forward pass.
    size: pixels; images are resized and cut to size x size. Above the training resolution position
        embeddings are interpolated.
    dtype: of the sample's arrays.
    data: a name of the data set, for the index.

    Raises ValueError: size no multiple of the patch, an empty data set, values beyond the dtype.
    """
    folder = Path(folder)
    patch = backbone.architecture.patch
    images = min(images, len(dataset))
    if size % patch:
        raise ValueError(f"size: {size} is not allowed; must be a multiple of the patch, {patch}")
    if images < 1:
        raise ValueError(f"images: {images} is not allowed; a bank needs at least one")

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _Writer(
        partial,
        registers=backbone.registers,
        grid=(size // patch, size // patch),
        images=images,
        sample=min(sample, images),
        attributes=list(dataset.attributes),
        dtype=dtype,
    )
    backbone.eval()
    with writer, tqdm(total=images, unit="image", disable=not progress) as bar:
        for start in range(0, images, batch):
            samples = [dataset[i] for i in range(start, min(start + batch, images))]
            batch_B3HW = torch.stack([backbone.look(s.image, size) for s in samples])
            writer.add(capture(backbone, batch_B3HW.to(backbone.device)))
            writer.describe(samples)
            bar.update(len(samples))
    writer.finish(_about(backbone, dataset, size, data))

    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return TokenBank(folder)


def _about(backbone: Backbone, dataset: Dataset, size: int, data: str) -> dict:
    """What index.json tells of the backbone, the images and how they were seen."""
    return {
        "backbone": backbone.name,
        "data": data or type(dataset).__name__.lower(),
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "attributes": {name: list(values) for name, values in dataset.attributes.items()},
        "size": size,
        "patch": backbone.architecture.patch,
        "width": backbone.architecture.width,
        "normalization": [list(part) for part in backbone.normalization],
    }


class _Writer:
    """Fills the folder of a bank, batch by batch.

    folder: an empty one.
    registers, grid: of the backbone, R, and patches down and across.
    images, sample: how many will come, and of how many more than norms is kept.
    attributes: of each image, for index.csv.
    dtype: of the sample's arrays.
    """

    def __init__(
        self,
        folder: Path,
        *,
        registers: int,
        grid: tuple[int, int],
        images: int,
        sample: int,
        attributes: Sequence[str],
        dtype: str,
    ) -> None:
        self.folder = folder
        self.registers = registers
        self.grid = grid
        self.images = images
        self.sample = sample
        self.dtype = dtype
        self.queries = [*range(1 + registers), 1 + registers + central_patch(grid)]
        self.arrays: dict[str, _Array] = {}
        self.attention = torch.zeros((), dtype=torch.float64)  # (P, Q) after the first batch
        self.added = 0  # images
        self.attributes = attributes
        self.files = ExitStack()
        file = open(folder / "index.csv", "w", newline="")  # noqa: SIM115
        self.files.enter_context(file)
        self.table = csv.writer(file)
        self.table.writerow(["name", "label", *attributes])

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error) -> None:
        self.files.close()

    def add(self, captured: Capture) -> None:
        """Keep a batch: norms, attention, and while the sample lasts all the rest."""
        count = len(captured.norms)
        kept = max(0, min(count, self.sample - self.added))
        self._append("norms", captured.norms, self.images, "float32")
        for name in ("outputs", "q", "k", "v", "embeddings"):
            self._append(name, getattr(captured, name)[:kept], self.sample, self.dtype)
        rows = attention(captured.q, captured.k, self.queries).mean(1)  # (B, Q, N)
        to_patches = split_tokens(rows.transpose(1, 2), self.registers).patches  # (B, P, Q)
        self.attention = self.attention + to_patches.sum(0).double().cpu()
        self.added += count

    def describe(self, samples: list[Sample]) -> None:
        """A row of index.csv for each image."""
        for sample in samples:
            label = "" if sample.label is None else sample.label
            values = [sample.attributes.get(name, "") for name in self.attributes]
            self.table.writerow([sample.name, label, *values])

    def finish(self, about: dict) -> None:
        """Write the mean attention and index.json. about: the backbone and the data."""
        for array in self.arrays.values():
            array.check()
        mean = (self.attention / self.images).T.float().numpy()
        np.save(self.folder / "attention.npy", mean)
        index = about | {
            "images": self.images,
            "sample": self.sample,
            "grid": self.grid,
            "registers": self.registers,
            "layers": self.arrays["norms"].shape[1],
            "tokens": self.arrays["norms"].shape[2],
            "heads": self.arrays["q"].shape[1],
            "central_patch": central_patch(self.grid),
            "dtype": self.dtype,
            "sha256": {path.name: sha256(path) for path in sorted(self.folder.iterdir())},
        }
        (self.folder / "index.json").write_text(json.dumps(index, indent=2))

    def _append(self, name: str, values: Tensor, rows: int, dtype: str) -> None:
        if name not in self.arrays:
            array = _Array(self.folder / f"{name}.npy", (rows, *values.shape[1:]), dtype)
            self.arrays[name] = self.files.enter_context(array)
        self.arrays[name].append(values)


class _Array:
    """A .npy file of known shape, filled front to back.

    Unlike a memory map it leaves no pages behind in this process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.rows = 0
        self.file = open(path, "wb")  # noqa: SIM115
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    def __enter__(self) -> "_Array":
        return self

    def __exit__(self, *error) -> None:
        self.file.close()

    def append(self, values: Tensor) -> None:
        if not len(values):
            return
        half = self.dtype == np.float16
        if half and (highest := float(values.abs().max())) > FLOAT16_MAX:
            raise ValueError(
                f"{self.path.stem}: values up to {highest:.3g} do not fit float16; "
                "write the bank with dtype float32"
            )
        values = values.to(torch.float16 if half else torch.float32).cpu().contiguous()
        values.numpy().astype(self.dtype, copy=False).tofile(self.file)
        self.rows += len(values)

    def check(self) -> None:
        """All rows that were announced have come."""
        assert self.rows == self.shape[0], (self.path, self.rows, self.shape)
