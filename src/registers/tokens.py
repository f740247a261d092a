"""Looking at a backbone: what one forward pass leaves behind, and the bank of it on disk (the second door).

Shapes: B images, L layers, N = 1 + R + P tokens in the order [CLS], registers, patches; D channels, H heads of d channels.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from registers.data.augment import evaluation
from registers.data.sample import Dataset
from registers.models.backbone import Backbone, Tokens, split_tokens


@dataclass(frozen=True)
class Capture:
    """Tokens of one batch of images, seen from inside.

    norms: (B, L, N), L2 over channels of the residual stream after each block; the last is before the final norm (paper,
    section 2.1). outputs: (B, N, D), the residual stream after the last block, before the final norm. q, k, v: (B, H, N, d) of
    the last block, as attention takes them (after q_norm and k_norm where a model has them, before the factor 1 / sqrt d).
    embeddings: (B, P, D), right after the patch embedding, before position (Fig. 5a).
    """

    norms: Tensor
    outputs: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    embeddings: Tensor


@torch.no_grad()
def capture(backbone: Backbone, images_B3HW: Tensor) -> Capture:
    """One forward pass, fused attention left on; q, k and v are read by a hook on the last block's `attn.qkv`.

    Give a backbone in evaluation mode. Raises ValueError where the last block has no fused `attn.qkv`.
    """
    attention = getattr(backbone.vit.blocks[-1], "attn", None)
    if not hasattr(attention, "qkv"):
        raise ValueError(f"backbone {backbone.name}: its last block has no attn.qkv; allowed are timm ViTs with one linear for q, k and v")
    seen: dict[str, Tensor] = {}
    hooks = [
        backbone.vit.patch_embed.register_forward_hook(lambda module, args, out: seen.update(embeddings=out)),
        attention.qkv.register_forward_hook(lambda module, args, out: seen.update(qkv=out)),
    ]
    try:
        x = backbone.embed(images_B3HW)
        norms = []
        for block in backbone.vit.blocks:
            x = block(x)
            norms.append(torch.linalg.vector_norm(x, dim=-1))
    finally:
        for hook in hooks:
            hook.remove()
    batch, tokens, _ = x.shape
    q, k, v = seen["qkv"].view(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    embeddings = seen["embeddings"].reshape(batch, tokens - 1 - backbone.registers, -1)  # (B, h, w, D) with dynamic_img_size
    return Capture(torch.stack(norms, dim=1), x, attention.q_norm(q), attention.k_norm(k), v, embeddings)


def attention(q: Tensor, k: Tensor, queries: Sequence[int] | slice) -> Tensor:
    """Rows of softmax(q k^T / sqrt d) for some queries: (B, H, Q, N), in float32 at least.

    q, k: (B, H, N, d) of a `Capture`. queries: token indices; 0 is [CLS], 1 + r register r, 1 + R + p patch p.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    q, k = q[:, :, queries].to(dtype), k.to(dtype)
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)


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
            raise ValueError(f"token bank = {folder}: no index.json there; write the bank first") from error

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
        return {a: np.array([int(row[a]) if row[a] else -1 for row in self._table]) for a in self.index["attributes"]}

    @property
    def names(self) -> list[str]:
        return [row["name"] for row in self._table]

    def split_norms(self, layer: int) -> Tokens:
        """Norms after block `layer` (1..L): cls (images,), registers (images, R), patches (images, P)."""
        if not 1 <= layer <= self.layers:
            raise ValueError(f"layer = {layer}: allowed are 1 to {self.layers}")
        return split_tokens(self.norms[:, layer - 1], self.registers)

    def captures(self, batch: int = 64) -> Iterator[Capture]:
        """The sample, batch by batch, as float32 tensors."""
        for start in range(0, self.sample, batch):
            part = slice(start, min(start + batch, self.sample))
            arrays = (getattr(self, name)[part] for name in ("norms", "outputs", "q", "k", "v", "embeddings"))
            yield Capture(*(torch.from_numpy(a.astype(np.float32)) for a in arrays))

    def _array(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @cached_property
    def _table(self) -> list[dict[str, str]]:
        with open(self.folder / "index.csv", newline="") as file:
            return list(csv.DictReader(file))

    @classmethod
    def write(
        cls,
        folder: str | Path,
        backbone: Backbone,
        dataset: Dataset,
        *,
        images: int,
        sample: int,
        batch: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        dtype: str = "float16",
        data: str = "",
        progress: bool = True,
    ) -> "TokenBank":
        """One forward pass over the first `images` of a data set, in batches; memory does not grow with their number.

        Images are resized and centre-cropped to size x size pixels (above the training resolution: position embeddings are
        interpolated) and normalised by mean and std. The folder appears whole or not at all. data: a name for the index.

        dtype: of the sample's arrays. Raises ValueError: size no multiple of the patch, empty data set, values beyond the dtype.
        """
        folder, patch = Path(folder), backbone.architecture.patch
        images, registers = min(images, len(dataset)), backbone.registers
        sample = min(sample, images)
        if size % patch:
            raise ValueError(f"size = {size}: allowed are multiples of the patch, {patch}")
        if images < 1:
            raise ValueError(f"images = {images}: a bank needs at least one")
        grid = (size // patch, size // patch)
        centre = 1 + registers + grid[0] // 2 * grid[1] + grid[1] // 2
        queries = [*range(1 + registers), centre]
        look = evaluation(size, normalization=(tuple(mean), tuple(std)))
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)

        backbone = backbone.to(device).eval()
        arrays: dict[str, _Array] = {}
        rows_seen = torch.zeros((), dtype=torch.float64)
        with open(partial / "index.csv", "w", newline="") as file, tqdm(total=images, unit="image", disable=not progress) as bar:
            table = csv.writer(file)
            table.writerow(["name", "label", *dataset.attributes])
            for start in range(0, images, batch):
                samples = [dataset[i] for i in range(start, min(start + batch, images))]
                for s in samples:
                    table.writerow([s.name, "" if s.label is None else s.label, *(s.attributes.get(a, "") for a in dataset.attributes)])
                seen = capture(backbone, torch.stack([look(s.image) for s in samples]).to(device))
                kept = max(0, min(len(samples), sample - start))
                for name in ("norms", "outputs", "q", "k", "v", "embeddings"):
                    value, count, kind = (seen.norms, images, "float32") if name == "norms" else (getattr(seen, name)[:kept], sample, dtype)
                    if name not in arrays:
                        arrays[name] = _Array(partial / f"{name}.npy", (count, *value.shape[1:]), kind)
                    arrays[name].append(value)
                rows = split_tokens(attention(seen.q, seen.k, queries).mean(1).transpose(1, 2), registers).patches  # (B, P, Q)
                rows_seen = rows_seen + rows.sum(0).double().cpu()
                bar.update(len(samples))
        for array in arrays.values():
            array.close()
        mean_rows = (rows_seen / images).T.float().numpy()
        np.save(partial / "attention.npy", mean_rows)
        index = {
            "backbone": backbone.name,
            "data": data or type(dataset).__name__.lower(),
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "attributes": {name: list(values) for name, values in dataset.attributes.items()},
            "images": images,
            "sample": sample,
            "size": size,
            "patch": patch,
            "grid": grid,
            "registers": registers,
            "layers": arrays["norms"].shape[1],
            "tokens": arrays["norms"].shape[2],
            "width": backbone.architecture.width,
            "heads": arrays["q"].shape[1],
            "central_patch": centre - 1 - registers,
            "normalization": [list(mean), list(std)],
            "dtype": dtype,
        }
        (partial / "index.json").write_text(json.dumps(index, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        return cls(folder)


class _Array:
    """A .npy file of known shape, filled front to back. Unlike a memory map it leaves no pages behind in this process."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype, self.rows = path, shape, np.dtype(dtype), 0
        self.file = open(path, "wb")  # noqa: SIM115
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, values: Tensor) -> None:
        if not len(values):
            return
        if self.dtype == np.float16 and (highest := float(values.abs().max())) > 65504:
            raise ValueError(f"{self.path.stem}: values up to {highest:.3g} do not fit float16; write the bank with dtype float32")
        kind = torch.float16 if self.dtype == np.float16 else torch.float32
        values.to(kind).cpu().contiguous().numpy().astype(self.dtype, copy=False).tofile(self.file)
        self.rows += len(values)

    def close(self) -> None:
        assert self.rows == self.shape[0], (self.path, self.rows, self.shape)
        self.file.close()
