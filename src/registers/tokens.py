"""Looking at a backbone: what one forward pass leaves behind, and the bank of it on disk (the second door).

Shapes: B images, L layers, N = 1 + R + P tokens in the order [CLS], registers, patches; D channels, H heads of d channels.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from registers.bank import TokenBank
from registers.data.sample import Dataset
from registers.data.transforms import evaluation
from registers.models.backbone import Backbone
from registers.models.sequence import split_tokens


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
        raise ValueError(
            f"backbone {backbone.name}: its last block has no attn.qkv; allowed are timm ViTs with one linear for q, k and v"
        )
    seen: dict[str, Tensor] = {}
    hooks = [
        backbone.vit.patch_embed.register_forward_hook(
            lambda module, args, out: seen.update(embeddings=out)
        ),
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
    embeddings = seen["embeddings"].reshape(
        batch, tokens - 1 - backbone.registers, -1
    )  # (B, h, w, D) with dynamic_img_size
    return Capture(
        torch.stack(norms, dim=1), x, attention.q_norm(q), attention.k_norm(k), v, embeddings
    )


def attention(q: Tensor, k: Tensor, queries: Sequence[int] | slice) -> Tensor:
    """Rows of softmax(q k^T / sqrt d) for some queries: (B, H, Q, N), in float32 at least.

    q, k: (B, H, N, d) of a `Capture`. queries: token indices; 0 is [CLS], 1 + r register r, 1 + R + p patch p.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    q, k = q[:, :, queries].to(dtype), k.to(dtype)
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)


def write_bank(
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
) -> TokenBank:
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
    with (
        open(partial / "index.csv", "w", newline="") as file,
        tqdm(total=images, unit="image", disable=not progress) as bar,
    ):
        table = csv.writer(file)
        table.writerow(["name", "label", *dataset.attributes])
        for start in range(0, images, batch):
            samples = [dataset[i] for i in range(start, min(start + batch, images))]
            for s in samples:
                table.writerow(
                    [
                        s.name,
                        "" if s.label is None else s.label,
                        *(s.attributes.get(a, "") for a in dataset.attributes),
                    ]
                )
            seen = capture(backbone, torch.stack([look(s.image) for s in samples]).to(device))
            kept = max(0, min(len(samples), sample - start))
            for name in ("norms", "outputs", "q", "k", "v", "embeddings"):
                value, count, kind = (
                    (seen.norms, images, "float32")
                    if name == "norms"
                    else (getattr(seen, name)[:kept], sample, dtype)
                )
                if name not in arrays:
                    arrays[name] = _Array(partial / f"{name}.npy", (count, *value.shape[1:]), kind)
                arrays[name].append(value)
            rows = split_tokens(
                attention(seen.q, seen.k, queries).mean(1).transpose(1, 2), registers
            ).patches  # (B, P, Q)
            rows_seen = rows_seen + rows.sum(0).double().cpu()
            bar.update(len(samples))
    for array in arrays.values():
        array.close()
    with open(partial / "norms.npy", "rb") as file:
        digest = hashlib.file_digest(
            file, "sha256"
        ).hexdigest()  # so that another bank has another index
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
        "norms_sha256": digest,
    }
    (partial / "index.json").write_text(json.dumps(index, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return TokenBank(folder)


def captures(bank: TokenBank, batch: int = 64) -> Iterator[Capture]:
    """The sample of a bank, batch by batch, as float32 tensors."""
    for start in range(0, bank.sample, batch):
        part = slice(start, min(start + batch, bank.sample))
        arrays = (
            getattr(bank, name)[part] for name in ("norms", "outputs", "q", "k", "v", "embeddings")
        )
        yield Capture(*(torch.from_numpy(a.astype(np.float32)) for a in arrays))


class _Array:
    """A .npy file of known shape, filled front to back. Unlike a memory map it leaves no pages behind in this process."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype, self.rows = path, shape, np.dtype(dtype), 0
        self.file = open(path, "wb")  # noqa: SIM115
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, values: Tensor) -> None:
        if not len(values):
            return
        if self.dtype == np.float16 and (highest := float(values.abs().max())) > 65504:
            raise ValueError(
                f"{self.path.stem}: values up to {highest:.3g} do not fit float16; write the bank with dtype float32"
            )
        kind = torch.float16 if self.dtype == np.float16 else torch.float32
        values.to(kind).cpu().contiguous().numpy().astype(self.dtype, copy=False).tofile(self.file)
        self.rows += len(values)

    def close(self) -> None:
        assert self.rows == self.shape[0], (self.path, self.rows, self.shape)
        self.file.close()
