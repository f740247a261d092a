"""One row for every run of the study: results.csv. Reads files only; no torch.

Rows of runs whose files are not at hand, as in a fresh clone, are kept as they were committed.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from registers.study.regime import CARRIERS, CONDITIONS, WORLDS, Regime, TokenRegime
from registers.study.sweep import Sweep

RUN_COLUMNS = ("variant", "registers", "seed", "status", "steps", "seconds")
ANSWERS = (
    *("own", "right", "read", "by_symbol", "by_place"),
    *("own_levelled", "right_levelled", "own_table", "right_table"),
)
CONTENTS = tuple(f"redundant_{part}" for part in ("constant", "of_scene", "own", "by_label"))
ACCURACIES = ("accuracy", "local", "triggered", "masked", "texture")
DIVISION = tuple(f"{when}/{who}" for when in ("first", "last") for who in CARRIERS)
EXCHANGE = (
    *(f"hidden_cls/{what}" for what in ("redundant", "last", "other")),
    *(f"hidden_cls/{what}" for what in ("marked", "but_redundant", "patches")),
    *(
        f"exchanged{which}/{what}"
        for which in ("", "_last", "_other", "_registers")
        for what in ("own", "donor", "labels")
    ),
)
KINDS = ("normal", "outlier", "tail", "redundant", "other")
ASKED_OF_KINDS = ("redundant", "neighbours", "class", "position/top1", "reconstruction/l2")
SIGHTS = ("all", "redundant", "other")
WORDS = ("run", "hypothesis", "variant", "status", "why")
SURELY = 0.9  # a sink is redundant where the most attended patch is so in this share of scenes
# settings that mean nothing without registers
OF_REGISTERS = ("regime.patches_see_registers", "regime.register_gain")
EARLY = 300  # step at which is told who keeps the label; sinks come later


def load(runs: Path, sweep: Sweep, committed: Path | None = None) -> pd.DataFrame:
    """One row a run, from runs/*/run.json and, where that is missing, from `committed`.

    Settings, how it ended, its numbers, conditions 1 to 4 (the fourth where there are registers).

    "start_ratio", "ratio": largest over median patch norm after the last block, before the first
    and after the last step; "any_layer": the largest of any layer. "redundant_over_others": median
    norm of redundant patches over that of the others after the last block, "most_over_others" the
    largest of any layer, "embedding_over_others" that of their embeddings before any block. "sink":
    the largest mean share of attention that one patch takes, over layers; "redundant_sink": the
    same over layers where the most attended patch is redundant in over 90 % of scenes,
    "redundant_sink_norm": its norm over the median. "head_on_...": what the one head that gives
    most gives to all redundant patches or registers. "pool_on_...": weight of the pooled query
    there. "redundant_constant" and the three after it: see `signs.contents`; "answers/...":
    `lookup`. "early/...": signs at step EARLY; "half/...": halfway; "peak/...": the largest of any
    look in training and the end. "core_seconds": processor time, that of the examination included.
    """
    rows = [_row(file, sweep) for file in sorted(runs.glob("*/run.json"))]
    frame = _beside(pd.DataFrame(rows), committed)
    for place, row in enumerate(rows):
        frame.loc[place, CONDITIONS[3]] = _taken_over(frame, row, CONDITIONS[:3], "normal")
        frame.loc[place, "store_taken_over"] = _taken_over(frame, row, ("stored",), "redundant")
    frame = frame.drop(columns="intervals", errors="ignore")
    frame["hypothesis"] = [
        sweep.variants[v].hypothesis if v in sweep.variants else "" for v in frame.variant
    ]
    return _typed(frame).sort_values("run", ignore_index=True)


