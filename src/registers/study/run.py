"""One run of the study: train a regime on scenes drawn on the device, watch its norms, resume.

The scenes of a step follow from (seed, step) alone, so a killed run resumes to the same numbers.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from registers import files, tracking
from registers.models import checkpoint
from registers.study.examine import examine
from registers.study.regime import AnyRegime, TokenRegime, regime_of
from registers.study.signs import watch
from registers.study.sweep import Sweep
from registers.study.worlds import build_net, scenes

PROBE = 256  # scenes on which norms are watched while training
VALIDATION = 10**9  # seeds of scenes that no training sees begin here
STEPS = 10**7  # seeds of scenes that one training's seed owns


class Training:
    """A net, its optimiser and its history: what a killed run resumes from."""

    def __init__(
        self, sweep: Sweep, variant: str, registers: int, seed: int, device: torch.device
    ) -> None:
        self.sweep, self.device, self.seed = sweep, device, seed
        self.regime = sweep.regime(variant)
        torch.manual_seed(seed)
        self.net = build_net(self.regime, registers).to(device)
        self.optimizer = optimizer_of(self.net, self.regime)
        self.facts = dict(
            variant=variant, registers=registers, seed=seed, regime=self.regime.model_dump()
        )
        self.step = 0
        self.status = ""
        self.loss = torch.zeros(())
        self.history: list[dict[str, float]] = []
        self.earlier = {"seconds": 0.0, "core_seconds": 0.0}
        self.began = clocks()

    @property
    def spent(self) -> dict[str, float]:
        """Until now, what it took before it was killed included: "seconds" of the clock, and
        "core_seconds" of this process, which jobs beside it do not prolong."""
        return {k: self.earlier[k] + now - self.began[k] for k, now in clocks().items()}

    def resume(self, file: Path) -> None:
        """Take up what `save` left, where it belongs to the same run."""
        saved = checkpoint.load_state(file, self.device)
        if saved and saved["facts"] == json.dumps(self.facts):
            self.net.load_state_dict(saved["net"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.history = saved["step"], saved["history"]
            self.earlier = saved["spent"]

    def save(self, file: Path) -> None:
        state = dict(
            facts=json.dumps(self.facts),
            step=self.step,
            history=self.history,
            spent=self.spent,
            net=self.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )
        checkpoint.save_state(file, state)

    def look(self, probe: Any, record: tracking.Run) -> None:
        """Write down the signs of this step, once."""
        if self.history and self.history[-1]["step"] == self.step:
            return
        mode = self.net.training
        self.net.eval()
        signs = watch(self.net, probe)
        self.net.train(mode)
        self.history.append({"step": self.step, **signs})
        record.metrics(signs, self.step)

    def update(self) -> None:
        """One step of the optimiser."""
        regime, at = self.regime, self.seed * STEPS + self.step
        batch = scenes(regime, regime.batch, at, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(regime, self.step)
        if isinstance(regime, TokenRegime):
            asked = getattr(self.net, "student", self.net)
            asked.label_asked = self.step >= regime.label_from
            asked.local_asked = self.step >= regime.local_from
        # Drop path's stream, so that a resumed training draws the same. It begins as the scenes'
        # did, so which scenes miss a path may go with the symbols of the batch's first scene.
        torch.manual_seed(at)
        self.loss, _ = self.net.losses(batch, mask(regime, at, self.device))
        self.optimizer.zero_grad()
        self.loss.backward()
        if regime.clip:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), regime.clip)
        self.optimizer.step()
        self.step += 1
        if hasattr(self.net, "after_step"):
            self.net.after_step(self.step / regime.steps)

    @property
    def finite(self) -> bool:
        weights = (bool(torch.isfinite(p).all()) for p in self.net.parameters())
        return bool(torch.isfinite(self.loss)) and all(weights)


def clocks() -> dict[str, float]:
    return {"seconds": time.monotonic(), "core_seconds": time.process_time()}


def run(
    sweep: Sweep,
    variant: str,
    registers: int,
    seed: int,
    out: Path,
    device: torch.device,
    record: tracking.Run,
) -> dict:
    """Train, examine, and write out/net.pt, run.json, history.csv and maps.npz.

    Returns what run.json holds. A run whose loss is no number ends there and is written down as
    "diverged": a failure is a result of the study. A file `stop` in `out` ends a run at its next
    look and examines it there ("stopped").
    """
    training = Training(sweep, variant, registers, seed, device)
    state = out / "unfinished" / "state.pt"
    training.resume(state)
    probe = scenes(training.regime, PROBE, VALIDATION, device)
    train(training, probe, out, record)
    net = training.net.eval().requires_grad_(False)
    result = dict(**training.facts, steps=training.step, status=training.status)
    result["seconds"] = training.spent["seconds"]  # without the examination
    if training.status != "diverged":
        training.look(probe, record)
        examined = scenes(apart(training.regime), sweep.images, VALIDATION + 1, device)
        result |= {"signs": training.history[-1], **examine(net, examined, out / "maps.npz")}
        ends = {f"end/{k}": v for k, v in result["numbers"].items() if v is not None}
        record.metrics(ends, training.step)
    result["core_seconds"] = training.spent["core_seconds"]
    files.atomically(out / "net.pt", lambda partial: torch.save(net.state_dict(), partial))
    files.write_table(out / "history.csv", training.history)
    files.write_json(out / "run.json", result)
    state.unlink(missing_ok=True)
    return result


def train(training: Training, probe: Any, out: Path, record: tracking.Run) -> None:
    """Step until the end, the first number that is none, or a file `stop`; sets the status."""
    sweep, total = training.sweep, training.regime.steps
    state = out / "unfinished" / "state.pt"
    bar = tqdm(desc=out.name, initial=training.step, total=total, mininterval=5)
    first = training.step
    while training.step < total:
        looks = training.step % sweep.log_every == 0
        if looks and not training.finite:
            training.status = "diverged"
            return
        if looks:
            training.look(probe, record)
        if training.step % sweep.save_every == 0 and training.step > first:
            training.save(state)
        training.update()
        bar.update()
        if looks and (out / "stop").exists():
            training.status = "stopped"
            (out / "stop").unlink()
            return
    training.save(state)  # a failure of the examination costs no training
    training.status = "finished" if training.finite else "diverged"


def again(sweep: Sweep, out: Path, device: torch.device, probes: bool = True) -> None:
    """Examine a finished run once more, after a change of the probes or, without `probes`, of the
    signs alone; rewrites run.json and, with probes, maps.npz."""
    result = json.loads((out / "run.json").read_text())
    regime = regime_of(result["regime"], f"{out.name}.regime")
    net = build_net(regime, result["registers"])
    net.load_state_dict(torch.load(out / "net.pt", weights_only=True))
    net.to(device).eval().requires_grad_(False)
    probe = scenes(regime, PROBE, VALIDATION, device)
    result["signs"] = {"step": result["steps"], **watch(net, probe)}
    if probes:
        examined = scenes(apart(regime), sweep.images, VALIDATION + 1, device)
        result |= examine(net, examined, out / "maps.npz")
    files.write_json(out / "run.json", result)


def apart(regime: AnyRegime) -> AnyRegime:
    """The regime of scenes for the probes, whose halves may not hold near duplicates of each other:
    a token that tells its group would tell the label."""
    return regime.model_copy(update={"alike": 1}) if hasattr(regime, "alike") else regime


def mask(regime: AnyRegime, seed: int, device: torch.device) -> Tensor | None:
    """(B, P), True where a patch is hidden behind a mask token in this step."""
    if not regime.masked:
        return None
    generator = torch.Generator(device=device).manual_seed(seed + 5 * 10**8)
    shares = torch.rand(regime.batch, regime.grid**2, generator=generator, device=device)
    return shares < regime.masked


def optimizer_of(net: nn.Module, regime: AnyRegime) -> torch.optim.Optimizer:
    """Biases, norms, tokens and spare keys are not decayed (the first three as in DeiT-III)."""
    tokens = ("pos_embed", "cls_token", "reg_token", "spare")
    plain = [p for n, p in net.named_parameters() if p.ndim < 2 or n.endswith(tokens)]
    known = {id(p) for p in plain}
    decayed = [p for p in net.parameters() if id(p) not in known]
    groups = [
        {"params": decayed, "weight_decay": regime.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if regime.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=regime.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=regime.lr, betas=(0.9, regime.beta2))


def rate(regime: AnyRegime, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant or a cosine to 0."""
    if step < regime.warmup:
        return regime.lr * (step + 1) / regime.warmup
    if regime.schedule == "constant":
        return regime.lr
    along = (step - regime.warmup) / max(1, regime.steps - regime.warmup)
    return regime.lr * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * along))))
