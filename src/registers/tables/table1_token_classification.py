"""Table 1: image classification from a single token: [CLS], normal patch, outlier patch (section
2.1)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells
from registers.vocabulary import NORMAL, OUTLIER, TAIL


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent with its 95 % interval, as the paper has it.

    A row per model and kind of token, a column per label set; mean: over all label sets. Below
    stand the paper's own rows, headed by the names of its data sets, which are others than ours.
    """
    sets = _label_sets(tokens)
    rows = []
    for model in cells.models(tokens):
        for token, title in cells.TOKENS.items():
            mean, *of_sets = _cells(model.rows, token, sets)
            texts = [cell.text for cell in (mean, *of_sets)]
            rows.append([model.name, title, *texts, mean.note])
        chance = [f"{cell.chance:.1f}" for cell in _cells(model.rows, "cls", sets)]
        note = "the most frequent class, on all test images"
        rows.append([model.name, "chance", *chance, note])
    printed = cells.printed(reference, "table1")
    return cells.with_paper(rows, sets, printed, list(cells.TOKENS.values()))


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    models = cells.models(tokens)
    findings = [_finding(model) for model in models]
    sets = len(_label_sets(tokens))
    top1 = f"mean top-1 over {sets} label sets" if sets > 1 else "top-1"
    means = tokens[(tokens["metric"] == "top1_mean") & (tokens["token"] == "cls")]
    reason = cells.without_outliers(models)
    return (
        f"From one token per image, {top1} is {'; '.join(findings)} "
        f"(chance {style.percent(means['chance'].mean())}){reason}."
    )


def _finding(model: cells.TableModel) -> str:
    means = {token: _cells(model.rows, token, [])[0] for token in cells.TOKENS}
    normal = means[NORMAL]
    outlier = means[OUTLIER]
    if outlier.value is not None:
        high = f"{outlier.short} % from an outlier, {outlier.against(normal)} normal ones by their "
        high += "intervals"
    elif means[TAIL].value is not None:
        high = f"{means[TAIL].short} % from the {TAIL}"
    else:
        high = f"too few images for the {TAIL}"
    return (
        f"for {model.name} {means['cls'].short} % from [CLS], {normal.short} % from a normal patch "
        f"and {high}"
    )


def _label_sets(tokens: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(name for name in tokens["data"] if name))


def _cells(rows: pd.DataFrame, token: str, sets: list[str]) -> list[cells.TableCell]:
    """The mean over label sets, then one cell for each of them."""
    of_token = rows[rows["token"] == token]
    top1 = of_token[of_token["metric"] == "top1"]
    mean = cells.cell(of_token[of_token["metric"] == "top1_mean"])
    return [mean, *(cells.cell(top1[top1["data"] == name]) for name in sets)]