def _beside(frame: pd.DataFrame, committed: Path | None) -> pd.DataFrame:
    """The rows at hand, and after them the committed ones of other runs. Settings that are newer
    than a committed row are as they are by default."""
    if committed is None or not committed.is_file():
        return frame
    names = pd.read_csv(committed, nrows=0).columns
    texts = {name: str for name in names if name.startswith("regime.")}
    earlier = pd.read_csv(committed, low_memory=False, dtype=texts)
    if frame.empty:
        return earlier
    kept = earlier[~earlier.run.isin(set(frame.run))].astype(object)
    every = pd.concat([frame, kept], ignore_index=True)
    for world, (kind, _) in WORLDS.items():
        mine = every["regime.world"] == world
        for name, value in kind().model_dump(mode="json").items():
            column = f"regime.{name}"
            if column in every:
                every.loc[mine & every[column].isna(), column] = str(value)
    return every


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns as a freshly read results.csv has them, truths as True, False and None."""
    truths = (*CONDITIONS, "stored", "store_taken_over")
    frame = frame.copy()
    for name in frame.columns:
        if name in truths:
            frame[name] = [_truth(value) for value in frame[name]]
        elif not name.startswith("regime.") and name not in WORDS:
            frame[name] = pd.to_numeric(frame[name])
    return frame


def _truth(value: object) -> bool | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value if isinstance(value, bool) else str(value) == "True"


def _row(file: Path, sweep: Sweep) -> dict:
    """All columns of one run but those that need another run."""
    run = json.loads(file.read_text())
    history = pd.read_csv(file.with_name("history.csv"))
    numbers = run.get("numbers", {})
    signs = run.get("signs", {})
    last = f"layer{run['regime']['depth']}"
    row = {"run": file.parent.name, "hypothesis": "", **{k: run[k] for k in RUN_COLUMNS}}
    row |= {name: signs.get(name) for name in ACCURACIES}
    if not run["regime"].get("image_loss", run["regime"].get("label")):
        row["accuracy"] = None  # the label's head was never trained
    row |= {
        "start_ratio": history[f"{last}/max_over_median"].iloc[0],
        "ratio": numbers.get(f"{last}/max_over_median"),
        "any_layer": _largest(numbers, "/max_over_median"),
        "redundant_over_others": numbers.get(f"{last}/redundant_over_others"),
        "most_over_others": _largest(numbers, "/redundant_over_others"),
        "embedding_over_others": numbers.get("redundant_over_others/embedding"),
    }
    row |= {k: signs.get(f"{last}/{k}") for k in ("kurtosis", "share_above_3x_median")}
    row |= _sinks(signs, last)
    row |= {name: signs.get(name) for name in CONTENTS}
    row |= {f"answers/{name}": signs.get(f"answers/{name}") for name in ANSWERS}
    row |= {f"early/{name}": value for name, value in _early(history).items()}
    row |= _course(history, f"{last}/redundant_over_others", run["steps"], numbers)
    row["core_seconds"] = run.get("core_seconds")
    row |= {k: numbers.get(k) for k in ("cutoff", "share", "redundant/all", "class/chance")}
    row["class/cls"] = numbers.get("class/cls")
    for asked in ASKED_OF_KINDS:
        row |= {f"{asked}/{kind}": numbers.get(f"{asked}/{kind}") for kind in KINDS}
    for sight in SIGHTS:
        # without others there is nothing that could be hidden in place of redundant patches
        known = sight != "other" or "class/other" in numbers
        for hidden in ("hidden", "hidden_local", "unread"):
            row[f"{hidden}/{sight}"] = numbers.get(f"{hidden}/{sight}") if known else None
    row |= _layers(numbers)
    row |= {k: numbers.get(k) for k in ("objects/outlier", "second_mode_of_redundant")}
    row["scenes"] = run["steps"] * run["regime"]["batch"]
    row |= {f"labels/{name}": numbers.get(f"labels/{name}") for name in DIVISION}
    row |= {name: numbers.get(name) for name in EXCHANGE}
    row["class/register"] = _largest(numbers, "", start="class/reg")
    row |= {c: run.get("conditions", {}).get(c) for c in (*CONDITIONS[:3], "stored")}
    row |= {CONDITIONS[3]: None, "store_taken_over": None}
    row["intervals"] = run.get("intervals", {})
    row["why"] = run.get("notes", {}).get("second_mode", "the loss was no number")
    kind = TokenRegime if run["regime"].get("world") == "tokens" else Regime
    settings = kind().model_dump(mode="json") | run["regime"]
    return row | {f"regime.{name}": str(value) for name, value in settings.items()}


def _largest(values: dict, end: str, start: str = "") -> float | None:
    found = (v for k, v in values.items() if k.startswith(start) and k.endswith(end))
    return max((v for v in found if v is not None), default=None)


def _early(history: pd.DataFrame) -> dict:
    """Signs at step EARLY, None where a run has none."""
    names = ("accuracy", "triggered", "pool_on_redundant", "pool_on_registers")
    rows = history[history.step == EARLY].to_dict("records")
    signs = rows[0] if rows else {}
    early = {name: signs.get(name) for name in names}
    return early | {"head_on_redundant": _largest(signs, "head_on_redundant")}


def _course(history: pd.DataFrame, sign: str, steps: int, numbers: dict) -> dict:
    """A sign halfway through a training, and the largest that it had at any look or at the end,
    where it is measured on other scenes."""
    if sign not in history:
        return {}
    name = sign.split("/")[1]
    half = history[sign][history.step == steps // 2]
    halfway = half.iloc[0] if len(half) else None
    most = max(history[sign].max(), numbers.get(sign) or 0.0)
    return {f"half/{name}": halfway, f"peak/{name}": most}


def _sinks(signs: dict, last: str) -> dict:
    """Attention on single tokens, the largest of any layer; [CLS]'s in the last."""
    redundant = [k for k, v in signs.items() if k.endswith("/sink_redundant") and v > SURELY]
    layers = [k.split("/")[0] for k in redundant]
    best = max(layers, key=lambda name: signs[f"{name}/attention_on_a_patch"], default=None)
    return {
        "sink": _largest(signs, "attention_on_a_patch"),
        "redundant_sink": signs[f"{best}/attention_on_a_patch"] if best else None,
        "redundant_sink_norm": signs[f"{best}/sink_over_median"] if best else None,
        "attention_on_registers": _largest(signs, "attention_on_registers"),
        "head_on_redundant": _largest(signs, "head_on_redundant"),
        "head_on_registers": _largest(signs, "head_on_registers"),
        "cls_on_redundant": signs.get(f"{last}/cls_on_redundant"),
        "cls_on_registers": signs.get(f"{last}/cls_on_registers"),
        "pool_on_redundant": signs.get("pool_on_redundant"),
        "pool_on_registers": signs.get("pool_on_registers"),
        "pool_on_marked": signs.get("pool_on_marked"),
    }


