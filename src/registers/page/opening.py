"""The first screen of the page: what was found, in two sentences, and what was trained on what."""

import json
from collections.abc import Iterable
from math import prod

import pandas as pd
from safetensors import SafetensorError

from registers import artifacts, inputs, published
from registers.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    Verdict,
)
from registers.figures.paint import style
from registers.registry import METHODS
from registers.settings import released
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

WORLD = "synthetic scenes of the built-in world"


# --- what was found -------------------------------------------------------------------------------


def conclusion(verdicts: list[Verdict], measured: pd.DataFrame) -> list[str]:
    """Two sentences: how many claims hold, and whether there are outliers to speak of.

    measured: rows of question "norms" of finished trainings, among others.
    """
    count = {name: sum(v.verdict == name for v in verdicts) for name in _VERBS}
    told = [f"{verb} {count[name]}" for name, verb in _VERBS.items() if count[name]]
    first = f"Of the paper's {len(verdicts)} claims this run {style.listing(told)}"
    seeds = measured.loc[measured["backbone"] != "", "seed"].nunique()
    if seeds == 1 and count[INCONCLUSIVE]:
        first += " (one seed decides nothing about training)"
    return [sentence for sentence in (f"{first}.", _outliers(measured)) if sentence]


_VERBS = {
    REPRODUCED: "reproduces",
    CONTRADICTED: "contradicts",
    INCONCLUSIVE: "leaves open",
    NOT_TESTABLE: "cannot test",
}


def _outliers(measured: pd.DataFrame) -> str:
    """Which models have high-norm outliers; "" where no norms were measured."""
    norms = measured[(measured["question"] == "norms") & (measured["percent"] == 100)]
    modes = norms[norms["metric"] == "second_mode"]
    affected = modes[modes["value"] == 1]
    if modes.empty:
        return ""
    if affected.empty:
        ratios = norms.loc[norms["metric"] == "max_over_median", "value"].dropna()
        ends = style.span(style.times(end) for end in (ratios.min(), ratios.max()))
        return (
            f"None of its {modes['backbone'].nunique()} models has high-norm outliers (the largest "
            f"patch norm is {ends} times the median), so nothing here can confirm or refute what "
            "the paper says of outliers. To see some in minutes, in a smaller ViT: make emergence."
        )
    without = _models(affected[affected["registers"] == 0], modes[modes["registers"] == 0])
    with_registers = _models(affected[affected["registers"] > 0], modes[modes["registers"] > 0])
    return (
        f"High-norm outliers appear without registers in {without} and with registers in "
        f"{with_registers}."
    )


def _models(affected: pd.DataFrame, of: pd.DataFrame) -> str:
    """Methods with outliers, and in how many of their seeds where it is not all of them."""
    names = []
    for method, rows in affected.groupby("method", sort=False):
        number = rows["seed"].nunique()
        seeds = of.loc[of["method"] == method, "seed"].nunique()
        some = f" ({number} of {seeds} seeds)" if number < seeds else ""
        names.append(style.name(method) + some)
    return style.listing(names) if names else "no model"


# --- what was trained -----------------------------------------------------------------------------


def trained(settings: Settings) -> list[tuple[str, str]]:
    """What was trained, on what and for how long: (name, value)."""
    ids = artifacts.trained(settings)
    if settings.models:
        return _fetched(settings, ids)
    methods = [style.name(method) for method in dict.fromkeys(id.method for id in ids)]
    counts = style.listing(str(count) for count in settings.registers)
    seeds = style.listing(str(seed) for seed in settings.seeds)
    size = _range([_parameters(settings, id) for id in ids], style.count)
    steps = _range([_steps(settings, id) for id in ids], lambda number: f"{number:,}")
    backbones = f"{len(ids)} vision transformers"
    if size:
        backbones += f" of {size} parameters"
    lengths = [f"{steps} steps each" if steps else "", _minutes(settings, ids)]
    return [
        ("Trained", f"{backbones} ({style.listing(methods)})"),
        ("With", f"{counts} registers; {'seed' if len(settings.seeds) == 1 else 'seeds'} {seeds}"),
        ("On", _data(settings, [METHODS[id.method].role for id in ids])),
        ("For", ", ".join(filter(None, lengths)) or "not recorded"),
    ]


