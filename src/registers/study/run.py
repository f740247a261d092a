"""One run of the study: train a regime on scenes drawn on the device, watch its norms, resume by itself.

The scenes of a step follow from (seed, step) alone, so a killed run goes on to the same numbers.
"""

import csv
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from registers import tracking
from registers.files import atomically
from registers.models import checkpoint
from registers.outliers import statistics
from registers.settings.base import build
from registers.study.examine import examine
from registers.study.net import Net
from registers.study.regime import Regime, Study
from registers.study.scenes import Scenes, draw
from registers.tokens import attention

PROBE = 256  # scenes on which norms are watched while training
VALIDATION = 10**9  # seeds of scenes that no training sees begin here


def run(
    study: Study,
    variant: str,
    registers: int,
    seed: int,
    out: Path,
    device: torch.device,
    record: tracking.Run,
) -> dict:
    """Train, examine, and write out/net.pt, out/run.json, out/history.csv and out/maps.npz. Returns what run.json says.

    A run whose loss is no number ends there and is written down as "diverged": a failure is a result of the study. A file `stop` in
    `out` ends a run at its next look and examines it there ("stopped"): what an early sign has answered needs no more hours.
    """
    regime = study.regime(variant)
    torch.manual_seed(seed)
    net = Net(regime, registers).to(device)
    optimizer = optimizer_of(net, regime)
    probe = scenes(regime, PROBE, VALIDATION, device)
    facts = dict(variant=variant, registers=registers, seed=seed, regime=regime.model_dump())
    state_file, first, history, seconds = out / "unfinished" / "state.pt", 0, [], 0.0
    saved = checkpoint.load_state(state_file, device)
    if saved and saved["facts"] == json.dumps(facts):
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        first, history, seconds = saved["step"], saved["history"], saved["seconds"]

    def save(step: int) -> None:
        state = dict(
            facts=json.dumps(facts),
            step=step,
            history=history,
            seconds=seconds + time.monotonic() - began,
        )
        checkpoint.save_state(
            state_file, {**state, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
        )

    began, status, loss = time.monotonic(), "", torch.zeros(())
    bar = tqdm(
        range(first, regime.steps),
        desc=f"{variant}-r{registers}-s{seed}",
        initial=first,
        total=regime.steps,
        mininterval=5,
    )
    for step in bar:
        looks = step % study.log_every == 0
        if looks and not _finite(net, loss):
            status = "diverged"
            break
        if looks and not (history and history[-1]["step"] == step):
            history.append({"step": step, **watch(net, probe)})
            record.metrics({k: v for k, v in history[-1].items() if k != "step"}, step)
        if step % study.save_every == 0 and step > first:
            save(step)
        batch = scenes(regime, regime.batch, seed * 10**7 + step, device)
        for group in optimizer.param_groups:
            group["lr"] = rate(regime, step)
        loss, _ = net.losses(batch, mask(regime, seed * 10**7 + step, device))
        optimizer.zero_grad()
        loss.backward()
        if regime.clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), regime.clip)
        optimizer.step()
        if looks and (out / "stop").exists():
            status = "stopped"
            (out / "stop").unlink()
            break
    else:
        status = "finished" if _finite(net, loss) else "diverged"
    net.eval().requires_grad_(False)
    result = dict(
        **facts, steps=step + 1, status=status, seconds=seconds + time.monotonic() - began
    )
    if status != "diverged":
        history.append({"step": step + 1, **watch(net, probe)})
        record.metrics({k: v for k, v in history[-1].items() if k != "step"}, step + 1)
        result |= {
            "signs": history[-1],
            **examine(net, scenes(regime, study.images, VALIDATION + 1, device), out / "maps.npz"),
        }
        record.metrics(
            {f"end/{k}": v for k, v in result["numbers"].items() if v is not None}, step + 1
        )
    atomically(out / "net.pt", lambda partial: torch.save(net.state_dict(), partial))
    columns = list(dict.fromkeys(k for row in history for k in row))
    with open(out / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)
    (out / "run.json").write_text(json.dumps(result, indent=1))
    state_file.unlink(missing_ok=True)
    return result


def again(study: Study, out: Path, device: torch.device) -> None:
    """Examine a finished run once more from its out/net.pt, after a change of the probes; rewrites out/run.json and out/maps.npz."""
    result = json.loads((out / "run.json").read_text())
    regime = build(Regime, result["regime"], f"{out.name}.regime")
    net = Net(regime, result["registers"])
    net.load_state_dict(torch.load(out / "net.pt", weights_only=True))
    net.to(device).eval().requires_grad_(False)
    result["signs"] = {
        "step": result["steps"],
        **watch(net, scenes(regime, PROBE, VALIDATION, device)),
    }
    result |= examine(net, scenes(regime, study.images, VALIDATION + 1, device), out / "maps.npz")
    (out / "run.json").write_text(json.dumps(result, indent=1))


