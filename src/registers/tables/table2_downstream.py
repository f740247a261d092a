"""Table 2: downstream performance without and with registers: linear (a, the ImageNet column) and zero-shot (b) classification."""

import pandas as pd

from registers.figures import panels

PARTS = {"a": "linear top-1", "b": "zero-shot top-1"}


def table(linear: pd.DataFrame, zeroshot: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """A row per part and model, in per cent: ours with its 95 % interval, n, chance, data set; the paper's ImageNet value.

    Several seeds: mean, and the span of their intervals. `note` says why a cell is empty.
    """
    printed = reference[(reference["artifact"] == "table2") & (reference["column"] == "ImageNet top-1")].set_index(["part", "row"])["value"]
    rows = []
    for part, frame in (("a", linear), ("b", zeroshot)):
        frame = frame[frame["metric"] == "top1"]
        counts = sorted({int(r) for r in frame["registers"]})
        for method in panels.in_order(frame["method"]):
            for registers in counts:
                found = frame[(frame["method"] == method) & (frame["registers"] == registers)]
                label = panels.name(method) + ("+reg" if registers else "")
                row = {"part": part, "task": PARTS[part], "model": label, "registers": registers, "seeds": found["seed"].nunique()}
                row |= _percent(found) | {"paper": printed.get((part, label)), "note": _reason(found)}
                rows.append(row)
    return pd.DataFrame(rows)


def caption(linear: pd.DataFrame, zeroshot: pd.DataFrame, reference: pd.DataFrame) -> str:
    rows = table(linear, zeroshot, reference)
    said = []
    for (part, _), pair in rows.dropna(subset=["ours"]).groupby(["part", rows["model"].str.removesuffix("+reg")], sort=False):
        if len(pair) > 1:
            before, after = pair.iloc[0], pair.iloc[-1]
            change = after["ours"] - before["ours"]
            apart = after["low"] > before["high"] or before["low"] > after["high"]
            kind = "zero-shot " if part == "b" else ""
            said.append(f"{change:+.1f} points {kind}for {before['model']} ({'beyond' if apart else 'within'} the intervals)")
    return (
        f"With registers top-1 changes by {panels.listing(said)}." if said else "Only one register count was run, so nothing is compared."
    )


def _percent(found: pd.DataFrame) -> dict[str, float | int | str | None]:
    known = found.dropna(subset=["value"])
    if known.empty:
        return {"ours": None, "low": None, "high": None, "n": None, "chance": None, "data": ""}
    inside = {"ours": known["value"].mean(), "low": known["low"].min(), "high": known["high"].max(), "chance": known["chance"].mean()}
    cells = {key: round(100 * value, 2) for key, value in inside.items()}
    return {"ours": cells["ours"], "low": cells["low"], "high": cells["high"], "n": int(known["n"].min())} | {
        "chance": cells["chance"],
        "data": known["data"].iloc[0],
    }


def _reason(found: pd.DataFrame) -> str:
    if found.empty:
        return "not trained in this run"
    return "" if found["value"].notna().any() else found["note"].iloc[0]
