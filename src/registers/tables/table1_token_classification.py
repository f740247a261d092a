"""Table 1: image classification from one single token: [CLS], normal patch, outlier patch (paper, section 2.1)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent with its 95 % interval: a row per model and kind of token, a column per label set, as the paper has it.

    Below stand the paper's own rows, headed by the names of its data sets, which are others than ours. mean: over all label sets.
    """
    sets = list(dict.fromkeys(d for d in tokens["data"] if d))
    rows = []
    for name, _, part in cells.models(tokens):
        for token, label in cells.TOKENS.items():
            one = part[part["token"] == token]
            mean = cells.cell(one[one["metric"] == "top1_mean"])
            found = [cells.cell(one[(one["metric"] == "top1") & (one["data"] == d)]) for d in sets]
            rows.append([name, label, mean.text, *(c.text for c in found), mean.note])
        cls = part[part["token"] == "cls"]
        chance = [
            cells.cell(cls[(cls["metric"] == "top1") & (cls["data"] == d)]).chance for d in sets
        ]
        mean = cells.cell(cls[cls["metric"] == "top1_mean"]).chance
        rows.append(
            [
                name,
                "chance",
                f"{mean:.1f}",
                *(f"{c:.1f}" for c in chance),
                "the most frequent class, on all test images",
            ]
        )
    return cells.with_paper(
        rows, sets, cells.printed(reference, "table1"), list(cells.TOKENS.values())
    )


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    said = []
    for name, _, part in cells.models(tokens):
        means = {
            t: cells.cell(part[(part["token"] == t) & (part["metric"] == "top1_mean")])
            for t in cells.TOKENS
        }
        normal, outlier = means[cells.NORMAL], means[cells.OUTLIER]
        words = f"for {name} {means['cls'].short} % from [CLS], {normal.short} % from a normal patch and "
        if outlier.value is None:
            tail = means[cells.TAIL]
            words += "too few images for" if tail.value is None else f"{tail.short} % from"
            words += f" the {cells.TAIL}, as it has no second mode and hence no outliers"
        else:
            words += f"{outlier.short} % from an outlier, {outlier.against(normal)} normal ones by their intervals"
        said.append(words)
    sets = tokens.loc[tokens["data"] != "", "data"].nunique()
    over = f"mean top-1 over {sets} label sets" if sets > 1 else "top-1"
    chance = tokens.loc[
        (tokens["metric"] == "top1_mean") & (tokens["token"] == "cls"), "chance"
    ].mean()
    return f"From one token per image {over} is {'; '.join(said)} (chance {style.percent(chance)})."