def _finite(net: Net, loss: Tensor) -> bool:
    return bool(torch.isfinite(loss)) and all(
        bool(torch.isfinite(p).all()) for p in net.parameters()
    )


def scenes(regime: Regime, count: int, seed: int, device: torch.device) -> Scenes:
    return draw(regime, count, torch.Generator(device=device).manual_seed(seed))


def mask(regime: Regime, seed: int, device: torch.device) -> Tensor | None:
    """(B, P), True where a patch is hidden in this step."""
    if not regime.masked:
        return None
    generator = torch.Generator(device=device).manual_seed(seed + 5 * 10**8)
    return (
        torch.rand(regime.batch, regime.grid**2, generator=generator, device=device) < regime.masked
    )


def optimizer_of(net: Net, regime: Regime) -> torch.optim.Optimizer:
    """Biases, norms and tokens are not decayed (as in DeiT-III)."""
    plain = [
        p
        for n, p in net.named_parameters()
        if p.ndim < 2 or n.endswith(("pos_embed", "cls_token", "reg_token"))
    ]
    known = {id(p) for p in plain}
    groups = [
        {
            "params": [p for p in net.parameters() if id(p) not in known],
            "weight_decay": regime.weight_decay,
        },
        {"params": plain, "weight_decay": 0.0},
    ]
    if regime.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=regime.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=regime.lr, betas=(0.9, regime.beta2))


def rate(regime: Regime, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant or a cosine to 0."""
    if step < regime.warmup:
        return regime.lr * (step + 1) / regime.warmup
    if regime.schedule == "constant":
        return regime.lr
    along = (step - regime.warmup) / max(1, regime.steps - regime.warmup)
    return regime.lr * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * along))))


@torch.no_grad()
def watch(net: Net, probe: Scenes) -> dict[str, float]:
    """Early signs: accuracy; norms of patches by layer; attention mass on single tokens; where the highest norms lie."""
    seen_qkv: list[Tensor] = []
    hooks = [
        b.attn.qkv.register_forward_hook(lambda m, a, out: seen_qkv.append(out))
        for b in net.backbone.vit.blocks
    ]
    try:
        _, metrics = net.losses(probe, None)
        qkv = [x for x in seen_qkv]
        seen = net(probe.images)
        before = (seen.embeddings + net.backbone.vit.pos_embed).norm(
            dim=-1
        )  # of the patches that a block reads
    finally:
        for hook in hooks:
            hook.remove()
    row = {k: float(v) for k, v in metrics.items()}
    for layer, x in enumerate(seen.layers):
        tokens = net.split(x, layer)
        norms = tokens.patches.norm(dim=-1)
        signs = statistics(norms)
        if tokens.cls is not None:
            row[f"layer{layer + 1}/cls_over_median"] = (
                float(tokens.cls.norm(dim=-1).mean()) / signs["median"]
            )
        if net.registers:
            row[f"layer{layer + 1}/registers_over_median"] = (
                float(tokens.registers.norm(dim=-1).mean(0).max()) / signs["median"]
            )
        row |= {
            f"layer{layer + 1}/{k}": signs[k]
            for k in ("median", "max_over_median", "kurtosis", "share_above_3x_median")
        }
        q, k, _ = (
            qkv[layer].view(*qkv[layer].shape[:2], 3, net.regime.heads, -1).permute(2, 0, 3, 1, 4)
        )
        rows = attention(q, k, range(q.shape[2]))
        received = net.split(
            rows.mean((1, 2))[..., None], layer
        )  # (B, N, 1): mean over heads and queries
        mass, sink = received.patches[..., 0].max(1)
        by_head = rows.mean(2).transpose(1, 2)  # (B, N, H)
        row[f"layer{layer + 1}/attention_of_a_head"] = float(
            net.split(by_head, layer).patches.amax(1).mean(0).max()
        )
        row[f"layer{layer + 1}/attention_on_a_patch"] = float(mass.mean())
        row[f"layer{layer + 1}/sink_redundant"] = float(
            probe.redundant.gather(1, sink[:, None]).float().mean()
        )
        row[f"layer{layer + 1}/sink_over_median"] = float(
            before.gather(1, sink[:, None]).mean() / before.median()
        )
        before = norms
        top = norms >= norms.flatten().kthvalue(int(0.99 * norms.numel())).values
        row[f"layer{layer + 1}/top_percent_redundant"] = float(probe.redundant[top].float().mean())
        if received.cls is not None:
            row[f"layer{layer + 1}/attention_on_cls"] = float(received.cls.mean())
        if net.registers:
            row[f"layer{layer + 1}/attention_on_registers"] = float(
                received.registers.sum((1, 2)).mean()
            )
    row["redundant"] = float(probe.redundant.float().mean())
    return row
