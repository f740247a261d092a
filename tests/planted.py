"""Measurements with a planted truth, as the questions write them.

The numbers are made up here; `frame` reads them back from real CSV files. Arrays for pictures are
in planted_arrays.py.
"""

import numpy as np
import pandas as pd

from registers import measurements
from registers.measurements import Measurement
from registers.settings.backbone_id import BackboneId
from registers.vocabulary import BINS_PER_DECADE, NORMAL, OUTLIER, TAIL

DATA = "planted val"
NO_MODE = "no second mode: planted"
QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)


def _within(value, half) -> dict:
    """A value and its interval."""
    return dict(value=value, low=value - half, high=value + half)


def _run(question, backbone) -> str:
    return f"smoke/{question}/{backbone}"


def frame(tmp_path, *groups, size="base") -> pd.DataFrame:
    """Rows as a figure gets them: written, read, and the default size named."""
    files = []
    for i, rows in enumerate(groups):
        files.append(tmp_path / f"{i}.csv")
        measurements.write(files[-1], [rows] if isinstance(rows, Measurement) else rows)
    read = measurements.read(files)
    sizes = zip(read["size"], read["backbone"])
    read["size"] = [(named or size) if backbone else "" for named, backbone in sizes]
    return read


def by_question(rows: pd.DataFrame, *questions: str) -> dict[str, pd.DataFrame]:
    """The rows of each question, as arguments of a figure or table."""
    return {question: rows[rows["question"] == question] for question in questions}


# --- norms


def norms(
    backbone,
    median=20.0,
    outliers=0.0,
    ratio=8.0,
    layers=4,
    registers=0,
    images=50,
    run="smoke/norms/x",
    seed=0,
):
    """Rows of question "norms" for one backbone.

    Norms are log-normal; a share `outliers` of them sits at `ratio` times the median.
    """
    rng = np.random.default_rng(seed)
    common = dict(question="norms", backbone=backbone, data=DATA, run=run)
    tokens = {"patch": images * 64, "cls": images} | {f"reg{r}": images for r in range(registers)}
    rows = []
    for layer in range(1, layers + 1):
        for kind, n in tokens.items():
            if kind != "patch" and layer < layers:
                continue
            values = median * layer / layers * np.exp(0.15 * rng.standard_normal(n))
            if kind == "patch" and layer > layers / 2:
                high = round(outliers * n)
                values[:high] = median * ratio * np.exp(0.05 * rng.standard_normal(high))
            elif kind.startswith("reg"):
                values *= 3 + int(kind[3:])
            rows += _distribution(values, dict(token=kind, layer=layer, n=n) | common)
            if kind == "patch":
                largest = float(values.max() / np.median(values))
    return rows + _second_mode(
        outliers,
        median * ratio / 2,
        ratio,
        largest,
        dict(token="patch", layer=layers, n=images) | common,
    )


def _distribution(values, common):
    bins, counts = np.unique(np.floor(np.log10(values) * BINS_PER_DECADE), return_counts=True)
    middles = 10 ** ((bins + 0.5) / BINS_PER_DECADE)
    rows = [
        Measurement(metric="count", value=int(count), coordinate="norm", at=float(at), **common)
        for at, count in zip(middles, counts)
    ]
    for q in QUANTILES:
        rows.append(Measurement(metric=f"q{q}", value=float(np.percentile(values, q)), **common))
    return rows


def _second_mode(share, cutoff, level, largest, common):
    rows = [Measurement(metric="second_mode", value=int(share > 0), note="planted", **common)]
    if share:
        interval = dict(low=share * 0.8, high=share * 1.2)
        rows.append(Measurement(metric="cutoff", value=cutoff, note="valley", **common))
        rows.append(Measurement(metric="share", value=share, **interval, **common))
        rows.append(Measurement(metric="outlier_level", **_within(level, 0.5), **common))
    else:
        for metric in ("cutoff", "share", "outlier_level"):
            rows.append(Measurement(metric=metric, value=None, note=NO_MODE, **common))
    interval = dict(low=largest * 0.9, high=largest)
    return [*rows, Measurement(metric="max_over_median", value=largest, **interval, **common)]