def _fetched(settings: Settings, ids: list[BackboneId]) -> list[tuple[str, str]]:
    """Which published models were looked at, and what is missing for the rest: (name, value)."""
    models = [released.catalogue()[str(id)] for id in ids]
    size = _range([_parameters(settings, id) for id in ids], style.count)
    forbidding = [model.id for model in models if model.non_commercial]
    licences = style.listing(dict.fromkeys(model.licence for model in models))
    if forbidding:
        licences += f" (no commercial use of {style.listing(forbidding)})"
    reasons: dict[str, list[str]] = {}
    for artifact, reason in artifacts.absent(settings).items():
        number = artifact.replace("table", "Table ").replace("fig", "Fig. ").replace(" 0", " ")
        reasons.setdefault(reason, []).append(number)
    missing = [f"{style.listing(names)} ({reason})" for reason, names in reasons.items()]
    missing.append("Fig. 4b along training (no checkpoints on the way are published)")
    return [
        ("Trained", "nothing: these are published models, and every verdict is about them"),
        ("Models", f"{style.listing(map(str, ids))}; {size} parameters"),
        *_added(settings),
        ("Licences", licences),
        ("Not made", "; ".join(missing)),
    ]


def _added(settings: Settings) -> list[tuple[str, str]]:
    """What was done to models that were published without registers: (name, value)."""
    words = published.added_in_words(settings)
    return [("Test-time registers", f"{words}, without training")] if words else []


def _data(settings: Settings, roles: Iterable[str]) -> str:
    """The data sets of training: synthetic scenes, or their names, with how many images."""
    sets = {}
    for role in dict.fromkeys(roles):
        spec = getattr(settings.data, role)
        try:
            about = json.loads(settings.layout.manifest(role).read_text())["train"]
        except (OSError, ValueError, KeyError):
            about = {}
        sets[spec] = about.get("samples")
    side = settings.image_size
    texts = []
    for spec, number in sets.items():
        name = WORLD if spec == "world" else f"photos ({spec})"
        texts.append(f"{number:,} {name}" if number else name)
    return f"{style.listing(texts)}, {side} × {side} pixels"


def _parameters(settings: Settings, id: BackboneId) -> int | None:
    """Parameters of a backbone; None where its weights are not here."""
    try:
        return sum(map(prod, inputs.shapes_of(settings.layout.checkpoint(id)).values()))
    except (OSError, SafetensorError):
        return None


def _steps(settings: Settings, id: BackboneId) -> int | None:
    card = settings.layout.checkpoint(id).with_suffix(".json")
    try:
        return json.loads(card.read_text())["steps"]
    except (OSError, ValueError, KeyError):
        return None


def _minutes(settings: Settings, ids: Iterable[BackboneId]) -> str:
    """The time of all trainings together, as Snakemake measured it; "" where it did not."""
    seconds = 0.0
    for id in ids:
        try:
            jobs = pd.read_csv(settings.layout.benchmark("train", str(id)), sep="\t")
            seconds += float(jobs["s"].sum())
        except (OSError, ValueError, KeyError):
            continue
    if not seconds:
        return ""
    minutes = max(1, round(seconds / 60))
    time = style.plural(minutes, "minute") if minutes < 180 else f"{minutes / 60:.0f} hours"
    return f"{time} of training in all, on {device(settings)}"


def device(settings: Settings) -> str:
    """The device that the trainings recorded of themselves; without a record, the setting."""
    devices = set()
    for spool in (settings.layout.tracking / "train").glob("*.jsonl"):
        try:
            start = json.loads(spool.read_text().partition("\n")[0])
            devices.add(start["tags"]["device"])
        except (ValueError, TypeError, KeyError):  # a spool that a full disk has cut
            continue
    return ", ".join(sorted(devices)) or settings.device


def _range(numbers: Iterable[int | None], written) -> str:
    """0.05 to 1.1 million; "" where none is known."""
    known = [number for number in numbers if number is not None]
    return style.span(written(end) for end in (min(known), max(known))) if known else ""
