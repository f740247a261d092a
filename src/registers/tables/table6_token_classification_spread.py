"""Table 6: Table 1 with the standard deviation over the random choice of the token (appendix G)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells, typeset
from registers.vocabulary import NORMAL, OUTLIER, TAIL

ORDER = (NORMAL, OUTLIER, TAIL, "cls")  # the paper's rows, our tail among the drawn ones
SUBJECT = "DINOv2"  # the paper's model here


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent and its standard deviation (std) over draws, in points.

    A row per model, kind of token and label set. [CLS] is one token an image: nothing is drawn, and
    it has no deviation. The paper's numbers are of its own data sets, in rows of their own. The
    intervals over images are in Table 1.
    """
    rows = []
    for model in cells.models(tokens):
        for token in ORDER:
            of_token = model.rows[model.rows["token"] == token]
            about = {"model": model.name, "token": cells.TOKENS[token]}
            for name in cells.label_sets(tokens):
                rows.append(about | {"set": name} | _spread(of_token[of_token["data"] == name]))
    rows += cells.rows_of_paper(cells.printed(reference, "table6"))
    return pd.DataFrame(rows)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per model, a column per kind of token: the deviation, its mean and range over sets."""
    drawn = rows[rows["token"] != cells.TOKENS["cls"]]
    printed = drawn[drawn["model"] == cells.PAPER].groupby("token")["paper_std"]
    summary = []
    for (model, token), part in drawn[drawn["model"] != cells.PAPER].groupby(
        ["model", "token"], sort=False
    ):
        row = {"model": model, "token": token, "chance": None, "paper": None}
        row |= _ends(part["std"], "")
        if model == SUBJECT and token in printed.groups:
            row |= _ends(printed.get_group(token), "paper")
        summary.append(row)
    return typeset.grid(pd.DataFrame(summary), "model", "token", _deviation)


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    models = cells.models(tokens)
    findings = [f"in {model.name} {_deviations(model.rows)}" for model in models]
    reason = cells.without_outliers(models)
    return (
        "The standard deviation of top-1 over the choice of the token is, "
        f"{'; '.join(findings)}{reason}."
    )


def _ends(deviations: pd.Series, whose: str) -> dict[str, float]:
    """Mean and range of standard deviations, ours (whose "") or the paper's."""
    mean = whose or "ours"
    ends = {mean: deviations.mean(), f"{whose}_low": deviations.min()}
    return ends | {f"{whose}_high": deviations.max()}


def _deviation(row: pd.Series) -> str:
    """± 1.1 above "0.9 to 1.3", and the paper's below."""
    lines = [typeset.DASH]
    if pd.notna(row["ours"]):
        lines = [f"± {row['ours']:.1f}", f"{row['_low']:.1f} to {row['_high']:.1f}"]
    if pd.notna(row.get("paper")):
        ends = f"{row['paper_low']:.1f} to {row['paper_high']:.1f}"
        lines.append(f"paper ± {row['paper']:.1f}, {ends}")
    return "\n".join(lines)


def _deviations(rows: pd.DataFrame) -> str:
    """The smallest and the largest standard deviation over label sets, by kind of token."""
    known = rows[rows["metric"] == "top1_std"].dropna(subset=["value"])
    texts = []
    for token in ORDER:
        deviations = 100 * known.loc[known["token"] == token, "value"]
        if len(deviations):
            ends = (f"{end:.1f}" for end in (deviations.min(), deviations.max()))
            who = f"the {TAIL}" if token == TAIL else f"{token} patches"
            texts.append(f"{style.span(ends)} points for {who}")
    return style.listing(texts)


def _spread(rows: pd.DataFrame) -> dict[str, float | str | None]:
    """ours, std and note; a seed's own deviation is over draws, several seeds' are averaged."""
    top1 = cells.cell(rows[rows["metric"] == "top1"])
    deviation = rows.loc[rows["metric"] == "top1_std", "value"].dropna()
    std = round(100 * float(deviation.mean()), 2) if len(deviation) else None
    numbers = top1.numbers
    return {"ours": numbers["ours"], "std": std, "n": numbers["n"], "note": numbers["note"]}
