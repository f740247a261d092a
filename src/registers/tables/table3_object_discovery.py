"""Table 3: unsupervised object discovery without and with registers: corloc of LOST and of two
baselines (paper, section 3.3)."""

import pandas as pd

from registers.figures import selection
from registers.figures.paint import style
from registers.tables import changes

PROCEDURES = {  # metric: how the boxes are found
    "corloc": "LOST, as published",
    "corloc_tuned": "LOST, tuned",
    "corloc_dino_seg": "DINO-seg, best head",
    "corloc_largest_box": "largest box, best head",
}
PRINTED = ("corloc", "corloc_tuned")  # the paper's are LOST's, with a bias that is not published


def table(discovery: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, procedure and model, in per cent: corloc, its 95 % interval, n, chance
    (the box is the image), and the paper's number on each of its sets.

    Several seeds: mean, standard deviation (std), and the span of their intervals.
    """
    cells = reference[reference["artifact"] == "table3"]
    printed = cells.pivot(index="row", columns="column", values="value")
    columns = list(dict.fromkeys(cells["column"]))
    rows = []
    for (data, metric), part in _known(discovery).groupby(["data", "metric"], sort=False):
        for method, of_method in selection.by_method(part).items():
            for registers, model in of_method.groupby("registers"):
                label = changes.label(method, registers)
                row = {"data": data, "procedure": PROCEDURES[metric], "model": label}
                row |= {"registers": int(registers), **_numbers(model)}
                for column in columns:
                    # a set of the paper's stands beside the same set, any other beside all three
                    beside = metric in PRINTED and (data == column or data not in columns)
                    row[f"paper {column}"] = printed[column].get(label) if beside else None
                rows.append(row | {"settings": "; by seed: ".join(dict.fromkeys(model["note"]))})
    return pd.DataFrame(rows)


def caption(discovery: pd.DataFrame, reference: pd.DataFrame) -> str:
    rows = table(discovery, reference)
    lost = rows[rows["procedure"].str.startswith("LOST")]
    findings = []
    for (data, procedure), part in lost.groupby(["data", "procedure"], sort=False):
        metric = next(metric for metric, name in PROCEDURES.items() if name == procedure)
        of_set = discovery[(discovery["data"] == data) & (discovery["metric"] == metric)]
        texts = changes.changes(part, "corloc", changes.points, changes.by_seed(of_set))
        if texts:
            about = f"{procedure} on {data} (n = {part['n'].min()})"
            findings.append(f"{about}, {style.listing(texts)}")
    if not findings:
        return changes.ONE_COUNT
    return f"With registers corloc changes by: {'; '.join(findings)}."


def _numbers(rows: pd.DataFrame) -> dict[str, float | int]:
    """seeds; corloc, std, low, high and chance in per cent; n."""
    shares = {
        "corloc": rows["value"].mean(),
        "std": rows["value"].std(),
        "low": rows["low"].min(),
        "high": rows["high"].max(),
        "chance": rows["chance"].mean(),
    }
    percent = {name: round(100 * share, 1) for name, share in shares.items()}
    return {"seeds": rows["seed"].nunique(), **percent, "n": int(rows["n"].min())}


def _known(discovery: pd.DataFrame) -> pd.DataFrame:
    """Rows with a value: data sets as they come, procedures in the table's order."""
    known = discovery[discovery["metric"].isin(list(PROCEDURES))].dropna(subset=["value"])
    data = list(dict.fromkeys(known["data"]))
    ranks = {"data": data.index, "metric": list(PROCEDURES).index}
    return known.sort_values(
        ["data", "metric"], key=lambda column: column.map(ranks[column.name]), kind="stable"
    )