def positions(backbone, outliers=True, side=8, images=100, stripes=False):
    """Rows of question "by_position".

    Border positions have outliers at 10 %, others at 2 % (with stripes: even columns 20 %, odd ones
    none). Attention is even, but for the central patch's to itself.
    """
    registers = BackboneId.parse(backbone).registers
    share = np.full((side, side), 0.02)
    share[[0, -1]] = share[:, [0, -1]] = 0.1
    if stripes:
        share[:, ::2] = 0.2
        share[:, 1::2] = 0.0
    question = "by_position"
    common = dict(question=question, backbone=backbone, data=DATA, run=_run(question, backbone))
    common |= dict(layer=4, n=images)

    def grid(metric, values, token="patch"):
        where = dict(token=token, coordinate="patch", **common)
        return [
            Measurement(metric=metric, value=float(value), at=at, **where)
            for at, value in enumerate(values)
        ]

    cutoff = 150.0 if outliers else None
    about = {"second_mode": int(outliers), "cutoff": cutoff, "tail": 90.0}
    rows = [
        Measurement(metric=metric, value=value, token="patch", note="planted", **common)
        for metric, value in about.items()
    ]
    rows += grid("share_tail", share.ravel())
    level = 7.8 if stripes else 1.0
    rows.append(Measurement(metric="stripes_tail", value=level, token="patch", **common))
    if outliers:
        rows.append(Measurement(metric="stripes", value=level, token="patch", **common))
        rows += grid("share_above", share.ravel())
    for token in ["cls", *(f"reg{r}" for r in range(registers)), "patch"]:
        attention = np.full(side**2, 0.01)
        if token == "patch":
            attention[side**2 // 2 + side // 2] = 1.0
        rows += grid("attention", attention, token)
    return rows


# --- probes by kind of token


def token_class(
    backbone,
    outlier=None,
    normal=0.2,
    cls=0.8,
    registers=0,
    register=0.7,
    tail=0.4,
    sets=("class", "fine", "colour"),
    half=0.05,
):
    """Rows of question "token_class".

    The planted accuracy holds for the first label set; each further one has a point more.
    """
    question = "token_class"
    accuracies = {"cls": cls, **{f"reg{r}": register for r in range(registers)}}
    accuracies |= {NORMAL: normal, OUTLIER: outlier, TAIL: tail}
    rows = []
    for token, value in accuracies.items():
        common = dict(
            question=question, backbone=backbone, token=token, run=_run(question, backbone)
        )
        if value is None:
            common |= dict(value=None, note=NO_MODE)
            rows += [Measurement(metric="top1", data=data, **common) for data in sets]
            rows += [Measurement(metric=metric, **common) for metric in ("top1_mean", "top1_main")]
            continue
        values = [value + i / 100 for i in range(len(sets))]
        common |= dict(n=64)
        for data, accuracy_of_set in zip(sets, values):
            cells = _within(accuracy_of_set, half) | dict(data=data, chance=0.1)
            rows.append(Measurement(metric="top1", **cells, **common))
            if token in (NORMAL, OUTLIER, TAIL):
                rows.append(Measurement(metric="top1_std", value=0.013, data=data, **common))
        cells = _within(float(np.mean(values)), half / 2)
        for metric in ("top1_mean", "top1_main"):
            rows.append(Measurement(metric=metric, chance=0.1, **cells, **common))
    return rows


def local(backbone, normal=(0.6, 0.5, 4.0), outlier=None, tail=(0.5, 0.9, 4.5), half=0.02):
    """Rows of questions "position" and "reconstruction": (top1, distance, l2) of each kind.

    outlier: None where there is no such token.
    """
    metrics = [
        ("position", "top1", 1 / 64),
        ("position", "distance", 4.1),
        ("reconstruction", "l2", 6.9),
    ]
    rows = []
    for i, (question, metric, chance) in enumerate(metrics):
        values = {NORMAL: normal[i], OUTLIER: outlier and outlier[i], TAIL: tail[i]}
        rows += _by_kind(question, metric, backbone, values, half, chance)
    return rows


def neighbours(backbone, normal=0.65, outlier=None, tail=0.75, half=0.02):
    """Rows of question "neighbours": means, and densities of one bin that holds the mean."""
    values = {NORMAL: normal, OUTLIER: outlier, TAIL: tail}
    rows = _by_kind("neighbours", "mean", backbone, values, half, 0.1)
    centres = np.round(np.arange(-0.975, 1, 0.05), 6)
    for token, value in values.items():
        if value is None:
            continue
        common = dict(question="neighbours", metric="density", backbone=backbone, token=token)
        nearest = np.abs(centres - value).argmin()
        for number, at in enumerate(centres):
            height = 20.0 if number == nearest else 0.0
            rows.append(
                Measurement(value=height, coordinate="cosine", at=float(at), n=500, **common)
            )
    return rows


def _by_kind(question, metric, backbone, values, half, chance):
    rows = []
    for token, value in values.items():
        common = dict(question=question, metric=metric, backbone=backbone, token=token)
        common |= dict(run=_run(question, backbone))
        if value is None:
            rows.append(Measurement(value=None, note=NO_MODE, **common))
        else:
            rows.append(Measurement(**_within(value, half), n=500, chance=chance, **common))
    return rows


# --- evaluations


def accuracy(question, backbone, value, n=1000, half=0.02, chance=0.1, metric="top1"):
    return Measurement(
        question=question,
        metric=metric,
        backbone=backbone,
        **_within(value, half),
        data=DATA,
        token="cls",
        n=n,
        chance=chance,
        run=_run(question, backbone),
    )


def discovery(backbone, corloc, tuned, n=200, half=0.03, data=DATA):
    """Rows of question "discovery"."""
    values = {
        "corloc": corloc,
        "corloc_tuned": tuned,
        "corloc_dino_seg": 0.2,
        "corloc_largest_box": 0.15,
        "corloc_choice": 0.9,
    }
    common = dict(question="discovery", backbone=backbone, data=data, n=n, chance=0.1, variant="k")
    common |= dict(run=_run("discovery", backbone))
    return [
        Measurement(metric=metric, **_within(value, half), note=f"planted {metric}", **common)
        for metric, value in values.items()
    ]


def dense(backbone, miou, rmse, n=100):
    """Rows of question "segmentation" and of question "depth"."""

    def row(question, metric, value, chance):
        return Measurement(
            question=question,
            metric=metric,
            backbone=backbone,
            **_within(value, 0.01),
            data=DATA,
            n=n,
            chance=chance,
            run=_run(question, backbone),
        )

    depth = {"rmse": rmse, "rmse_mean_image": rmse - 0.1}
    return (
        [row("segmentation", "miou", miou, 0.07)],
        [row("depth", metric, value, 2.0) for metric, value in depth.items()],
    )


# --- exact answers


def cost(models=("ViT-L/14@224", "ViT-B/16@224", "base/4@32"), slope=0.004):
    """A model's FLOPs grow by `slope`, its parameters by a thousandth of that, per register."""
    rows = []
    for i, model in enumerate(models):
        per_register = slope * (1 + i)
        for r in (0, 1, 2, 4, 8, 16):
            common = dict(question="cost", backbone="", data=model, run="smoke/cost/exact")
            common |= dict(coordinate="registers", at=r)
            for metric, plain, each in (
                ("macs", 1e9, per_register),
                ("params", 1e6, per_register / 1000),
            ):
                rows.append(Measurement(metric=metric, value=plain * (1 + each * r), **common))
                rows.append(Measurement(metric=f"{metric}_increase", value=each * r, **common))
    return rows


def interpolation(source=16):
    """Rows of question "interpolation": stripes, almost gone with antialiasing."""
    common = dict(question="interpolation", metric="gradient", backbone="")
    common |= dict(coordinate="position", run="smoke/interpolation/exact")
    rows = []
    for mode, depth in (("offset", 0.9), ("size", 1.0), ("size+aa", 0.1)):
        profile = 0.4 + 0.4 * depth * np.cos(np.pi * np.arange(source))
        rows += [
            Measurement(value=float(value), variant=mode, at=at, **common)
            for at, value in enumerate(np.outer(profile, profile).ravel())
        ]
        uneven = common | dict(metric="unevenness", coordinate="", variant=mode)
        for data in ("16 to 7", "dinov2: 8 to 4"):
            rows.append(Measurement(value=2 * depth, data=data, **uneven))
    return rows