def _layers(numbers: dict) -> dict:
    """Second modes of any layer, and where they sit."""
    ends = "/second_mode"
    modes = [k for k, v in numbers.items() if k.startswith("layer") and k.endswith(ends) and v]
    names = [k.removesuffix(ends) for k in modes]
    shares = [numbers.get(f"{name}/redundant_outlier") for name in names]
    return {
        "layers_with_second_mode": len(names),
        "most_redundant_layer": max((s for s in shares if s is not None), default=None),
    }


def _taken_over(frame: pd.DataFrame, row: dict, before: tuple[str, ...], patch: str) -> bool | None:
    """Did registers take over? Asked of a run with registers, against the same regime and seed
    without. None where either is missing.

    before: what must hold without registers and (its first) no longer hold with them. A register
    must surely (95 % intervals that do not touch) tell the label better than one patch of the kind
    `patch`.
    """
    if not row["registers"] or row["status"] == "diverged":
        return None
    settings = [name for name in frame.columns if name.startswith("regime.")]
    settings = [name for name in settings if name not in OF_REGISTERS]
    same = (frame.seed == row["seed"]) & (frame.registers == 0)
    for name in settings:
        same &= (frame[name] == row.get(name)) | (frame[name].isna() & pd.isna(row.get(name)))
    others = frame[same]
    if others.empty:
        return None
    partner = others.iloc[0]
    intervals = row["intervals"]
    names = [f"class/reg{number}" for number in range(row["registers"])]
    lows = [intervals[name][0] for name in names if name in intervals]
    better = f"class/{patch}" in intervals and max(lows, default=0) > intervals[f"class/{patch}"][1]
    held = all(_truth(partner[c]) for c in before)
    return held and not row[before[0]] and better
