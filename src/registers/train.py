"""The one training loop: method + data + settings -> checkpoints.

A killed training resumes from its last saved state, to the same weights bit for bit on a CPU: what
is drawn at random follows from the seed and the step alone (see `registers.data.order`).
"""

import hashlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader
from tqdm import tqdm

from registers import tracking
from registers.data.order import Order, loader, seed_step
from registers.data.sample import Dataset
from registers.digest import training_digest
from registers.files import write_table
from registers.layout import checkpoint_name
from registers.methods.method import Method, Progress, build, recipe_module
from registers.models import checkpoint
from registers.models.machine import launch
from registers.norm_statistics import statistics
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.identity import training_identity
from registers.settings.run import Settings
from registers.watchdog import Watchdog

PROBE_IMAGES = 16  # whose patch norms are logged while training


class DivergedError(RuntimeError):
    """The loss is not a number any more, or far above where it began."""


def train_backbone(settings: Settings, id: BackboneId, samples: Dataset) -> dict[str, float]:
    """Train one backbone of a run into its folder; returns the last metrics. See `train`."""
    return train(build(settings, id, samples), samples, settings.layout.training(id))


def train(method: Method, samples: Dataset, out: Path) -> dict[str, float]:
    """Train `method` on `samples`; returns the last metrics.

    Writes out/last.safetensors, out/atNNN.safetensors and out/history.csv; resumes by itself from
    out/unfinished. Raises DivergedError, which leaves the last good state there; ConfigError where
    the batch cannot be shared between the processes.
    """
    settings = method.settings
    fabric = launch(settings)
    model, optimizer = fabric.setup(method, method.optimizer())

    steps = method.recipe.steps
    seed = method.id.seed
    folder = _Folder(out, method, optimizer, samples, fabric)
    first, history = folder.resume()
    batches = _batches(method, samples, first, fabric)
    watch = Watch(str(method.id), history)
    log = _Log(method, samples, fabric, first, history)

    try:
        for step, batch in zip(range(first, steps), batches):
            progress = Progress(step, steps)
            batch = fabric.to_device(batch)
            seed_step(seed, step)
            rates = method.schedule(optimizer, progress)
            losses = model(batch, progress)
            is_logged = step % settings.log_every == 0 or step == steps - 1
            if is_logged or fabric.device.type == "cpu":  # reading a loss waits for a GPU
                watch.check(step, float(losses["loss"].detach()), folder.state)

            optimizer.zero_grad()
            fabric.backward(losses["loss"])
            gradients = method.before_update(progress)
            optimizer.step()
            method.after_step(progress)

            log.step(step)
            if is_logged:
                log.metrics(step, losses, rates | gradients)
            folder.save(step + 1, history)
        folder.finish(history)
        log.end("FINISHED", [out / "last.json", out / "history.csv"])
    except BaseException:
        log.end("FAILED")
        raise
    return history[-1] if history else {}


def _batches(method: Method, samples: Dataset, first: int, fabric: Fabric) -> DataLoader:
    """This process's part of each step's batch, from step `first` on.

    Raises ConfigError where the parts would not be even: CutMix pairs images within a process.
    """
    batch = method.recipe.batch
    pairs = 2 * fabric.world_size
    if fabric.world_size > 1 and batch % pairs:
        raise ConfigError(
            f"recipes.{method.id.method}.batch = {batch}: must be a multiple of {pairs} "
            f"on {fabric.world_size} processes"
        )
    order = Order(
        len(samples),
        batch,
        method.recipe.steps,
        method.id.seed,
        first=first,
        processes=fabric.world_size,
        rank=fabric.global_rank,
    )
    return loader(samples, method.augment, order, method.settings.workers)


class Watch:
    """Stops a run whose loss is not a number, or stays five times above its level at the start."""

    FACTOR = 5.0
    MEMORY = 0.9  # of the moving average over steps that is compared

    def __init__(self, name: str, history: list[dict[str, float]]) -> None:
        self.name = name
        self.start = abs(history[0]["loss"]) if history else None
        self.level = history[-1]["loss"] if history else None

    def check(self, step: int, loss: float, state: Path) -> None:
        """Raises DivergedError. state: where the last good one lies, for the message."""
        if not math.isfinite(loss):
            raise self._diverged(step, loss, "is not a number", state)
        if self.start is None:
            self.start = abs(loss)
            self.level = loss
        self.level = self.MEMORY * self.level + (1 - self.MEMORY) * loss
        if self.level > self.FACTOR * max(self.start, 1.0):
            reason = f"is {self.FACTOR:g} times its start {self.start:.3g}"
            raise self._diverged(step, loss, reason, state)

    def _diverged(self, step: int, loss: float, reason: str, state: Path) -> DivergedError:
        kept = f"the last good state is kept in {state}"
        if not state.is_file():
            kept = "no state was saved yet"
        return DivergedError(
            f"{self.name}: the loss {loss:.4g} {reason} at step {step}; {kept}; try a lower lr"
        )


