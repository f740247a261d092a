"""Table 2: downstream performance without and with registers: linear evaluation of frozen features (a), zero-shot classification (b)."""

import pandas as pd

from registers.figures.paint import style

# measure: (part, metric, factor, the paper's column, whether higher is better); the paper's data are ImageNet, ADE20k and NYUd
MEASURES = {
    "linear top-1": ("a", "top1", 100, "ImageNet top-1", True),
    "segmentation mIoU": ("a", "miou", 100, "ADE20k mIoU", True),
    "depth rmse": ("a", "rmse", 1, "NYUd rmse", False),
    "depth rmse, mean of images": (
        "a",
        "rmse_mean_image",
        1,
        "NYUd rmse",
        False,
    ),  # the paper does not say which of the two it prints
    "zero-shot top-1": ("b", "top1", 100, "ImageNet top-1", True),
}


def table(
    linear: pd.DataFrame,
    zeroshot: pd.DataFrame,
    reference: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row per part, task and model: ours with its 95 % interval, n, chance, data set; the paper's value. Top-1 and mIoU in per cent,
    rmse in the data's unit (metres for NYUd).

    Several seeds: mean, standard deviation (std), and the span of their intervals. `note` says why a cell is empty.
    """
    printed = reference[reference["artifact"] == "table2"].set_index(["part", "row", "column"])[
        "value"
    ]
    given = dict(zip(MEASURES, (linear, segmentation, depth, depth, zeroshot)))
    rows = []
    for task, frame in given.items():
        if frame is None:
            continue
        part, metric, factor, column, _ = MEASURES[task]
        frame = frame[frame["metric"] == metric]
        counts = sorted({int(r) for r in frame["registers"]})
        for method in style.in_order(frame["method"]):
            for registers in counts:
                found = frame[(frame["method"] == method) & (frame["registers"] == registers)]
                label = style.name(method) + ("+reg" if registers else "")
                row = {
                    "part": part,
                    "task": task,
                    "model": label,
                    "registers": registers,
                    "seeds": found["seed"].nunique(),
                }
                row |= _cells(found, factor) | {
                    "paper": printed.get((part, label, column)),
                    "note": _reason(found),
                }
                rows.append(row)
    return pd.DataFrame(rows)


def caption(
    linear: pd.DataFrame,
    zeroshot: pd.DataFrame,
    reference: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> str:
    rows, said = table(linear, zeroshot, reference, segmentation, depth), []
    for task in MEASURES:
        changes = []
        one = rows[rows["task"] == task].dropna(subset=["ours"])
        for _, pair in one.groupby(one["model"].str.removesuffix("+reg"), sort=False):
            if len(pair) > 1:
                before, after = pair.iloc[0], pair.iloc[-1]
                change = after["ours"] - before["ours"]
                apart = after["low"] > before["high"] or before["low"] > after["high"]
                size = f"{change:+.3f}" if MEASURES[task][2] == 1 else f"{change:+.1f} points"
                changes.append(
                    f"{size} for {before['model']} ({'beyond' if apart else 'within'} the intervals)"
                )
        if changes:
            lower = "" if MEASURES[task][4] else " (lower is better)"
            said.append(f"{task}{lower} changes by {style.listing(changes)}")
    return (
        f"With registers {'; '.join(said)}."
        if said
        else "Only one register count was run, so nothing is compared."
    )


def _cells(found: pd.DataFrame, factor: int) -> dict[str, float | int | str | None]:
    known = found.dropna(subset=["value"])
    if known.empty:
        return dict.fromkeys(("ours", "std", "low", "high", "n", "chance")) | {"data": ""}
    inside = {
        "ours": known["value"].mean(),
        "std": known.groupby("seed")["value"].mean().std(),
        "low": known["low"].min(),
    }
    inside |= {
        "high": known["high"].max(),
        "n": int(known["n"].min()),
        "chance": known["chance"].mean(),
    }
    cells = {
        key: value if key == "n" else round(factor * value, 2 if factor == 100 else 3)
        for key, value in inside.items()
    }
    return cells | {"data": ", ".join(dict.fromkeys(known["data"]))}


def _reason(found: pd.DataFrame) -> str:
    if found.empty:
        return "not trained in this run"
    return "" if found["value"].notna().any() else found["note"].iloc[0]
