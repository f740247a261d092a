"""Table 6: Table 1 with the standard deviation over the random choice of the token (paper, appendix G)."""

import pandas as pd

from registers.tables import cells

ORDER = (
    cells.NORMAL,
    cells.OUTLIER,
    cells.TAIL,
    "cls",
)  # the paper's rows, our tail among the drawn ones


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent ± standard deviation over draws: a row per model and kind of token, a column per label set.

    [CLS] is one token an image: nothing is drawn, and no deviation stands there. The intervals over images are in Table 1.
    """
    sets = list(dict.fromkeys(d for d in tokens["data"] if d))
    rows = []
    for name, _, part in cells.models(tokens):
        for token in ORDER:
            one = part[part["token"] == token]
            mean = cells.cell(one[one["metric"] == "top1_mean"])
            rows.append(
                [
                    name,
                    cells.TOKENS[token],
                    mean.short,
                    *(_spread(one[one["data"] == d]) for d in sets),
                    mean.note,
                ]
            )
    return cells.with_paper(
        rows,
        sets,
        cells.printed(reference, "table6"),
        [cells.TOKENS[t] for t in ORDER],
        deviation=True,
    )


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    said = []
    for name, _, part in cells.models(tokens):
        spread = 100 * part[part["metric"] == "top1_std"].dropna(subset=["value"]).groupby("token")[
            "value"
        ].agg(["min", "max"])
        ranges = [
            f"{s['min']:.1f} to {s['max']:.1f} points for {token} patches"
            for token, s in _ordered(spread).iterrows()
        ]
        words = ", ".join(r.replace(f"{cells.TAIL} patches", f"the {cells.TAIL}") for r in ranges)
        said.append(
            f"in {name} {words}"
            + ("" if cells.second_mode(part) else " (no second mode, hence no outliers)")
        )
    return f"Which token is drawn moves top-1 by a standard deviation of, {'; '.join(said)}."


def _ordered(spread: pd.DataFrame) -> pd.DataFrame:
    return spread.loc[[t for t in ORDER if t in spread.index]]


def _spread(rows: pd.DataFrame) -> str:
    """ "45.3 ± 2.1"; a seed's own deviation is over draws, several are averaged."""
    top1, std = (
        rows[rows["metric"] == m].dropna(subset=["value"])["value"] for m in ("top1", "top1_std")
    )
    if top1.empty:
        return cells.DASH
    return f"{100 * top1.mean():.1f}" + (f" ± {100 * std.mean():.1f}" if len(std) else "")
