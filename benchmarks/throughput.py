"""Training speed per method on the device at hand, against a measured matrix product.

    python benchmarks/throughput.py                                   laptop's sizes, this device
    python benchmarks/throughput.py --scale gpu --size small large --batch 64 --precision bf16-mixed
    python benchmarks/throughput.py --out benchmarks/results/throughput.md

Images per second and FLOP/s of whole steps (forward, backward, optimizer, teacher) whose batch is
at hand; making an example on a core is measured apart, and says how many loader cores keep up.
FLOPs are exact ones of the matrix products (registers.exact.flops). A share above 100 % means that
the machine was shared with other work while the matrix product was measured.
"""

import argparse
import datetime
import os
import platform
from pathlib import Path

import torch

from registers import speed
from registers.measurements import code_version
from registers.models.device import choose_device
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.settings.run import Settings

HEAD = (
    "| method | size | batch | images/s | ms/step | GFLOP/image | TFLOP/s | share "
    "| ms/example | loader cores | GB |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
LARGE = {"large": {"width": 1024, "depth": 24, "heads": 16}}  # scale gpu has none


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="laptop", help="sizes, image size and recipes")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--size", nargs="+", default=[""], help="default: each recipe's own")
    parser.add_argument("--batch", type=int, help="images per step (default: the recipe's)")
    parser.add_argument("--registers", type=int, default=4)
    parser.add_argument("--precision", default="auto", choices=["auto", "32-true", "bf16-mixed"])
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--out", type=Path, help="append the table to this file, too")
    return parser.parse_args(arguments)


def settings_of(values: argparse.Namespace, method: str) -> Settings:
    overrides = {}
    if values.batch:
        overrides[f"recipes.{method}.batch"] = values.batch
    if "large" in values.size and values.scale == "gpu":
        overrides["sizes.large"] = LARGE["large"]
    params = {"scale": values.scale, "precision": values.precision, "overrides": overrides}
    return load_settings(params)


def row(values: argparse.Namespace, method: str, size: str) -> str:
    settings = settings_of(values, method)
    own = settings.recipes[method].size
    id = BackboneId(method, values.registers, 0, "" if size in ("", own) else size)
    device = torch.device(choose_device(settings.device))
    is_half = values.precision == "bf16-mixed"
    if values.precision == "auto":
        is_half = device.type == "cuda"
    ceiling = speed.matrix_product(device, is_half)  # beside each: a shared machine changes
    pixels = speed.photo_size(settings, id)
    result = speed.measure_training(settings, id, pixels, steps=values.steps)
    cells = (
        method,
        size or own,
        f"{result.batch}",
        f"{result.images_per_second:,.0f}",
        f"{1000 * result.seconds:,.1f}",
        f"{result.flops / result.batch / 1e9:,.3g}",
        f"{result.achieved / 1e12:,.3g}",
        f"{result.achieved / ceiling:.0%} of {ceiling / 1e12:,.3g}",
        f"{1000 * result.sample:.2f}",
        f"{result.images_per_second * result.sample:.1f}",
        f"{result.memory / 1000:.1f}" if result.memory else "",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    values = options()
    torch.set_num_threads(values.threads)
    device = choose_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"## {datetime.date.today()}, {name}, scale {values.scale}",
        "",
        f"{values.registers} registers, precision {values.precision}, {values.threads} thread(s) "
        f"of {os.cpu_count()}{busy}, torch {torch.__version__}, code {code_version()}",
        "",
        *HEAD,
    ]
    print("\n".join(lines), flush=True)
    for size in values.size:
        for method in values.methods:
            lines.append(row(values, method, size))
            print(lines[-1], flush=True)
    if values.out:
        with open(values.out, "a") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
