"""Two training loops measured against each other.

They run in one process, step by step in turn, so that both meet the same machine.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from registers.data.order import Order, loader, seed_step
from registers.data.sample import Dataset
from registers.methods.method import Method, Progress, build
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.settings.run import Settings
from registers.world.dataset import World, prepare

PHASES = ("data", "forward, backward", "optimizer")
Step = Iterator[tuple[float, ...]]  # each `next` is one step; it yields the seconds of its phases


def options(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scale", default="laptop", help="sizes, batch and image size")
    parser.add_argument("--registers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each loop")
    parser.add_argument("--warmup", type=int, default=3, help="steps before measuring")
    parser.add_argument("--threads", type=int, default=1)
    values = parser.parse_args(arguments)
    torch.set_num_threads(values.threads)
    return values


def prepare_world(folder: str, settings: Settings, count: int = 512) -> World:
    path = Path(folder) / "world"
    return World(prepare(path, "train", count, settings.world.pixels, progress=False))


def our_loop(method: Method, samples: Dataset) -> Step:
    """What train.py does in each step: its loader, its seeds, the loss read on the CPU."""
    method.train()
    optimizer = method.optimizer()
    steps = method.recipe.steps
    order = Order(len(samples), method.recipe.batch, steps, method.id.seed)
    batches = iter(loader(samples, method.augment, order, method.settings.workers))
    for step in itertools.count():
        at = [time.perf_counter()]
        batch = next(batches)
        at.append(time.perf_counter())
        progress = Progress(step, steps)
        seed_step(method.id.seed, step)
        method.schedule(optimizer, progress)
        losses = method(batch, progress)
        float(losses["loss"].detach())
        optimizer.zero_grad()
        losses["loss"].backward()
        at.append(time.perf_counter())
        method.before_update(progress)
        optimizer.step()
        method.after_step(progress)
        at.append(time.perf_counter())
        yield tuple(end - start for start, end in itertools.pairwise(at))


def measure(
    ours: Step, theirs: Step, warmup: int, steps: int
) -> dict[str, list[tuple[float, ...]]]:
    """Seconds of the phases of each measured step; who goes first changes with every turn."""
    loops = {"ours": ours, "theirs": theirs}
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in loops}
    for turn in range(warmup + steps):
        for name in loops if turn % 2 else reversed(loops):
            phases = next(loops[name])
            if turn >= warmup:
                seconds[name].append(phases)
    return seconds


def print_table(seconds: dict[str, list[tuple[float, ...]]], batch: int) -> None:
    """Images per second by the median step, where the time goes, and the ratio of the loops."""
    print(f"| loop | images/s | ms/step | {' | '.join(f'{phase} ms' for phase in PHASES)} |")
    print("|---|---|---|---|---|---|")
    step = {name: statistics.median(map(sum, steps)) for name, steps in seconds.items()}
    for name, steps in seconds.items():
        medians = (1000 * statistics.median(phase) for phase in zip(*steps, strict=True))
        phases = " | ".join(f"{median:.1f}" for median in medians)
        print(f"| {name} | {batch / step[name]:.0f} | {1000 * step[name]:.1f} | {phases} |")
    print(f"\nratio of images/s, ours to theirs: {step['theirs'] / step['ours']:.2f}")


def main(
    name: str,
    description: str,
    their_loop: Callable[[Method, World], Step],
    arguments: list[str] | None = None,
) -> None:
    """Measure method `name` and print a table."""
    values = options(description, arguments)
    steps = values.steps + values.warmup + 1
    overrides = {f"recipes.{name}.steps": steps, f"recipes.{name}.warmup": 0}
    settings = load_settings({"scale": values.scale, "overrides": overrides})
    with tempfile.TemporaryDirectory() as folder:
        samples = prepare_world(folder, settings)
        method = build(settings, BackboneId(name, values.registers, 0), samples)
        seconds = measure(
            our_loop(method, samples), their_loop(method, samples), values.warmup, values.steps
        )
    shape = method.backbone.architecture
    print(
        f"{name}: width {shape.width}, depth {shape.depth}, patch {shape.patch}, "
        f"image {shape.image}, {shape.registers} registers, batch {method.recipe.batch}, "
        f"{values.threads} thread(s), torch {torch.__version__}, {values.steps} steps each, "
        "in turn\n"
    )
    print_table(seconds, method.recipe.batch)
