"""Throughput of writing the token bank against a bare forward pass over the same images.

    python benchmarks/token_bank.py          the ratio; must be at least 0.8 (both load the images)
    python benchmarks/token_bank.py --half   how far attention rows move in half precision

The two are timed in turns, several rounds, and the medians compared, so that other work on the
machine hits both alike. The cost of comparing every file of the bank with its SHA-256 is told as a
share of the time of writing it; it must stay below 1 %, or else files are checked as they are read
(which is what `TokenBank` does). Result lines begin with "ratio", "sha256" or "half"; --out FILE
appends them with date, device and commit.
"""

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registers.bank import TokenBank
from registers.data.sample import Sample
from registers.measurements import code_version
from registers.models.backbone import Architecture, Backbone, build
from registers.tokens import attention, capture, write_bank

MODELS = {  # the laptop scale's own size, and a real one
    "64x6/4@32": Architecture(width=64, depth=6, heads=4, patch=4, image=32, registers=4),
    "ViT-S/16@224": Architecture(width=384, depth=12, heads=6, patch=16, image=224, registers=4),
}
GAINS = (1, 8, 16, 32)  # of q and k, from flat to one-hot rows of attention


class Noise:
    """Random photos, one per index, drawn once."""

    classes = ("noise",)
    attributes: dict = {}
    fingerprint = "noise"

    def __init__(self, images: int, pixels: int) -> None:
        rng = np.random.default_rng(0)
        self.images = [
            Image.fromarray(rng.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8))
            for _ in range(images)
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], name=str(index), label=0)


# --- throughput


def throughput(name: str, images: int, batch: int, rounds: int, device: str) -> list[str]:
    """The ratio for one model: time of a bare pass over time of writing, medians over rounds."""
    backbone = build(MODELS[name], name="dinov2-r4-s0").to(device).eval().requires_grad_(False)
    dataset = Noise(images, MODELS[name].image)
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "bank": [], "sha256": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            place = Path(folder) / str(turn)
            measured = {
                "bare": timed(lambda: bare_pass(backbone, dataset, batch)),
                "bank": timed(lambda place=place: bank_pass(place, backbone, dataset, batch)),
                "sha256": timed(lambda place=place: check_all(place)),
            }
            if turn:  # the first round warms up
                for work, both in measured.items():
                    times[work].append(both)
    medians = {work: [statistics.median(part) for part in zip(*t)] for work, t in times.items()}
    bare, bare_cpu = medians["bare"]
    bank, bank_cpu = medians["bank"]
    check, _ = medians["sha256"]
    speeds = f"bare {images / bare:.0f} images/s, bank {images / bank:.0f} images/s"
    ratio = f"ratio {bare / bank:.3f} (of CPU time {bare_cpu / bank_cpu:.3f})"
    return [
        f"{ratio}  {name} on {device}: {speeds}",
        f"sha256 {100 * check / bank:.2f} % of writing the bank  {name}: {1000 * check:.1f} ms",
    ]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of this process."""
    wall = time.perf_counter()
    cpu = time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.no_grad()
def bare_pass(backbone: Backbone, dataset: Noise, batch: int) -> None:
    size = backbone.architecture.image
    for start in range(0, len(dataset), batch):
        numbers = range(start, min(start + batch, len(dataset)))
        images = torch.stack([backbone.look(dataset[i].image, size) for i in numbers])
        backbone(images.to(backbone.device)).cls.cpu()


def bank_pass(folder: Path, backbone: Backbone, dataset: Noise, batch: int) -> None:
    """As the laptop scale does it: half of the images' tokens are kept."""
    write_bank(
        folder,
        backbone,
        dataset,
        images=len(dataset),
        sample=len(dataset) // 2,
        batch=batch,
        size=backbone.architecture.image,
        progress=False,
    )


def check_all(folder: Path) -> None:
    bank = TokenBank(folder)
    for name in bank.index["sha256"]:
        bank.checked(name)


# --- half precision


@torch.no_grad()
def half(name: str, device: str) -> list[str]:
    """Attention rows from float16 and bfloat16 q and k against float32.

    The model is made to have outliers and sharp attention: before the last block 2 % of patches get
    a fixed direction of 10 times the typical norm (as in the paper's section 2.1); q and k of the
    last block are scaled so that rows are anything from flat to one-hot.
    """
    torch.manual_seed(0)
    a = MODELS[name]
    backbone = build(replace(a, depth=2), name=name).to(device).eval().requires_grad_(False)
    plant_outliers(backbone)
    qkv = backbone.vit.blocks[-1].attn.qkv.weight
    original = qkv.clone()
    lines = []
    for gain in GAINS:
        qkv.copy_(original)
        qkv[: 2 * a.width] *= gain
        torch.manual_seed(1)
        images = torch.randn(8, 3, a.image, a.image, device=device)
        lines += half_lines(name, backbone, images)
    return lines


def plant_outliers(backbone: Backbone) -> None:
    width = backbone.architecture.width
    direction = torch.randn(width, device=backbone.device)
    direction = torch.nn.functional.normalize(direction, dim=0)

    def plant(module, args):
        x = args[0].clone()
        patches = backbone.split(x).patches
        outliers = torch.rand(patches.shape[:2], device=x.device) < 0.02
        typical = torch.linalg.vector_norm(patches, dim=-1).median()
        patches[outliers] += 10 * typical * direction
        return (x, *args[1:])

    backbone.vit.blocks[-1].register_forward_pre_hook(plant)


def half_lines(name: str, backbone: Backbone, images: Tensor) -> list[str]:
    captured = capture(backbone, images)
    norms = backbone.split(captured.norms[:, -1]).patches
    rows = attention(captured.q, captured.k, slice(None))
    entropy = float(-(rows * rows.clamp_min(1e-30).log()).sum(-1).mean())
    logits = float((captured.q @ captured.k.mT).abs().max()) * captured.q.shape[-1] ** -0.5
    about = (
        f"norms max/median {float(norms.max() / norms.median()):.1f}, "
        f"logits to {logits:.0f}, mean entropy {entropy:.2f} nats"
    )
    lines = []
    for dtype in (torch.float16, torch.bfloat16):
        stored = attention(captured.q.to(dtype), captured.k.to(dtype), slice(None))
        moved = (stored - rows).abs()
        variation = moved.sum(-1) / 2
        lines.append(
            f"half {dtype!s:14} {name}: largest entry moved {float(moved.max()):.1e}, "
            f"row (total variation) mean {float(variation.mean()):.1e}, "
            f"largest {float(variation.max()):.1e}; {about}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append", help="default: all")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--out", type=Path, help="append the lines to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    versions = f"commit {code_version()}, torch {torch.__version__}"
    lines = [f"{datetime.date.today()} {versions}, {platform.machine()}, {options.threads} threads"]
    for name in options.model or MODELS:
        if options.half:
            lines += half(name, options.device)
        else:
            lines += throughput(name, options.images, options.batch, options.rounds, options.device)
    print(*lines, sep="\n")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open(options.out, "a") as file:
            print(*lines, sep="\n", file=file)


if __name__ == "__main__":
    main()
