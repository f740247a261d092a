"""Table 6: Table 1 with the standard deviation over the random choice of the token (appendix G)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells
from registers.vocabulary import NORMAL, OUTLIER, TAIL

ORDER = (NORMAL, OUTLIER, TAIL, "cls")  # the paper's rows, our tail among the drawn ones


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent ± standard deviation over draws.

    A row per model and kind of token, a column per label set. [CLS] is one token an image: nothing
    is drawn, and it has no deviation. The intervals over images are in Table 1.
    """
    sets = list(dict.fromkeys(name for name in tokens["data"] if name))
    rows = []
    for model in cells.models(tokens):
        for token in ORDER:
            of_token = model.rows[model.rows["token"] == token]
            mean = cells.cell(of_token[of_token["metric"] == "top1_mean"])
            spreads = [_spread(of_token[of_token["data"] == name]) for name in sets]
            rows.append([model.name, cells.TOKENS[token], mean.short, *spreads, mean.note])
    printed = cells.printed(reference, "table6")
    titles = [cells.TOKENS[token] for token in ORDER]
    return cells.with_paper(rows, sets, printed, titles, deviation=True)


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    models = cells.models(tokens)
    findings = [f"in {model.name} {_deviations(model.rows)}" for model in models]
    reason = cells.without_outliers(models)
    return (
        "The standard deviation of top-1 over the choice of the token is, "
        f"{'; '.join(findings)}{reason}."
    )


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


def _spread(rows: pd.DataFrame) -> str:
    """45.3 ± 2.1; a seed's own deviation is over draws, those of several seeds are averaged."""
    known = rows.dropna(subset=["value"])
    top1 = known.loc[known["metric"] == "top1", "value"]
    deviation = known.loc[known["metric"] == "top1_std", "value"]
    if top1.empty:
        return cells.DASH
    text = f"{100 * top1.mean():.1f}"
    return f"{text} ± {100 * deviation.mean():.1f}" if len(deviation) else text
