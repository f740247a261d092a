"""Peak memory of token bank and evaluations over some generated images and over four times as many.

    python benchmarks/memory.py [--images 250] [--only discovery] [--out FILE.md]

It should not grow. Each measurement is a process of its own; its peak resident set is read when it
ends. Images are drawn when asked for, so the data set itself holds none of them. Training images
and measured images are both as many as the column says.
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

SIDE = 64  # pixels
PATCH = 4  # so 16 x 16 patches
CLASSES = 5
KINDS = ("bank", "linear", "segmentation", "segmentation augmented", "depth", "discovery")
MARGIN = 16  # MiB: what the same measurement differs by when it is repeated


class Generated:
    """Noise with a rectangle of another brightness: its box, mask, depth and a label."""

    attributes = {}
    fingerprint = "generated"
    split = "val"
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
        x, y = (int(corner) for corner in rng.integers(0, SIDE // 2, 2))
        inside = np.zeros((SIDE, SIDE), bool)
        inside[y : y + SIDE // 3, x : x + SIDE // 3] = True
        pixels[inside] += 100
        return Sample(
            Image.fromarray(pixels),
            str(index),
            label=index % CLASSES,
            mask=(inside * (1 + index % (CLASSES - 1))).astype(np.uint8),
            depth=(2.0 + 3.0 * inside).astype(np.float32),
            boxes=np.array([[x, y, x + SIDE // 3, y + SIDE // 3]], np.float32),
        )


def measure(kind: str, images: int) -> None:
    """Run one evaluation in this process and print its peak in MiB."""
    import torch

    from registers.models.backbone import Architecture, build

    torch.manual_seed(0)
    architecture = Architecture(width=64, depth=2, heads=2, patch=PATCH, image=SIDE, registers=4)
    backbone = build(architecture, "dinov2-r4-s0", ((0.5,) * 3, (0.5,) * 3)).eval()
    run = {"bank": bank, "linear": linear, "depth": depth, "discovery": discovery}
    run.get(kind, segmentation)(backbone, kind, images)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    print(peak / 2 ** (20 if sys.platform == "darwin" else 10))


def bank(backbone, kind: str, images: int) -> None:
    from registers.tokens import write_bank

    counts = dict(images=images, sample=images, batch=16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank"
        write_bank(path, backbone, Generated(images), **counts, size=SIDE, progress=False)


def linear(backbone, kind: str, images: int) -> None:
    from registers.evals.linear import linear
    from registers.settings.questions import LinearSettings

    settings = LinearSettings(
        train_images=images, val_images=images, iterations=images // 16, batch=16
    )
    train = Generated(images)
    linear(backbone, train, Generated(images), settings, size=SIDE, progress=False)


def segmentation(backbone, kind: str, images: int) -> None:
    from registers.evals.segmentation import segment
    from registers.settings.questions import SegmentationSettings

    sizes = dict(size=SIDE, crop=SIDE, stride=SIDE)
    settings = SegmentationSettings(**dense(images), **sizes, augment="augmented" in kind)
    segment(backbone, Generated(images), Generated(images), settings, progress=False)


def depth(backbone, kind: str, images: int) -> None:
    from registers.evals.depth import estimate_depth
    from registers.settings.questions import DepthSettings

    settings = DepthSettings(**dense(images), augment=False, crop="none")
    estimate_depth(backbone, Generated(images), Generated(images), settings, progress=False)


def dense(images: int) -> dict[str, int]:
    counts = dict(train_images=images, val_images=images, iterations=images // 16)
    return counts | dict(batch=16, pictures=1)


def discovery(backbone, kind: str, images: int) -> None:
    from registers.evals.discovery import discover
    from registers.settings.questions import DiscoverySettings

    settings = DiscoverySettings(
        images=images, tune_images=images, batch=8, layers=(-1,), biases=(0.0, -0.2), pictures=1
    )
    images = Generated(images)
    discover(backbone, images, settings, tune_on=images, progress=False)


def peak(kind: str, images: int) -> float:
    command = [sys.executable, __file__, "--measure", kind, "--images", str(images)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


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

    few = options.images
    many = 4 * few
    lines = [
        f"# Peak memory, {datetime.date.today()}, {platform.machine()}",
        "",
        f"{SIDE} x {SIDE} pixels, {(SIDE // PATCH) ** 2} patches, width 64, depth 2; "
        f"code {code_version()}",
        "",
        f"| | {few} images, MiB | {many} images, MiB | KiB for each image more | flat | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for kind in options.only or KINDS:
        start = time.perf_counter()
        less = peak(kind, few)
        more = peak(kind, many)
        each = (more - less) / (many - few) * 1024
        flat = "yes" if more - less < MARGIN else "NO"
        seconds = time.perf_counter() - start
        lines.append(f"| {kind} | {less:.0f} | {more:.0f} | {each:.1f} | {flat} | {seconds:.0f} |")
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
