"""Two training loops measured against each other: in one process, step by step in turn, so that both meet the same machine."""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from registers.data.sample import Dataset
from registers.methods.method import Method, Progress
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.settings.run import Settings
from registers.train import _batches, _seed_everything
from registers.world.dataset import World, prepare

PHASES = ("data", "forward, backward", "optimizer")
Step = Iterator[
    tuple[float, ...]
]  # each `next` is one training step; it yields the seconds of the phases


def options(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--scale", default="laptop", help="sizes, batch and image size (workflow/scales)"
    )
    parser.add_argument("--registers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each loop")
    parser.add_argument("--warmup", type=int, default=3, help="steps before measuring")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    return chosen


def prepare_world(folder: str, settings: Settings, count: int = 512) -> World:
    return World(
        prepare(Path(folder) / "world", "train", count, settings.world.pixels, progress=False)
    )


def our_loop(method: Method, samples: Dataset, settings: Settings) -> Step:
    """What train.py does in each step: its loader, its seeds, the loss read on the CPU."""
    method.train()
    optimizer, steps = method.optimizer(), method.recipe.steps
    loader = iter(_batches(method, samples, settings, 0, 1, 0))
    for step in itertools.count():
        at = [time.perf_counter()]
        batch = next(loader)
        at.append(time.perf_counter())
        progress = Progress(step, steps)
        _seed_everything(method.id.seed, step)
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
        yield tuple(b - a for a, b in itertools.pairwise(at))


def main(
    name: str,
    description: str,
    ours: type[Method],
    their_loop: Callable[[Method, World], Step],
    arguments: list[str] | None = None,
) -> None:
    """Measure and print a table: images per second of both loops by the median step, their ratio, and where the time goes."""
    chosen = options(description, arguments)
    settings = load_settings(
        {
            "scale": chosen.scale,
            "overrides": {f"recipes.{name}.steps": chosen.steps + chosen.warmup + 1},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        samples = prepare_world(folder, settings)
        torch.manual_seed(0)
        method = ours(settings, BackboneId(name, chosen.registers, 0), samples)
        loops = {"ours": our_loop(method, samples, settings), "theirs": their_loop(method, samples)}
        times: dict[str, list[tuple[float, ...]]] = {loop: [] for loop in loops}
        for turn in range(chosen.warmup + chosen.steps):
            for loop, step in loops.items() if turn % 2 else reversed(loops.items()):
                seconds = next(step)
                if turn >= chosen.warmup:
                    times[loop].append(seconds)
    batch, architecture = method.recipe.batch, method.backbone.architecture
    print(
        f"{name}: width {architecture.width}, depth {architecture.depth}, patch {architecture.patch}, image {architecture.image}, "
        f"{architecture.registers} registers, batch {batch}, {chosen.threads} thread(s), torch {torch.__version__}, "
        f"{chosen.steps} steps each, in turn\n"
    )
    print(f"| loop | images/s | ms/step | {' | '.join(f'{p} ms' for p in PHASES)} |")
    print("|---|---|---|---|---|---|")
    step_seconds = {}
    for loop, seconds in times.items():
        step_seconds[loop] = statistics.median(sum(s) for s in seconds)
        phases = " | ".join(
            f"{1000 * statistics.median(s[i] for s in seconds):.1f}" for i in range(len(PHASES))
        )
        print(
            f"| {loop} | {batch / step_seconds[loop]:.0f} | {1000 * step_seconds[loop]:.1f} | {phases} |"
        )
    print(
        f"\nratio of images/s, ours to theirs: {step_seconds['theirs'] / step_seconds['ours']:.2f}"
    )
