"""Small arrays for pictures: attention, norms and principal components of a few images (Figs. 1, 2, 8, 9, 16-21).

Letters: M images, Q queries, H heads, h x w patches down and across.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registers.bank import TokenBank
from registers.data.transforms import evaluation
from registers.models.backbone import Backbone
from registers.models.sequence import split_tokens
from registers.probes.kinds import standardised
from registers.tokens import Capture, attention, capture, captures

COMPONENTS = 3  # Fig. 17 shows three, as red, green and blue


def maps_of(
    seen: Capture, registers: int, grid: tuple[int, int], final: Tensor | np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Every map of the images of one capture, float32.

    "queries" (Q,) names: cls, reg0.., patch (the one at row h // 2, column w // 2); "attention" (M, Q, h, w): their attention to
    the patches in the last block, mean over heads (Figs. 1, 2, 8, 9, 16, 19); "heads" (M, H, h, w): that of [CLS], head by head
    (Fig. 18). Rows are the softmax over all tokens, so a map sums to the share that goes to patches.
    "norms" (M, h, w) and "prefix_norms" (M, 1 + R) of [CLS] and registers: after the last block, before the final norm (Fig. 21).
    "components" (M, 3, h, w): the principal components of each image's patches, whitened, see `components` (Figs. 17, 20).
    final: (M, N, D) tokens after the final norm, for the components; default: `standardised` outputs.
    """
    h, w = grid
    centre = 1 + registers + h // 2 * w + w // 2
    rows = attention(seen.q, seen.k, [*range(1 + registers), centre])  # (M, H, Q, N)
    images, heads, queries, _ = rows.shape
    to_patches = split_tokens(
        rows.reshape(images * heads * queries, -1), registers
    ).patches.reshape(images, heads, queries, h, w)
    norms = split_tokens(seen.norms[:, -1], registers)
    final = standardised(_numpy(seen.outputs)) if final is None else final
    patches = _numpy(split_tokens(final, registers).patches)
    return {
        "queries": np.array(["cls", *(f"reg{r}" for r in range(registers)), "patch"]),
        "attention": _numpy(to_patches.mean(1)),
        "heads": _numpy(to_patches[:, :, 0]),
        "norms": _numpy(norms.patches).reshape(images, h, w),
        "prefix_norms": np.concatenate(
            [_numpy(norms.cls)[:, None], _numpy(norms.registers)], axis=1
        ),
        "components": np.stack([components(x, grid) for x in patches]),
    }


def components(
    patches_PD: np.ndarray, grid: tuple[int, int], count: int = COMPONENTS
) -> np.ndarray:
    """(count, h, w) leading principal components of one feature map, whitened: mean 0, variance 1 over its patches.

    So a colour range of -3 to 3 is the +-3 sigma of Fig. 20. A component's sign is free; the rule here: the mean over the patches at
    the border is not above 0, as a picture's border is mostly background. Components beyond the rank are 0.
    """
    x = np.asarray(patches_PD, dtype=np.float64)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    maps = np.zeros((count, len(x)))
    kept = min(count, int((s > 1e-7 * max(s[0], 1e-12)).sum()))
    maps[:kept] = u[:, :kept].T * np.sqrt(len(x))
    maps = maps.reshape(count, *grid)
    border = np.ones(grid, dtype=bool)
    border[1:-1, 1:-1] = False
    maps[maps[:, border].mean(1) > 0] *= -1
    return maps.astype(np.float32)


@torch.no_grad()
def image_maps(
    backbone: Backbone,
    images: Sequence[Image.Image],
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    names: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """`maps_of` for a few images at size x size pixels, with "rgb" (M, size, size, 3) uint8, "names" (M,) and "backbone".

    size: in pixels, a multiple of the patch; above the training resolution for maps "in high resolution" (Fig. 1): position embeddings
    are interpolated. Images are resized and centre-cropped as in evaluation, and go one by one, so memory stays that of one.
    Raises ValueError: no image, a size that is no multiple of the patch, names not as many as images.
    """
    patch = backbone.architecture.patch
    if not images or size < patch or size % patch:
        raise ValueError(
            f"{len(images)} images at size = {size}: allowed are at least one, at multiples of the patch, {patch}"
        )
    names = list(names) or [str(i) for i in range(len(images))]
    if len(names) != len(images):
        raise ValueError(f"{len(names)} names for {len(images)} images")
    device, training = next(backbone.parameters()).device, backbone.training
    backbone.eval()
    look, plain = (
        evaluation(size, normalization=(tuple(mean), tuple(std))),
        evaluation(size, normalization=((0.0,) * 3, (1.0,) * 3)),
    )
    found = []
    for image in images:
        seen = capture(backbone, look(image)[None].to(device))
        maps = maps_of(
            seen,
            backbone.registers,
            (size // patch, size // patch),
            backbone.vit.norm(seen.outputs),
        )
        maps["rgb"] = (plain(image).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)[None].numpy()
        found.append(maps)
    backbone.train(training)
    stacked = {
        key: found[0][key] if key == "queries" else np.concatenate([maps[key] for maps in found])
        for key in found[0]
    }
    return stacked | {"names": np.array(names), "backbone": np.array(backbone.name)}


def bank_maps(bank: TokenBank, count: int) -> dict[str, np.ndarray]:
    """`maps_of` for the first `count` images of a bank's sample, at the bank's resolution, with "names" and "backbone".

    No "rgb": a bank holds no pixels. "mean_attention" (Q, h, w): mean over all images of the bank (Fig. 16).
    """
    if not 1 <= count <= bank.sample:
        raise ValueError(f"count = {count}: allowed are 1 to {bank.sample}, the bank's sample")
    maps = maps_of(next(captures(bank, count)), bank.registers, bank.grid)
    mean = np.asarray(bank.mean_attention, dtype=np.float32).reshape(-1, *bank.grid)
    return maps | {
        "mean_attention": mean,
        "names": np.array(bank.names[:count]),
        "backbone": np.array(bank.name),
    }


def save_maps(path: str | Path, maps: dict[str, np.ndarray]) -> None:
    """One compressed .npz, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, **maps)
    os.replace(partial, path)


def _numpy(x: Tensor | np.ndarray) -> np.ndarray:
    return (
        x.detach().float().cpu().numpy()
        if isinstance(x, Tensor)
        else np.asarray(x, dtype=np.float32)
    )
