"""Table 3: unsupervised object discovery without and with registers: corloc of LOST and of two
baselines (paper, section 3.3)."""

import pandas as pd

from registers.figures import selection
from registers.figures.paint import style
from registers.tables import changes, typeset

PROCEDURES = {  # metric: how the boxes are found
    "corloc": "LOST, as published",
    "corloc_tuned": "LOST, tuned",
    "corloc_dino_seg": "DINO-seg, best head",
    "corloc_largest_box": "largest box, best head",
}
PRINTED = ("corloc", "corloc_tuned")  # the paper's are LOST's, with a bias that is not published
IN_PAPER = "LOST, in the paper"  # on its data sets that this run does not have


def table(discovery: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, procedure and model, in per cent: corloc (ours), its 95 % interval, n,
    chance (the box is the image), and the paper's number on the same set.

    Several seeds: mean, standard deviation (std), and the span of their intervals. The paper's
    numbers on other sets have rows of their own.
    """
    cells = reference[reference["artifact"] == "table3"].set_index(["column", "row"])["value"]
    rows = []
    for (data, metric), part in _known(discovery).groupby(["data", "metric"], sort=False):
        for method, of_method in selection.by_method(part).items():
            for registers, model in of_method.groupby("registers"):
                label = changes.label(method, registers, model)
                row = {"data": data, "procedure": PROCEDURES[metric], "model": label}
                row |= {"registers": int(registers), **_numbers(model)}
                row["paper"] = cells.get((data, label)) if metric in PRINTED else None
                rows.append(row | {"settings": "; by seed: ".join(dict.fromkeys(model["note"]))})
    ours = {(row["data"], row["model"]) for row in rows}
    models = {model for _, model in ours}
    for (data, model), value in cells.items():
        if (data, model) not in ours and model in models:
            row = {"data": data, "procedure": IN_PAPER, "model": model, "paper": value}
            rows.append(row)
    return pd.DataFrame(rows)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per model; columns: LOST on each of our data sets, and the paper's other sets."""
    lost = rows[rows["procedure"].str.startswith("LOST")]
    ours = lost[lost["procedure"] != IN_PAPER]
    ours = ours.assign(column=ours["procedure"] + " (%)\n" + ours["data"])
    table = typeset.grid(ours, "model", "column")
    others = lost[lost["procedure"] == IN_PAPER]
    if others.empty:
        return table
    head = f"the paper (%)\n{' · '.join(dict.fromkeys(others['data']))}"
    by_model = others.groupby("model")["paper"]
    texts = by_model.agg(lambda values: " · ".join(f"{value:.1f}" for value in values))
    return table.assign(**{head: table["model"].map(texts).fillna(typeset.DASH)})


def caption(discovery: pd.DataFrame, reference: pd.DataFrame) -> str:
    rows = table(discovery, reference)
    lost = rows[rows["procedure"].str.startswith("LOST") & (rows["procedure"] != IN_PAPER)]
    findings = []
    for (data, procedure), part in lost.groupby(["data", "procedure"], sort=False):
        metric = next(metric for metric, name in PROCEDURES.items() if name == procedure)
        of_set = discovery[(discovery["data"] == data) & (discovery["metric"] == metric)]
        texts = changes.changes(part, changes.points, changes.by_seed(of_set))
        if texts:
            about = f"by {procedure} on {data} (n = {int(part['n'].min())})"
            findings.append((f"{about}, by", texts))
    if not findings:
        return changes.ONE_COUNT
    return f"With registers corloc changes, {style.remarked(findings)}."


def _numbers(rows: pd.DataFrame) -> dict[str, float | int]:
    """seeds; ours, std, low, high and chance in per cent; n."""
    shares = {
        "ours": rows["value"].mean(),
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
