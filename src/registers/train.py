"""The one training loop: method + data + settings -> checkpoints.

Nothing is drawn from a generator with a history: the order of the data follows from (seed, epoch), every sample's
augmentation from (seed, its number in the run), every step's noise from (seed, step). So a killed run resumes to the same
weights bit for bit on a CPU, and the batch of a step is the same for any number of processes and loader workers.
"""

import csv
import hashlib
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.utils.data import DataLoader
from tqdm import tqdm

from registers import tracking
from registers.data.sample import Dataset
from registers.files import atomically
from registers.methods.method import Method, Progress
from registers.models import checkpoint
from registers.models.device import choose_device
from registers.outliers import statistics
from registers.settings.backbone_id import BackboneId
from registers.settings.data import IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.run import Settings


class DivergedError(RuntimeError):
    """The loss is no longer a number, or far above where it began. The last good checkpoint is kept."""


def train(
    method: Method,
    samples: Dataset,
    settings: Settings,
    out: Path,
    probe: torch.Tensor | None = None,
) -> dict[str, float]:
    """Train `method` on `samples`; write out/last.safetensors, out/atNNN.safetensors and out/history.csv; returns the last metrics.

    Resumes by itself from out/unfinished/. probe: images (B, 3, H, W) whose patch norms are logged from step 0 on.
    Raises DivergedError; ConfigError where the batch cannot be shared between the processes.
    """
    fabric = _fabric(settings)
    world, rank = fabric.world_size, fabric.global_rank
    recipe, seed = method.recipe, method.id.seed
    _check_batch(method, world)

    optimizer = method.optimizer()
    model, optimizer = fabric.setup(method, optimizer)
    unfinished = (
        out / "unfinished"
    )  # all that a resumed run needs; Snakemake deletes a killed job's outputs, so they are moved out last
    state_file = unfinished / "state.pt"
    first, history = 0, []
    saved = checkpoint.load_state(state_file, fabric.device)
    digest = config_hash(settings, method.id)
    if saved and saved["config"] == digest and saved["data"] == samples.fingerprint:
        method.load_state_dict(saved["method"])
        optimizer.load_state_dict(saved["optimizer"])
        first, history = saved["step"], saved["history"]

    subject = str(method.id)
    tags = dict(
        method=method.id.method,
        registers=method.id.registers,
        seed=seed,
        data_hash=samples.fingerprint,
        device=str(fabric.device),
    )
    record = (
        tracking.Run(
            settings.results, "train", subject, tags, _flat(recipe, method), resume=first > 0
        )
        if rank == 0
        else None
    )
    about = dict(
        method=method.id.method,
        steps=recipe.steps,
        config=digest,
        data=samples.fingerprint,
        normalization=method.normalization,
    )

    def save_state(step: int) -> None:
        if rank == 0 and all(torch.isfinite(p).all() for p in method.parameters()):
            state = dict(step=step, config=digest, data=samples.fingerprint, history=history)
            checkpoint.save_state(
                state_file,
                {**state, "method": method.state_dict(), "optimizer": optimizer.state_dict()},
            )

    def save_backbone(name: str, step: int) -> None:
        if rank == 0:
            tensors, extra_facts = method.extras()
            checkpoint.save(
                unfinished / f"{name}.safetensors",
                method.backbone,
                {**about, "step": step, **extra_facts},
                tensors,
            )

    milestones = {round(f * recipe.steps): f"at{round(100 * f):03d}" for f in settings.fractions}
    if first == 0 and 0 in milestones:
        save_backbone(milestones[0], 0)
    bar = tqdm(
        total=recipe.steps,
        initial=first,
        desc=subject,
        unit="step",
        disable=rank > 0,
        mininterval=1,
    )
    watch, delivery, started = Watch(subject, history), _Delivery(settings), time.monotonic()
    examples = 0
    try:
        for step, batch in zip(
            range(first, recipe.steps), _batches(method, samples, settings, first, world, rank)
        ):
            progress = Progress(step, recipe.steps)
            batch = fabric.to_device(batch)
            _seed_everything(seed, step)
            rates = method.schedule(optimizer, progress)
            losses = model(batch, progress)
            logs = step % settings.log_every == 0 or step == recipe.steps - 1
            if (
                fabric.device.type == "cpu" or logs
            ):  # reading a loss waits for a GPU, so there only when it is logged
                watch.loss(step, float(losses["loss"].detach()), state_file)
            optimizer.zero_grad()
            fabric.backward(losses["loss"])
            clipped = method.before_update(progress)
            optimizer.step()
            method.after_step(progress)
            bar.update()
            examples += recipe.batch

            if logs:
                seen = {k: float(fabric.all_reduce(v.detach().float())) for k, v in losses.items()}
                norms = (
                    _norms(method, probe, fabric.device) if rank == 0 and probe is not None else {}
                )
                speed = examples / (time.monotonic() - started)
                row = {"step": step, **seen, **rates, **clipped, **norms}
                history.append({k: float(v) for k, v in row.items()})
                bar.set_postfix(loss=f"{seen['loss']:.3f}", img_s=f"{speed:.0f}")
                if record:
                    record.metrics(
                        {
                            **{k: v for k, v in row.items() if k != "step"},
                            "images_per_second": speed,
                        },
                        step,
                    )
                    delivery.now_and_then()
            if step + 1 in milestones:
                save_backbone(milestones[step + 1], step + 1)
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < recipe.steps:
                save_state(step + 1)
        save_backbone("last", recipe.steps)
        if rank == 0:
            _write_history(unfinished / "history.csv", history)
            state_file.unlink(missing_ok=True)
            for file in sorted(unfinished.iterdir()):
                file.replace(out / file.name)
            unfinished.rmdir()
            record.artifact(out / "last.json")
            record.artifact(out / "history.csv")
            record.end()
    except BaseException:
        if record:
            record.end("FAILED")
        raise
    finally:
        bar.close()
        if rank == 0:
            delivery.flush()
    return history[-1] if history else {}