# --- files ----------------------------------------------------------------------------------------


class _Folder:
    """The files of one training, and how a killed one resumes.

    All lies in out/unfinished until training is finished: Snakemake deletes the outputs of a
    killed job. Only the first process writes.
    """

    def __init__(
        self,
        out: Path,
        method: Method,
        optimizer: torch.optim.Optimizer,
        samples: Dataset,
        fabric: Fabric,
    ) -> None:
        self.out = out
        self.unfinished = out / "unfinished"
        self.state = self.unfinished / "state.pt"
        self.method = method
        self.optimizer = optimizer
        self.fabric = fabric
        self.steps = method.recipe.steps
        self.milestones = milestones(method.settings.fractions, self.steps)
        identity = json.dumps(training_identity(method.settings, method.id), sort_keys=True)
        self.made_from = {
            "identity": hashlib.sha256(identity.encode()).hexdigest()[:12],
            "data": samples.fingerprint,
        }
        self.code = training_digest(recipe_module(method.id))

    def resume(self) -> tuple[int, list[dict[str, float]]]:
        """Load what a killed training of the same identity left: its next step and its history.

        Without one, (0, []) and an empty folder. A checkpoint due at this very step is written.
        """
        saved = checkpoint.load_state(self.state, self.fabric.device)
        if saved is not None and not self._is_ours(saved):
            saved = None
        self.fabric.barrier()  # all processes have looked at the folder before the first changes it
        if saved is None:
            if self.fabric.is_global_zero:
                shutil.rmtree(self.unfinished, ignore_errors=True)
            saved = {"step": 0, "history": []}
        else:
            self.method.load_state_dict(saved["method"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if saved["code"] != self.code:
                self.code = ""  # made by two versions of the code: by neither
        for name in self._lacking(saved["step"]):
            self._save_backbone(name, saved["step"])
        return saved["step"], saved["history"]

    def save(self, step: int, history: list[dict[str, float]]) -> None:
        """Write what is due once `step` steps are done."""
        for name in self.milestones.get(step, []):
            self._save_backbone(name, step)
        if step % self.method.settings.checkpoint_every == 0 and step < self.steps:
            self._save_state(step, history)

    def finish(self, history: list[dict[str, float]]) -> None:
        """Write the last backbone and the history, and move everything to where it is expected."""
        self._save_backbone("last", self.steps)
        if not self.fabric.is_global_zero:
            return
        write_table(self.unfinished / "history.csv", history)
        self.state.unlink(missing_ok=True)
        for file in sorted(self.unfinished.iterdir()):
            if file.suffix == ".partial":  # left behind by a kill
                file.unlink()
            else:
                file.replace(self.out / file.name)
        self.unfinished.rmdir()

    def _is_ours(self, saved: dict[str, Any]) -> bool:
        """Whether it continues this very training, and all earlier milestones are on disk."""
        same = all(saved.get(key) == value for key, value in self.made_from.items())
        earlier = (step for step in self.milestones if step < saved["step"])
        return same and not any(map(self._lacking, earlier))

    def _lacking(self, step: int) -> list[str]:
        """Names of the checkpoints due after `step` steps that are not on disk."""
        names = self.milestones.get(step, [])
        return [name for name in names if not (self.unfinished / f"{name}.json").is_file()]

    def _save_backbone(self, name: str, step: int) -> None:
        if not self.fabric.is_global_zero:
            return
        tensors, extra_facts = self.method.extras()
        facts = {"method": self.method.id.method, "step": step, "steps": self.steps}
        facts |= {"code": self.code} | self.made_from | extra_facts
        path = self.unfinished / f"{name}.safetensors"
        checkpoint.save(path, self.method.backbone, facts, tensors)

    def _save_state(self, step: int, history: list[dict[str, float]]) -> None:
        """Save all that a killed run needs, unless a weight is not a number."""
        finite = (torch.isfinite(p).all() for p in self.method.parameters())
        if not self.fabric.is_global_zero or not all(finite):
            return
        state = {
            "step": step,
            "history": history,
            "code": self.code,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.save_state(self.state, state | self.made_from)


def milestones(fractions: tuple[float, ...], steps: int) -> dict[int, list[str]]:
    """Names of the checkpoints on the way by the number of steps done, from shares of training.

    In a short training several may share one step; the end itself is called "last".
    """
    names: dict[int, list[str]] = {}
    for fraction in fractions:
        name = checkpoint_name(round(100 * fraction))
        if name != "last":
            names.setdefault(round(fraction * steps), []).append(name)
    return names


# --- metrics --------------------------------------------------------------------------------------


class _Log:
    """The history, the progress bar and MLflow. Only the first process shows and records."""

    def __init__(
        self,
        method: Method,
        samples: Dataset,
        fabric: Fabric,
        first: int,
        history: list[dict[str, float]],
    ) -> None:
        self.method = method
        self.fabric = fabric
        self.history = history
        self.examples = 0
        self.started = time.monotonic()
        self.courier = tracking.Courier(method.settings.results.parent, method.settings.mlflow_uri)
        self.watchdog = Watchdog(str(method.id))
        self.bar = tqdm(
            total=method.recipe.steps,
            initial=first,
            desc=str(method.id),
            unit="step",
            disable=not self.fabric.is_global_zero,
            mininterval=1,
        )
        if self.fabric.is_global_zero:
            self.probe = _probe(method, samples)
            self.record = self._begin_record(samples, resume=first > 0)

    def step(self, step: int) -> None:
        self.watchdog.step(step)
        self.examples += self.method.recipe.batch
        self.bar.update()

    def metrics(self, step: int, losses: dict[str, torch.Tensor], others: dict[str, float]) -> None:
        """Append a row to the history: losses, mean over processes, and norms of the probe."""
        row = {"step": float(step)}
        for name, loss in losses.items():
            row[name] = float(self.fabric.all_reduce(loss.detach().float()))
        row |= {name: float(value) for name, value in others.items()}
        if self.fabric.is_global_zero:
            row |= _norms(self.method, self.probe.to(self.fabric.device))
        self.history.append(row)
        speed = self.examples / (time.monotonic() - self.started)
        self.bar.set_postfix(loss=f"{row['loss']:.3f}", img_s=f"{speed:.0f}")
        if self.fabric.is_global_zero:
            values = {name: value for name, value in row.items() if name != "step"}
            self.record.metrics(values | {"images_per_second": speed}, step)
            self.courier.deliver_now_and_then()

    def end(self, status: str, artifacts: list[Path] | None = None) -> None:
        self.watchdog.stop()
        self.bar.close()
        if not self.fabric.is_global_zero:
            return
        for path in artifacts or []:
            self.record.artifact(path)
        self.record.end(status)
        self.courier.deliver()

    def _begin_record(self, samples: Dataset, resume: bool) -> tracking.Run:
        id = self.method.id
        tags = {
            "method": id.method,
            "registers": id.registers,
            "seed": id.seed,
            "data_hash": samples.fingerprint,
            "device": str(self.fabric.device),
        }
        settings = self.method.settings
        architecture = vars(self.method.backbone.architecture)
        params = training_identity(settings, id)["recipe"]
        params |= {f"architecture.{name}": value for name, value in architecture.items()}
        return tracking.Run(settings.results, "train", str(id), tags, params, resume=resume)


def _probe(method: Method, samples: Dataset) -> torch.Tensor:
    """The first images of the training set as the backbone sees them, (B, 3, S, S)."""
    size = method.settings.image_size
    images = (samples[i].image for i in range(min(PROBE_IMAGES, len(samples))))
    return torch.stack([method.backbone.look(image, size) for image in images])


def _norms(method: Method, probe: torch.Tensor) -> dict[str, float]:
    """Statistics of the probe's patch norms at the output of the last block, before the final norm.

    "registers/spread", where there are several: the largest distance between two registers' initial
    embeddings over their mean norm. They start a millionth apart, and this shows them separate.
    """
    backbone = method.backbone
    training = backbone.training
    backbone.eval()
    with torch.no_grad():
        patches = backbone.split(backbone.residual(probe).float()).patches
    backbone.train(training)
    row = {}
    if backbone.registers > 1:
        registers = backbone.vit.reg_token.detach()[0]
        norm = registers.norm(dim=-1).mean().clamp_min(1e-12)
        row["registers/spread"] = float(torch.cdist(registers, registers).max() / norm)
    signs = statistics(patches.norm(dim=-1).cpu())
    return row | {f"norms/{name}": value for name, value in signs.items()}
