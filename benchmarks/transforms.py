"""Our augmentation steps against torchvision v2's on the same PIL images, one thread.

    python benchmarks/transforms.py [--out benchmarks/results/transforms.md]

Both take a PIL image, as the official recipes do. The image has 64 x 64 or 224 x 224 pixels, crops
the same size. Times are medians over rounds taken in turn in one run, so that other work on the
machine hits both alike; the ratio is torchvision's time over ours. The last rows are whole views of
the recipes, to the normalised tensor.
"""

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from registers.data import transforms as ours
from registers.measurements import code_version
from registers.world.dataset import scene

SIZES = (64, 224)
BICUBIC = v2.InterpolationMode.BICUBIC
Way = Callable[[Image.Image], object]


def steps(size: int) -> dict[str, tuple[Way, Way]]:
    """(ours, torchvision's) by name, for crops of `size` pixels."""
    jitter = (0.4, 0.4, 0.2, 0.1)
    normalised = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*ours.IMAGENET)]
    )
    crop = v2.RandomResizedCrop(size, (0.32, 1.0), interpolation=BICUBIC)
    flip = v2.RandomHorizontalFlip(0.5)
    dino = [
        crop,
        flip,
        v2.RandomApply([v2.ColorJitter(*jitter)], 0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], 0.9),
        v2.RandomSolarize(128, 0.2),
        normalised,
    ]
    evaluation = [v2.Resize(size * 8 // 7, BICUBIC), v2.CenterCrop(size), normalised]
    return {
        "crop and resize": (ours.RandomResizedCrop(size, (0.32, 1.0)), crop),
        "flip": (ours.flip, flip),
        "grey": (ours.grayscale, v2.Grayscale(3)),
        "solarise": (ours.solarize, v2.RandomSolarize(128, 1.0)),
        "colour jitter": (ours.ColorJitter(*jitter), v2.ColorJitter(*jitter)),
        "blur, 9 taps": (ours.Blur(exact=True), v2.GaussianBlur(9, (0.1, 2.0))),
        "to normalised tensor": (ours.to_tensor, normalised),
        "view: evaluation": (ours.evaluation(size, size * 8 // 7), v2.Compose(evaluation)),
        "view: MAE": (ours.mae_augment(size), v2.Compose([crop, flip, normalised])),
        "view: DINOv2, second global": (ours.dino_crops(size, size, 0).second, v2.Compose(dino)),
    }


def microseconds(way: Way, image: Image.Image, calls: int) -> float:
    """Mean time of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        way(image)
    return (time.perf_counter() - start) / calls * 1e6


def compare(size: int, calls: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Microseconds per call (ours, torchvision's) of each step; the first round is a warm-up."""
    image = scene(0, 3, size).image
    medians = {}
    for name, pair in steps(size).items():
        times = [[microseconds(way, image, calls) for way in pair] for _ in range(rounds + 1)][1:]
        medians[name] = tuple(statistics.median(column) for column in zip(*times))
    return medians


def table(calls: int, rounds: int) -> str:
    measured = {size: compare(size, calls, rounds) for size in SIZES}
    heads = [f"ours {s} px, µs | torchvision {s} px, µs | ratio {s} px" for s in SIZES]
    lines = [f"| step | {' | '.join(heads)} |", "|---" * (1 + 3 * len(SIZES)) + "|"]
    for name in steps(SIZES[0]):
        cells = []
        for size in SIZES:
            mine, theirs = measured[size][name]
            cells.append(f"{mine:.0f} | {theirs:.0f} | {theirs / mine:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="augmentation steps: ours and torchvision v2's")
    parser.add_argument("--calls", type=int, default=200, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    text = (
        f"# Augmentation steps, {time.strftime('%Y-%m-%d')}, {platform.machine()}\n\n"
        f"{options.rounds} rounds of {options.calls} calls, 1 thread, "
        f"torchvision {torchvision.__version__}, torch {torch.__version__}, "
        f"code {code_version()}\n\n{table(options.calls, options.rounds)}\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