class Watch:
    """Stops a run whose loss is not a number, or stays five times above its level at the start."""

    FACTOR, MEMORY = 5.0, 0.9

    def __init__(self, name: str, history: list[dict[str, float]]) -> None:
        self.name, self.start = name, (abs(history[0]["loss"]) if history else None)
        self.level = history[-1]["loss"] if history else None

    def loss(self, step: int, value: float, state_file: Path) -> None:
        if self.start is None and math.isfinite(value):
            self.start = abs(value)
        self.level = (
            value if self.level is None else self.MEMORY * self.level + (1 - self.MEMORY) * value
        )
        if not math.isfinite(value) or self.level > self.FACTOR * max(self.start, 1.0):
            kept = (
                f"the last good state is kept in {state_file}"
                if state_file.is_file()
                else "no state was saved yet"
            )
            why = (
                "is not a number"
                if not math.isfinite(value)
                else f"is {self.FACTOR:g} times its start {self.start:.3g}"
            )
            raise DivergedError(
                f"{self.name}: the loss {value:.4g} {why} at step {step}; {kept}; try a lower lr"
            )


def config_hash(settings: Settings, id: BackboneId) -> str:
    """Short hash of all that the weights of `id` depend on: its recipe, size, registers, image size and data."""
    recipe = settings.recipes[id.method]
    size = settings.sizes[id.size or recipe.size]
    sets = {role: getattr(settings.data, role) for role in IMAGE_ROLES}
    content = [
        str(id.trained),
        asdict(recipe),
        asdict(size),
        settings.image_size,
        sets,
        asdict(settings.world),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


# --- data in a known order ----------------------------------------------------------------------------------------------


class _Examples(torch.utils.data.Dataset):
    """Example `number` of the run: sample `index`, augmented by draws that follow from (seed, number) alone."""

    def __init__(self, samples: Dataset, method: Method) -> None:
        self.samples, self.augment, self.seed = samples, method.augment, method.id.seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, torch.Tensor]:
        number, index = place
        _seed_everything(self.seed, number, stream=1)
        return self.augment(self.samples[index])


