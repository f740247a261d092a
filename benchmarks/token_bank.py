"""Throughput of writing the token bank against a bare forward pass over the same images.

    python benchmarks/token_bank.py          the ratio; must be at least 0.8 (both load the images)
    python benchmarks/token_bank.py --half   how far attention rows move when q and k are stored in half precision

The two are timed in turns, several rounds, and the medians compared, so that other work on the machine hits both alike. Result lines
begin with "ratio" or "half"; --out FILE appends them with date, device and commit.
"""

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from registers.data.sample import Sample
from registers.data.transforms import IMAGENET, evaluation
from registers.measurements import code_version
from registers.models.backbone import Architecture, build
from registers.tokens import attention, capture, write_bank

MODELS = {  # the laptop scale's own size, and a real one
    "64x6/4@32": Architecture(width=64, depth=6, heads=4, patch=4, image=32, registers=4),
    "ViT-S/16@224": Architecture(width=384, depth=12, heads=6, patch=16, image=224, registers=4),
}


class Noise:
    """Random photos, one per index, drawn once."""

    classes, attributes, fingerprint = ("noise",), {}, "noise"

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


def throughput(name: str, images: int, batch: int, rounds: int, device: str) -> list[str]:
    """The ratio for one model: time of a bare pass over time of writing, medians over rounds."""
    backbone = build(MODELS[name], name="dinov2-r4-s0").to(device).eval().requires_grad_(False)
    size, dataset = MODELS[name].image, Noise(images, MODELS[name].image)
    look, sample = (
        evaluation(size, normalization=IMAGENET),
        images // 2,
    )  # params: the laptop scale keeps half its images' tokens

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, images, batch):
                seen = torch.stack(
                    [look(dataset[i].image) for i in range(start, min(start + batch, images))]
                )
                backbone(seen.to(device)).cls.cpu()

    def bank(folder: str, turn: int) -> None:
        mean, std = IMAGENET
        asked = dict(
            images=images,
            sample=sample,
            batch=batch,
            size=size,
            mean=mean,
            std=std,
            device=device,
            progress=False,
        )
        write_bank(Path(folder) / str(turn), backbone, dataset, **asked)

    times: dict[str, list[tuple[float, float]]] = {"bare": [], "bank": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for what, work in (("bare", bare), ("bank", lambda turn=turn: bank(folder, turn))):
                start = time.perf_counter(), time.process_time()
                work()
                if turn:  # the first round warms up
                    times[what].append(
                        (time.perf_counter() - start[0], time.process_time() - start[1])
                    )
    (bare_wall, bare_cpu), (bank_wall, bank_cpu) = (
        [statistics.median(t) for t in zip(*times[what])] for what in ("bare", "bank")
    )
    speeds = f"bare {images / bare_wall:.0f} images/s, bank {images / bank_wall:.0f} images/s"
    return [
        f"ratio {bare_wall / bank_wall:.3f} (of CPU time {bare_cpu / bank_cpu:.3f})  {name} on {device}: {speeds}"
    ]


def half(name: str, device: str) -> list[str]:
    """Attention rows from float16 and bfloat16 q and k against float32, on a model made to have outliers and sharp attention.

    Before the last block 2 % of patches get a fixed direction of 10 times the typical norm (as in the paper's section 2.1); q and k of the
    last block are scaled so that rows are anything from flat to one-hot.
    """
    torch.manual_seed(0)
    a = MODELS[name]
    backbone = build(replace(a, depth=2), name=name).to(device).eval().requires_grad_(False)
    direction = torch.nn.functional.normalize(torch.randn(a.width, device=device), dim=0)

    def plant(module, args):
        x = args[0].clone()
        patches = x[:, 1 + a.registers :]
        chosen = torch.rand(patches.shape[:2], device=x.device) < 0.02
        patches[chosen] += 10 * torch.linalg.vector_norm(patches, dim=-1).median() * direction
        return (x, *args[1:])

    backbone.vit.blocks[-1].register_forward_pre_hook(plant)
    lines = []
    weight = backbone.vit.blocks[-1].attn.qkv.weight.clone()
    for gain in (1, 8, 16, 32):
        backbone.vit.blocks[-1].attn.qkv.weight.copy_(weight)
        backbone.vit.blocks[-1].attn.qkv.weight[: 2 * a.width] *= gain
        torch.manual_seed(1)
        seen = capture(backbone, torch.randn(8, 3, a.image, a.image, device=device))
        norms = backbone.split(seen.norms[:, -1]).patches
        rows = attention(seen.q, seen.k, slice(None))
        entropy = float(-(rows * rows.clamp_min(1e-30).log()).sum(-1).mean())
        for dtype in (torch.float16, torch.bfloat16):
            moved = (attention(seen.q.to(dtype), seen.k.to(dtype), slice(None)) - rows).abs()
            found = f"largest entry moved {float(moved.max()):.1e}, row (total variation) mean {float(moved.sum(-1).mean() / 2):.1e}"
            found += f", largest {float(moved.sum(-1).max() / 2):.1e}"
            reach = float((seen.q @ seen.k.mT).abs().max()) * seen.q.shape[-1] ** -0.5
            about = f"norms max/median {float(norms.max() / norms.median()):.1f}, logits to {reach:.0f}, mean entropy {entropy:.2f} nats"
            lines.append(f"half {dtype!s:14} {name}: {found}; {about}")
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
    lines = [
        f"{datetime.date.today()} commit {code_version()}, torch {torch.__version__}, {platform.machine()}, {options.threads} threads"
    ]
    for name in options.model or MODELS:
        work = (
            half(name, options.device)
            if options.half
            else throughput(name, options.images, options.batch, options.rounds, options.device)
        )
        lines += work
    print(*lines, sep="\n")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open(options.out, "a") as file:
            print(*lines, sep="\n", file=file)


if __name__ == "__main__":
    main()
