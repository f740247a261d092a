"""LOST, boxes and all, against two other ways to the same boxes on the same features.

    python benchmarks/lost.py [--images 8] [--width 384]

plain: the published algorithm step by step in Python loops over patches (tests/plain_lost.py).
released: one image at a time with the tensor operations that the release uses, in its order
(similarities, a cloned and clamped copy, its sum with its transpose, degrees, sort, expansion,
labels). Times are medians of rounds taken in turn; one thread unless --threads says otherwise.
Boxes must agree. The similarities alone are shown as well: 2 P^2 D operations when computed whole,
as in `released`; ours computes one half.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from registers.evals.lost import lost
from registers.measurements import code_version

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from plain_lost import plain_lost

GRIDS = ((14, 14), (28, 37))


def released(features_PD: Tensor, grid: tuple[int, int], k: int = 100) -> list[int]:
    """Box in patches, with the release's operations.

    Only the sort is stable here, so that ties fall alike.
    """
    similarity = features_PD @ features_PD.T
    positive = similarity.clone()
    positive.fill_diagonal_(0)
    positive[positive < 0] = 0
    positive + positive.t()
    score = -(positive > 0).sum(dim=1).float()
    order = torch.argsort(score, descending=True, stable=True)
    seed = order[0]
    first = order[:k]
    expansion = similarity[first[similarity[seed, first] > 0]].sum(dim=0)
    labels, _ = ndimage.label(expansion.reshape(grid).numpy() > 0)
    rows, columns = np.where(labels == labels.flat[int(seed)])
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return [int(edge) for edge in edges]


def planted(images: int, grid: tuple[int, int], width: int) -> Tensor:
    """(images, P, width): noise, a background that resembles itself and an object that does too.

    Rounded, so that sums are exact.
    """
    generator = torch.Generator().manual_seed(0)
    inside = torch.zeros(grid, dtype=torch.bool)
    inside[grid[0] // 4 : grid[0] // 2, grid[1] // 3 : 2 * grid[1] // 3] = True
    centres = torch.randn(images, 2, width, generator=generator)
    noise = torch.randn(images, grid[0] * grid[1], width, generator=generator)
    x = noise + 0.3 * centres[:, inside.flatten().long()]
    return (x * 16).round() / 16


def timed(features: Tensor, grid: tuple[int, int], rounds: int) -> dict[str, float]:
    """Milliseconds an image by each way. Raises AssertionError where boxes differ."""
    ways = {
        "ours": lambda: lost(features, grid).box.tolist(),
        "similarities": lambda: features @ features.transpose(1, 2),
        "released": lambda: [released(x, grid) for x in features],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    boxes = {}
    for _ in range(rounds + 1):  # the first is a warm-up
        for name, way in ways.items():
            start = time.perf_counter()
            boxes[name] = way()
            times[name].append((time.perf_counter() - start) / len(features) * 1000)
    ms = {name: statistics.median(values[1:]) for name, values in times.items()}

    few = features[:2].numpy()  # the plain way takes a second an image
    start = time.perf_counter()
    plain = [list(plain_lost(x, grid).box) for x in few]
    ms["plain"] = (time.perf_counter() - start) / len(few) * 1000
    assert boxes["ours"] == boxes["released"], "boxes differ"
    assert boxes["ours"][: len(few)] == plain, "boxes differ"
    return ms


def main() -> None:
    parser = argparse.ArgumentParser(
        description="LOST: ours, the plain procedure, the release's operations"
    )
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--width", type=int, default=384, help="channels (ViT-S: 384)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{options.images} images, D = {options.width}, {options.threads} thread(s), "
        f"torch {torch.__version__}, code {code_version()}\n"
    )
    print(
        "| grid | ours ms/image | of it similarities | plain ms/image | ratio to plain "
        "| released ms/image | ratio to released |"
    )
    print("|---|---|---|---|---|---|---|")
    for grid in GRIDS:
        ms = timed(planted(options.images, grid, options.width), grid, options.rounds)
        print(
            f"| {grid[0]}x{grid[1]} | {ms['ours']:.2f} | {ms['similarities']:.2f} "
            f"| {ms['plain']:.1f} | {ms['plain'] / ms['ours']:.0f} "
            f"| {ms['released']:.2f} | {ms['released'] / ms['ours']:.2f} |"
        )
    print("\nboxes: the same by all three ways")


if __name__ == "__main__":
    main()