class _Order(torch.utils.data.Sampler):
    """For each step, this process's slots of the global batch as (number, index).

    Slots i and B-1-i always meet on one process, in mirrored places, because CutMix and mixup pair them (timm.data.Mixup).
    """

    def __init__(self, n: int, method: Method, first: int, world: int, rank: int) -> None:
        self.n, self.first, self.seed = n, first, method.id.seed
        self.steps, self.batch, self.repeats = (
            method.recipe.steps,
            method.recipe.batch,
            method.repeats,
        )
        half = self.batch // 2 // world
        front = list(range(rank * half, (rank + 1) * half))
        self.slots = (
            front + [self.batch - 1 - i for i in reversed(front)]
            if world > 1
            else list(range(self.batch))
        )

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.first, self.steps):
            places = []
            for slot in self.slots:
                number = step * self.batch + slot
                drawn = number // self.repeats
                if drawn // self.n != epoch:
                    epoch = drawn // self.n
                    order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(
                        self.n
                    )
                places.append((number, int(order[drawn % self.n])))
            yield places


def _batches(
    method: Method, samples: Dataset, settings: Settings, first: int, world: int, rank: int
) -> DataLoader:
    workers = settings.workers
    return DataLoader(
        _Examples(samples, method),
        batch_sampler=_Order(len(samples), method, first, world, rank),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _seed_everything(*key: int, stream: int = 0) -> None:
    """Seed torch, numpy and random from a key. stream 0: a step, on all devices; 1: a sample, whose draws are on the CPU."""
    mixed = int.from_bytes(
        hashlib.blake2b(repr((stream, *key)).encode(), digest_size=8).digest(), "little"
    )
    if stream == 0:
        torch.manual_seed(mixed % 2**63)
    else:  # the same state in 1 microsecond instead of 120: torch.manual_seed visits every kind of device
        torch.default_generator.manual_seed(mixed % 2**63)
    np.random.seed(mixed % 2**32)
    random.seed(mixed)


# --- the machine --------------------------------------------------------------------------------------------------------


def _fabric(settings: Settings) -> Fabric:
    """Device, precision and processes. Under torchrun every process takes its place; otherwise there is one."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    total = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(settings.device)
    precision = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if device == "cuda" else "32-true"
    # find_unused: a batch without masked images leaves the mask token without a gradient
    strategy = DDPStrategy(find_unused_parameters=True) if total > 1 else "auto"
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=max(1, total // local),
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def _check_batch(method: Method, world: int) -> None:
    if world > 1 and method.recipe.batch % (2 * world):
        raise ConfigError(
            f"recipes.{method.id.method}.batch = {method.recipe.batch}: allowed are multiples of {2 * world} on {world} processes"
        )


class _Delivery:
    """Hands the numbers to MLflow at most every `pause` seconds, and once at the end."""

    def __init__(self, settings: Settings, pause: float = 20) -> None:
        self.root, self.uri, self.pause, self.last = (
            settings.results.parent,
            settings.mlflow_uri,
            pause,
            time.monotonic(),
        )

    def now_and_then(self) -> None:
        if time.monotonic() - self.last > self.pause:
            self.flush()

    def flush(self) -> None:
        tracking.deliver(self.root, self.uri, wait=0)
        self.last = time.monotonic()


def _norms(method: Method, probe: torch.Tensor, device: torch.device) -> dict[str, float]:
    """Statistics of the patch norms at the output of the last block, before the final norm; and how far registers are apart."""
    training = method.backbone.training
    method.backbone.eval()
    with torch.no_grad():
        patches = method.backbone.split(method.backbone.residual(probe.to(device)).float()).patches
    method.backbone.train(training)
    token = (
        None if method.backbone.vit.reg_token is None else method.backbone.vit.reg_token.detach()
    )
    spread = {}
    if (
        method.backbone.registers > 1
    ):  # registers start a millionth apart and have to be seen to separate
        spread["registers/spread"] = float(
            torch.cdist(token[0], token[0]).max() / token[0].norm(dim=-1).mean().clamp_min(1e-12)
        )
    return spread | {f"norms/{k}": v for k, v in statistics(patches.norm(dim=-1).cpu()).items()}


def _flat(recipe: Any, method: Method) -> dict[str, Any]:
    return {
        **asdict(recipe),
        **{f"architecture.{k}": v for k, v in asdict(method.backbone.architecture).items()},
    }


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(k for row in history for k in row))

    def write(partial: Path) -> None:
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(history)

    atomically(path, write)
