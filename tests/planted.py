"""Measurements with a planted truth, in the shape that the stages write: made of numbers drawn here, read back from real CSV files."""

import numpy as np
import pandas as pd

from registers import measurements
from registers.measurements import Measurement

PER_DECADE = 40  # bins of registers.norms


def norms(backbone, median=20.0, outliers=0.0, ratio=8.0, layers=4, registers=0, images=50, run="smoke/norms/x", seed=0):
    """Rows of stage "norms" for one backbone: log-normal norms, of which a share `outliers` sits at `ratio` times the median."""
    rng = np.random.default_rng(seed)
    rows = []
    tokens = {"patch": images * 64, "cls": images} | {f"reg{r}": images for r in range(registers)}
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
            common = dict(question="norms", backbone=backbone, data="planted val", token=kind, layer=layer, n=n, run=run)
            bins, counts = np.unique(np.floor(np.log10(values) * PER_DECADE), return_counts=True)
            for b, c in zip(bins, counts):
                a, m, z = (10 ** ((b + part) / PER_DECADE) for part in (0, 0.5, 1))
                rows.append(Measurement(metric="count", value=int(c), x=m, low=a, high=z, **common))
            for q in (0, 5, 25, 50, 75, 95, 99, 100):
                rows.append(Measurement(metric=f"q{q}", value=float(np.percentile(values, q)), **common))
            if kind == "patch":
                largest = float(values.max() / np.median(values))
    common = dict(question="outliers", backbone=backbone, data="planted val", token="patch", layer=layers, n=images, run=run)
    rows.append(Measurement(metric="second_mode", value=int(outliers > 0), note="planted", **common))
    if outliers:
        rows.append(Measurement(metric="cutoff", value=median * ratio / 2, note="valley", **common))
        rows.append(Measurement(metric="share", value=outliers, low=outliers * 0.8, high=outliers * 1.2, **common))
    else:
        rows += [Measurement(metric=m, value=None, note="no second mode: planted", **common) for m in ("cutoff", "share")]
    rows.append(Measurement(metric="max_over_median", value=largest, low=largest * 0.9, high=largest, **common))
    return rows


def accuracy(question, backbone, value, n=1000, half=0.02, chance=0.1, metric="top1"):
    where = dict(data="planted val", token="cls", n=n, chance=chance, run=f"smoke/{question}/{backbone}")
    return Measurement(question, metric, backbone, value, low=value - half, high=value + half, **where)


def cost(models=("ViT-L/14@224", "ViT-B/16@224", "base/4@32"), slope=0.004):
    """A model's FLOPs grow by `slope`, its parameters by a thousandth of that, a register."""
    rows = []
    for i, model in enumerate(models):
        for r in (0, 1, 2, 4, 8, 16):
            for metric, plain, each in (("macs", 1e9, slope * (1 + i)), ("params", 1e6, slope * (1 + i) / 1000)):
                common = dict(question="cost", backbone="", data=model, x=r, run="smoke/cost/exact")
                rows += [Measurement(metric=metric, value=plain * (1 + each * r), **common)]
                rows += [Measurement(metric=f"{metric}_increase", value=each * r, **common)]
    return rows


def interpolation(source=16):
    rows = []
    for mode, depth in (("offset", 0.9), ("size", 1.0), ("size+aa", 0.1)):
        profile = 0.4 + 0.4 * depth * np.cos(np.pi * np.arange(source))
        values = enumerate(np.outer(profile, profile).ravel())
        rows += [
            Measurement("interpolation", "gradient", "", float(v), token=mode, x=i, run="smoke/interpolation/exact") for i, v in values
        ]
    return rows


def frame(tmp_path, *groups, size="base") -> pd.DataFrame:
    """The rows as the command line hands them to a figure: written, read, and the default size named."""
    files = []
    for i, rows in enumerate(groups):
        path = tmp_path / f"{i}.csv"
        measurements.write(path, [rows] if isinstance(rows, Measurement) else rows)
        files.append(path)
    found = measurements.read(files)
    found["size"] = [s or size if b else "" for s, b in zip(found["size"], found["backbone"])]
    return found
