"""LOST (Siméoni et al. 2021): object discovery from an image's patch features, as published.

Many images of one grid at once. Published: valeoai/LOST at fcedbec, object_discovery.py (followed
where it differs from the paper's equations, see their issue 5).
Letters: B images, P = h * w patches in reading order, D channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

Normalisation = Literal["none", "l2", "centre+l2"]
# patches of lowest degree that may vote in the expansion (LOST, section 3.3; main_lost.py)
K_PATCHES = 100
# rows of the Gram matrix at a time; measured for P = 1036, D = 384 with benchmarks/lost.py
BLOCK = 128
# its entries held at a time: 4 MiB, so that they stay in the cache, or 256 MiB
CHUNK = {"cpu": 2**20, "other": 2**26}
# a patch touches four others, and none of another image
NEIGHBOURS = np.zeros((3, 3, 3), int)
NEIGHBOURS[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@dataclass(frozen=True)
class Lost:
    """Every step, in the published order; arrays begin with B, unless one image was given.

    degree: (B, P) int, how many other patches a patch is positively similar to; score = -degree.
    seed: (B,), the patch of lowest degree, the first of equals.
    similarity: (B, P) float32, the seed's row of the Gram matrix.
    similars: (B, P) bool, of the k patches of lowest degree those similar to the seed.
    expansion: (B, P) float32, sum of the similars' rows.
    mask: (B, P) bool, where the expansion is positive.
    component: (B, P) bool, the 4-connected part of the mask that holds the seed.
    box: (B, 4) int, x0, y0, x1, y1 in patches, ends exclusive.
    fallback: (B,) bool, the seed was outside its own mask, so the component is the seed alone.
    """

    degree: np.ndarray
    seed: np.ndarray
    similarity: np.ndarray
    similars: np.ndarray
    expansion: np.ndarray
    mask: np.ndarray
    component: np.ndarray
    box: np.ndarray
    fallback: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """The inverse degree of LOST's figures: highest at the seed."""
        return -self.degree

    def __getitem__(self, index: int | slice) -> "Lost":
        return Lost(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def pixels(self, patch: int, sizes: np.ndarray) -> np.ndarray:
        """(B, 4) boxes in pixels, see `to_pixels`; sizes (B, 2)."""
        return to_pixels(self.box, patch, sizes)


def to_pixels(box: np.ndarray, patch: int, sizes: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) in patches as pixels, clipped to the image.

    sizes: (..., 2), width and height before padding.
    """
    return np.minimum(np.asarray(box) * patch, np.concatenate([sizes, sizes], axis=-1))


def prepared(features: Tensor, normalisation: Normalisation = "none") -> Tensor:
    """(B, P, D) float32, the inner products of which are LOST's similarities.

    normalisation: "none", the features as they are, as published; "l2", of norm 1, so cosines;
    "centre+l2", the same after the image's mean feature is taken off. Raises ValueError otherwise.
    """
    names = get_args(Normalisation)
    if normalisation not in names:
        raise ValueError(f"normalisation = {normalisation!r}: must be one of {', '.join(names)}")
    x = features.float()
    if normalisation == "centre+l2":
        x = x - x.mean(dim=1, keepdim=True)
    return x if normalisation == "none" else torch.nn.functional.normalize(x, dim=-1)


@torch.no_grad()
def lost(
    features: Tensor,
    grid: tuple[int, int],
    k: int = K_PATCHES,
    bias: float = 0.0,
    normalisation: Normalisation = "none",
) -> Lost:
    """All steps for features (P, D) of one image, or (B, P, D) of images of the same grid.

    Sorting is stable: of equal degrees the patch that comes first wins (the release leaves that to
    torch.argsort, which is not). A negative bias can put the seed outside its mask, where the
    release stops with an error: then the seed alone is the component.

    grid: (h, w), P = h * w.
    k: how many patches of lowest degree may vote.
    bias: added to every entry of the Gram matrix (the paper, section 3.3; its value is printed
        nowhere; 0 is LOST as published).

    Raises ValueError: features that are not P rows, or not finite; k below 1.
    """
    single = features.ndim == 2
    features = features[None] if single else features
    if features.ndim != 3 or features.shape[1] != grid[0] * grid[1] or not features.numel():
        raise ValueError(
            f"features of shape {tuple(features.shape)}: "
            f"must be (images, {grid[0]} * {grid[1]} patches, channels)"
        )
    if k < 1:
        raise ValueError(f"k = {k}: must be an integer of at least 1")
    # the sum alone costs a fortieth
    if not torch.isfinite(features.sum()) and not torch.isfinite(features).all():
        raise ValueError("features: some are NaN or infinite; must be finite")
    x = prepared(features, normalisation)
    steps = expand(x, degrees(x, [bias])[0], grid, k, bias)
    return steps[0] if single else steps


@torch.no_grad()
def degrees(x_BPD: Tensor, biases: Sequence[float] = (0.0,)) -> Tensor:
    """(biases, B, P) int32: to how many other patches a patch is similar, for several biases.

    Similar is x_p . x_q + bias > 0. The Gram matrix is symmetric, so only the blocks on and above
    its diagonal are computed, and none is kept.
    """
    images, patches, _ = x_BPD.shape
    total = torch.zeros(len(biases), images, patches, dtype=torch.int32, device=x_BPD.device)
    entries = CHUNK["cpu" if x_BPD.device.type == "cpu" else "other"]
    together = max(1, entries // (min(BLOCK, patches) * patches))  # images
    for x, counts in zip(x_BPD.split(together), total.split(together, dim=1)):
        for start in range(0, patches, BLOCK):
            rows = x[:, start : start + BLOCK]
            end = start + rows.shape[1]
            similarity = rows @ x[:, start:].transpose(1, 2)
            for number, bias in enumerate(biases):
                # the same as similarity + bias > 0: rounding never changes a sum's sign
                positive = similarity > -bias
                itself = positive.diagonal(dim1=1, dim2=2).int()
                counts[number, :, start:end] += _count(positive, 2) - itself
                if end < patches:
                    counts[number, :, end:] += _count(positive[:, :, end - start :], 1)
    return total


def _count(positive: Tensor, dim: int) -> Tensor:
    """int32: how many along a dimension.

    On a CPU numpy counts booleans ten times as fast as torch (0.4 against 4.5 ms a million).
    """
    if positive.device.type != "cpu":
        return positive.sum(dim=dim, dtype=torch.int32)
    return torch.from_numpy(np.count_nonzero(positive.numpy(), axis=dim).astype(np.int32))


@torch.no_grad()
def expand(
    x_BPD: Tensor, degree_BP: Tensor, grid: tuple[int, int], k: int = K_PATCHES, bias: float = 0.0
) -> Lost:
    """Seed, expansion and box from prepared features and their degrees.

    A sum of rows of the Gram matrix is one product with the sum of the similars' features, so no
    row but the seed's is needed.
    """
    # --- seed, and the patches that may vote
    images, patches, _ = x_BPD.shape
    order = torch.argsort(degree_BP, dim=1, stable=True)
    candidates = order.narrow(1, 0, min(k, patches))
    seed = order.select(1, 0)

    # --- votes; a row times columns takes a tenth of bmm's matrix times vector
    columns_BDP = x_BPD.transpose(1, 2)
    seed_rows = x_BPD[torch.arange(images, device=x_BPD.device), seed][:, None]
    similarity = torch.bmm(seed_rows, columns_BDP).squeeze(1) + bias
    votes = similarity.gather(1, candidates) > 0
    similars = torch.zeros_like(degree_BP, dtype=torch.bool).scatter_(1, candidates, votes)
    sums = torch.bmm(similars.to(x_BPD.dtype)[:, None], x_BPD)
    expansion = torch.bmm(sums, columns_BDP).squeeze(1) + bias * votes.sum(dim=1, keepdim=True)

    # --- the component of the seed, and its box
    steps = [x.cpu().numpy() for x in (degree_BP, seed, similarity, similars, expansion)]
    mask = steps[-1] > 0
    component, fallback = seed_component(mask, steps[1], grid)
    box = box_of(component.reshape(-1, *grid))
    return Lost(*steps, mask=mask, component=component, box=box, fallback=fallback)


def seed_component(
    mask_BP: np.ndarray, seed_B: np.ndarray, grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(B, P) bool: the 4-connected component of each mask that holds its seed, or the seed alone.

    And (B,) bool: where the seed was outside its mask.
    """
    rows = np.arange(len(mask_BP))
    labels = ndimage.label(mask_BP.reshape(-1, *grid), NEIGHBOURS)[0].reshape(len(mask_BP), -1)
    label_of_seed = labels[rows, seed_B]
    component = labels == label_of_seed[:, None]
    fallback = label_of_seed == 0
    component[fallback] = False
    component[rows, seed_B] = True
    return component, fallback


def box_of(inside_BHW: np.ndarray) -> np.ndarray:
    """(B, 4) int: x0, y0, x1, y1 around the True patches, ends exclusive; zeros without any."""
    rows = inside_BHW.any(axis=2)
    columns = inside_BHW.any(axis=1)
    x0 = columns.argmax(axis=1)
    y0 = rows.argmax(axis=1)
    x1 = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    y1 = rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    return np.stack([x0, y0, x1, y1], axis=1) * rows.any(axis=1, keepdims=True)
