"""Table 1: image classification from a single token: [CLS], normal patch, outlier patch (section
2.1)."""

import pandas as pd

from registers.tables import cells, typeset
from registers.vocabulary import NORMAL, OUTLIER, TAIL

SUBJECT = "DINOv2"  # the paper's model here


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent: a row per model, kind of token and label set, and one for their mean.

    The paper's numbers are of its own data sets and stand in rows of their own; its mean stands
    beside ours of the same model.
    """
    printed = cells.printed(reference, "table1")
    rows = []
    for model in cells.models(tokens):
        for token, title in cells.TOKENS.items():
            mean, *of_sets = _cells(model.rows, token, cells.label_sets(tokens))
            about = {"model": model.name, "token": title}
            theirs = cells.mean_printed(printed, title) if model.name == SUBJECT else None
            rows.append(about | {"set": cells.MEAN} | mean.numbers | {"paper": theirs})
            for name, cell in zip(cells.label_sets(tokens), of_sets):
                rows.append(about | {"set": name} | cell.numbers | {"paper": None})
    rows += cells.rows_of_paper(printed)
    return pd.DataFrame(rows).drop(columns="paper_std")


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per model, a column per kind of token: the mean over label sets."""
    means = rows[(rows["set"] == cells.MEAN) & (rows["model"] != cells.PAPER)]
    return typeset.grid(means, "model", "token")


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    models = cells.models(tokens)
    findings = [_finding(model) for model in models]
    sets = len(cells.label_sets(tokens))
    top1 = f"mean top-1 over {sets} label sets" if sets > 1 else "top-1"
    return (
        f"From one token per image, {top1} is {'; '.join(findings)}; "
        f"chance is {cells.chance(map(_means, models))}{cells.without_outliers(models)}."
    )


def _finding(model: cells.TableModel) -> str:
    means = _means(model)
    normal = means[NORMAL]
    outlier = means[OUTLIER]
    if outlier.value is not None:
        side = f"{outlier.against(normal)} normal ones by their intervals"
        high = f"{outlier.short} % from an outlier, {side}"
    elif means[TAIL].value is not None:
        high = f"{means[TAIL].short} % from the {TAIL}"
    else:
        high = f"too few images for the {TAIL}"
    return (
        f"for {model.name} {means['cls'].short} % from [CLS], {normal.short} % from a normal patch "
        f"and {high}"
    )


def _means(model: cells.TableModel) -> dict[str, cells.TableCell]:
    """The mean over label sets by kind of token."""
    return {token: _cells(model.rows, token, [])[0] for token in cells.TOKENS}


def _cells(rows: pd.DataFrame, token: str, sets: list[str]) -> list[cells.TableCell]:
    """The mean over label sets, then one cell for each of them."""
    of_token = rows[rows["token"] == token]
    top1 = of_token[of_token["metric"] == "top1"]
    mean = cells.cell(of_token[of_token["metric"] == "top1_mean"])
    return [mean, *(cells.cell(top1[top1["data"] == name]) for name in sets)]
