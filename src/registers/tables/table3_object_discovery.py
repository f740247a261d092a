"""Table 3: unsupervised object discovery without and with registers: corloc of LOST and of two baselines (paper, section 3.3)."""

import pandas as pd

from registers.figures.paint import style

PROCEDURES = {  # metric: what found the boxes
    "corloc": "LOST, as published",
    "corloc_tuned": "LOST, tuned",
    "corloc_dino_seg": "DINO-seg, best head",
    "corloc_largest_box": "largest box, best head",
}


def table(discovery: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, procedure and model, in per cent: corloc, its 95 % interval, n, chance (the box is the image), the paper's sets.

    The paper's numbers are LOST's with a bias that is not published. Several seeds: mean, standard deviation (std), and the span of
    their intervals.
    """
    printed = reference[reference["artifact"] == "table3"].pivot(
        index="row", columns="column", values="value"
    )
    columns = list(dict.fromkeys(reference.loc[reference["artifact"] == "table3", "column"]))
    rows = []
    for (data, metric), found in _known(discovery).groupby(["data", "metric"], sort=False):
        for method in style.in_order(found["method"]):
            for registers in sorted(found.loc[found["method"] == method, "registers"].unique()):
                one = found[(found["method"] == method) & (found["registers"] == registers)]
                label = style.name(method) + ("+reg" if registers else "")
                cells = {
                    "corloc": one["value"].mean(),
                    "std": one["value"].std(),
                    "low": one["low"].min(),
                    "high": one["high"].max(),
                }
                cells |= {"chance": one["chance"].mean()}
                row = {
                    "data": data,
                    "procedure": PROCEDURES[metric],
                    "model": label,
                    "registers": int(registers),
                }
                row |= {"seeds": one["seed"].nunique()}
                row |= {key: round(100 * value, 1) for key, value in cells.items()} | {
                    "n": int(one["n"].min())
                }
                for column in (
                    columns
                ):  # a set of the paper's stands beside the same set, any other beside all three
                    known = metric in ("corloc", "corloc_tuned") and (
                        data == column or data not in columns
                    )
                    row[f"paper {column}"] = printed[column].get(label) if known else None
                rows.append(row | {"settings": "; by seed: ".join(dict.fromkeys(one["note"]))})
    return pd.DataFrame(rows)


def caption(discovery: pd.DataFrame, reference: pd.DataFrame) -> str:
    said = []
    rows = table(discovery, reference)
    for (data, procedure), one in rows[rows["procedure"].str.startswith("LOST")].groupby(
        ["data", "procedure"], sort=False
    ):
        changes = []
        for _, pair in one.groupby(one["model"].str.removesuffix("+reg"), sort=False):
            if len(pair) > 1:
                before, after = pair.iloc[0], pair.iloc[-1]
                apart = after["low"] > before["high"] or before["low"] > after["high"]
                change = f"{after['corloc'] - before['corloc']:+.1f} points for {before['model']}"
                changes.append(f"{change} ({'beyond' if apart else 'within'} the intervals)")
        if changes:
            said.append(f"{procedure} on {data} (n = {one['n'].min()}), {style.listing(changes)}")
    return (
        f"With registers corloc changes by: {'; '.join(said)}."
        if said
        else "Only one register count was run, so nothing is compared."
    )


def _known(discovery: pd.DataFrame) -> pd.DataFrame:
    found = discovery[discovery["metric"].isin(list(PROCEDURES))].dropna(subset=["value"])
    order = found["metric"].map(list(PROCEDURES).index)
    sets = found["data"].map(list(dict.fromkeys(found["data"])).index)
    return (
        found.assign(_set=sets, _order=order)
        .sort_values(["_set", "_order"], kind="stable")
        .drop(columns=["_set", "_order"])
    )
