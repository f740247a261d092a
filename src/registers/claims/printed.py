"""The paper's own numbers for what a claim compares, out of paper/reference.yaml."""

from typing import Any

import pandas as pd

from registers.figures.paint import style

CELLS = {  # (question, metric) -> table, part, column
    ("linear", "top1"): ("table2", "a", "ImageNet top-1"),
    ("segmentation", "miou"): ("table2", "a", "ADE20k mIoU"),
    ("depth", "rmse"): ("table2", "a", "NYUd rmse"),
    ("zeroshot", "top1"): ("table2", "b", "ImageNet top-1"),
    ("discovery", "corloc"): ("table3", "", "VOC 2007"),
}
METHOD_OF = {"zeroshot": "openclip"}  # questions that one method alone answers
TOKENS = {"cls": "[CLS]", "normal": "normal patch", "outlier": "outlier patch", "reg0": "register"}
LOCAL = {("position", "top1"): "position top-1", ("reconstruction", "l2"): "reconstruction L2"}
BY_KIND = {**LOCAL, ("position", "distance"): "position distance"}


def gap(
    first: dict[str, Any], second: dict[str, Any], relative: bool, reference: pd.DataFrame
) -> float | None:
    """The paper's difference of what two selectors name; None where it lacks one of them.

    relative: over the second number.
    """
    beside_outliers = "outlier" in (first.get("token"), second.get("token"))
    pair = [value(selector, reference, beside_outliers) for selector in (first, second)]
    if None in pair:
        return None
    difference = pair[0] - pair[1]
    return difference / pair[1] if relative else difference


def value(
    selector: dict[str, Any], reference: pd.DataFrame, beside_outliers: bool = False
) -> float | None:
    """The number that the paper prints for what a selector names, in the rows' unit; None: none.

    beside_outliers: of normal patches, where they are compared with outliers (Fig. 5b, Table 4).
    """
    place = _place(selector, beside_outliers)
    if place is None:
        return None
    columns = ["artifact", "part", "row", "column"]
    cells = reference[(reference[columns] == list(place)).all(axis=1)].dropna(subset=["value"])
    if cells.empty:
        return None
    cell = cells.iloc[0]
    return float(cell["value"]) / (100 if cell["unit"] == "%" else 1)


def _place(selector: dict[str, Any], beside_outliers: bool) -> tuple[str, str, str, str] | None:
    """Table, part, row and column of reference.yaml; None where there is no such number."""
    question = selector.get("question")
    asked = (question, selector.get("metric"))
    method = selector.get("method", METHOD_OF.get(question))
    count = selector.get("registers")
    token = selector.get("token")
    if not isinstance(method, str) or count not in (0, 1, 4):
        return None
    if asked in CELLS and count != 1:
        artifact, part, column = CELLS[asked]
        return artifact, part, style.name(method) + ("+reg" if count else ""), column
    if method != "dinov2":
        return None
    if asked == ("norms", "share") and count == 0:
        return "fig03", "", "DINOv2 ViT-g/14", "share above"
    if asked == ("token_class", "top1_main") and token in TOKENS and count != 4:
        return "table4", "", str(count), TOKENS[token]
    if asked in BY_KIND and count == 0 and beside_outliers:
        return "fig05", "b", token, BY_KIND[asked]
    if asked in LOCAL and token == "normal":
        return "table5", "", str(count), LOCAL[asked]
    return None
