"""Peak memory of token bank and evaluations over so many generated images and over four times as many: it should not grow.

    python benchmarks/memory.py [--images 250] [--only discovery] [--out benchmarks/results/memory.md]

Each measurement is a process of its own; its peak resident set is read when it ends. Images are drawn when asked for, so the data set
itself holds none of them. Training images and measured images are both as many as the column says.
"""

import argparse
import datetime
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE, PATCH, CLASSES = 64, 4, 5  # pixels; 16 x 16 patches
KINDS = ("bank", "linear", "segmentation", "segmentation augmented", "depth", "discovery")
MARGIN = 16  # MiB: what the same measurement differs by when it is repeated


class Generated:
    """Noise with a rectangle of another brightness: its box, mask, depth and a label."""

    attributes, fingerprint, split = {}, "generated", "val"
    classes = mask_classes = tuple(f"class {i}" for i in range(CLASSES))

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int):
        import numpy as np
        from PIL import Image

        from registers.data.sample import Sample

        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
        x, y = (int(v) for v in rng.integers(0, SIDE // 2, 2))
        inside = np.zeros((SIDE, SIDE), bool)
        inside[y : y + SIDE // 3, x : x + SIDE // 3] = True
        pixels[inside] += 100
        box = np.array([[x, y, x + SIDE // 3, y + SIDE // 3]], np.float32)
        mask, depth = (
            (inside * (1 + index % (CLASSES - 1))).astype(np.uint8),
            (2.0 + 3.0 * inside).astype(np.float32),
        )
        return Sample(
            Image.fromarray(pixels),
            str(index),
            label=index % CLASSES,
            mask=mask,
            depth=depth,
            boxes=box,
        )


def measure(kind: str, images: int) -> None:
    """Run one evaluation in this process and print its peak in MiB."""
    import torch

    from registers.evals.depth import estimate_depth
    from registers.evals.discovery import discover
    from registers.evals.linear import linear
    from registers.evals.segmentation import segment
    from registers.models.backbone import Architecture, build
    from registers.settings.questions import (
        DepthSettings,
        DiscoverySettings,
        LinearSettings,
        SegmentationSettings,
    )
    from registers.tokens import write_bank

    torch.manual_seed(0)
    backbone = build(
        Architecture(width=64, depth=2, heads=2, patch=PATCH, image=SIDE, registers=4),
        name="dinov2-r4-s0",
    ).eval()
    train, val = Generated(images), Generated(images)
    look = dict(mean=(0.5,) * 3, std=(0.5,) * 3, progress=False)
    many = dict(train_images=images, val_images=images, batch=16, pictures=1)
    if kind == "bank":
        with tempfile.TemporaryDirectory() as folder:
            write_bank(
                Path(folder) / "bank",
                backbone,
                val,
                images=images,
                sample=images,
                batch=16,
                size=SIDE,
                progress=False,
            )
    elif kind == "linear":
        linear(
            backbone,
            train,
            val,
            LinearSettings(
                train_images=images, val_images=images, iterations=images // 16, batch=16
            ),
            size=SIDE,
            **look,
        )
    elif kind.startswith("segmentation"):
        chosen = SegmentationSettings(
            **many,
            iterations=images // 16,
            size=SIDE,
            crop=SIDE,
            stride=SIDE,
            augment="augmented" in kind,
        )
        segment(backbone, train, val, chosen, **look)
    elif kind == "depth":
        estimate_depth(
            backbone,
            train,
            val,
            DepthSettings(**many, iterations=images // 16, augment=False, crop="none"),
            **look,
        )
    else:
        chosen = DiscoverySettings(
            images=images, tune_images=images, batch=8, layers=(-1,), biases=(0.0, -0.2), pictures=1
        )
        discover(backbone, val, chosen, tune_on=train, **look)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    print(peak / 2 ** (20 if sys.platform == "darwin" else 10))


def peak(kind: str, images: int) -> float:
    command = [sys.executable, __file__, "--measure", kind, "--images", str(images)]
    return float(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--only", choices=KINDS, action="append", help="default: all")
    parser.add_argument("--out", type=Path, help="write the table to this file, too")
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.images)
    from registers.measurements import code_version

    few, many = options.images, 4 * options.images
    lines = [f"# Peak memory, {datetime.date.today()}, {platform.machine()}", ""]
    lines += [
        f"{SIDE} x {SIDE} pixels, {(SIDE // PATCH) ** 2} patches, width 64, depth 2; code {code_version()}",
        "",
    ]
    lines += [
        f"| | {few} images, MiB | {many} images, MiB | KiB for each image more | flat | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for kind in options.only or KINDS:
        start = time.perf_counter()
        less, more = peak(kind, few), peak(kind, many)
        each = (more - less) / (many - few) * 1024
        flat = "yes" if more - less < MARGIN else "NO"
        lines.append(
            f"| {kind} | {less:.0f} | {more:.0f} | {each:.1f} | {flat} | {time.perf_counter() - start:.0f} |"
        )
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
