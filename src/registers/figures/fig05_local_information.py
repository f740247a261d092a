"""Fig. 5: where high-norm patches lie (a: similarity to their neighbours), and what they hold of
their place (b) (paper, section 2.1)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.local_measures import MEASURES, PIXELS, POSITION, LocalMeasure
from registers.figures.paint import style
from registers.vocabulary import NORMAL, OUTLIER, TAIL

HEADINGS = ("position\ntop-1 (%)", "position\ndistance (patches)", "reconstruction\nL2 error")
COLUMNS = (0.0, 0.17, 0.56, 0.79, 1.0)  # of b, as fractions of its width
LINE = 0.155  # inches: a line of b
DENSITIES = 2.35  # inches: the height of a
DASH = "–"


def table(
    neighbours: pd.DataFrame,
    position: pd.DataFrame,
    reconstruction: pd.DataFrame,
    reference: pd.DataFrame,
) -> pd.DataFrame:
    """Panel a: densities and means of the cosine similarity. Panel b: scores, and the paper's own.

    By backbone and kind of token. value, low, high, chance: as measured (top1 from 0 to 1). note:
    why a cell is empty, and how many images it is of.
    """
    a = selection.first_seed(neighbours).assign(panel="a")
    b = selection.first_seed(pd.concat([position, reconstruction])).assign(panel="b")
    columns = ["panel", "backbone", "question", "metric", "token", "at", "value", "low", "high"]
    ours = pd.concat([a, b], ignore_index=True)[[*columns, "n", "chance", "note"]]

    measures = {measure.column: measure for measure in MEASURES}
    printed = []
    for cell in _printed(reference).itertuples():
        measure = measures[cell.column]
        row = {
            "panel": "b",
            "backbone": "the paper",
            "token": cell.row,
            "value": cell.value / measure.scale,
            "note": cell.source,
            "question": measure.question,
            "metric": measure.metric,
        }
        printed.append(row)
    return pd.concat([ours, pd.DataFrame(printed)], ignore_index=True)


def draw(
    neighbours: pd.DataFrame,
    position: pd.DataFrame,
    reconstruction: pd.DataFrame,
    reference: pd.DataFrame,
) -> Figure:
    lines = _lines(_models(pd.concat([position, reconstruction])), _printed(reference))
    below = LINE * (len(lines) + 3.5)
    figure = Figure(figsize=(style.WIDTH, DENSITIES + below), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    top, bottom = figure.subfigures(2, 1, height_ratios=[DENSITIES, below])

    models = _models(neighbours)
    axes = top.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    lowest = [_densities(ax, method, rows) for ax, (method, rows) in zip(axes, models.items())]
    axes[0].set_xlim(min(lowest), 1)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("density")
    top.supxlabel("cosine similarity to the 4 neighbours, after the patch embedding", fontsize=8)
    top.suptitle("(a) Similarity of patches to their neighbours", x=0.008, ha="left", fontsize=8.5)

    _printed_table(bottom.subplots(), lines)
    return figure


def caption(
    neighbours: pd.DataFrame,
    position: pd.DataFrame,
    reconstruction: pd.DataFrame,
    reference: pd.DataFrame,
) -> str:
    local = _models(pd.concat([position, reconstruction]))
    models = _models(neighbours)
    kinds = {method: OUTLIER if _has_outliers(rows) else TAIL for method, rows in models.items()}
    findings = []
    for method, rows in models.items():
        kind = kinds[method]
        similar = [_value(rows, "neighbours", "mean", token) for token in (kind, NORMAL)]
        pairs = {"similarity": (similar, "{:.2f}".format)}
        for title, measure in (("position top-1 in %", POSITION), ("L2 error of pixels", PIXELS)):
            if method in local:
                both = [_measured(local[method], measure, token) for token in (kind, NORMAL)]
                pairs[title] = (both, measure.text)
        words = [
            f"{title} {_pair(both, text)}"
            for title, (both, text) in pairs.items()
            if not any(cell is None for cell in both)
        ]
        who = f" ({kind})" if len(set(kinds.values())) > 1 else ""
        told = ", ".join(words) or f"too few images for the {kind}"
        findings.append(f"{style.name(method)}{who} {told}")
    subject = {
        (OUTLIER,): "Outliers",
        (TAIL,): f"As there is no second mode, the {TAIL}",
    }.get(tuple(set(kinds.values())), f"Outliers, or the {TAIL} where there is no second mode,")
    return (
        f"{subject} against normal patches: {'; '.join(findings)}; ≈ where the intervals overlap."
    )


def _printed(reference: pd.DataFrame) -> pd.DataFrame:
    """The paper's own numbers of Fig. 5b."""
    return reference[reference["artifact"] == "fig05"]


def _models(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of the first seed by method, in the paper's order."""
    return selection.by_method(selection.first_seed(rows))


def _value(rows: pd.DataFrame, question: str, metric: str, token: str) -> pd.Series | None:
    """The row that has a value; None where none has."""
    cells = rows[
        (rows["question"] == question) & (rows["metric"] == metric) & (rows["token"] == token)
    ].dropna(subset=["value"])
    return cells.iloc[0] if len(cells) else None


def _measured(rows: pd.DataFrame, measure: LocalMeasure, token: str) -> pd.Series | None:
    return _value(rows, measure.question, measure.metric, token)


def _has_outliers(rows: pd.DataFrame) -> bool:
    return _value(rows, "neighbours", "mean", OUTLIER) is not None


def _pair(pair: list[pd.Series], text) -> str:
    """0.89 > 0.78: two values and how their intervals lie."""
    first, second = pair
    sign = "≈"
    if first["low"] > second["high"]:
        sign = ">"
    elif first["high"] < second["low"]:
        sign = "<"
    return f"{text(first['value'])} {sign} {text(second['value'])}"


# --- a


def _densities(ax: Axes, method: str, rows: pd.DataFrame) -> float:
    """Filled steps for normal patches, a line for outliers or, where there are none, the tail.

    Returns the similarity below which 0.1 % of the patches of every kind lie.
    """
    has_outliers = _has_outliers(rows)
    styles = {
        NORMAL: dict(fill=True, color=style.shade(method, 0.15)),
        OUTLIER: dict(color=style.CUTOFF, linewidth=1.4),
        TAIL: dict(color=style.INK, linewidth=1.1, linestyle=(0, (3, 1.5))),
    }
    if has_outliers:
        del styles[TAIL]
    lowest = 1.0
    for token, drawing in styles.items():
        density = rows[(rows["metric"] == "density") & (rows["token"] == token)].sort_values("at")
        if density.empty:
            continue
        width = density["at"].diff().median()
        edges = np.append(density["at"] - width / 2, density["at"].iloc[-1] + width / 2)
        mean = _value(rows, "neighbours", "mean", token)["value"]
        ax.stairs(density["value"], edges, label=f"{token}, mean {mean:.2f}", **drawing)
        share_below = density["value"].cumsum().to_numpy() * width
        lowest = min(lowest, float(edges[np.argmax(share_below > 0.001)]))

    normal = _value(rows, "neighbours", "mean", NORMAL)
    if normal is not None:
        label = f"any two patches, {normal['chance']:.2f}"
        dotted = dict(color=style.GREY, linewidth=0.8, linestyle=":")
        ax.axvline(normal["chance"], label=label, **dotted)
    _legend(ax, style.name(method) + ("" if has_outliers else ", no second mode"))
    ax.grid(False, axis="x")
    return lowest


def _legend(ax: Axes, title: str) -> None:
    """A legend above the panel, where it hides no bars."""
    ax.legend(
        title=title,
        title_fontsize=8,
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderpad=0,
        borderaxespad=0.3,
        handlelength=1.4,
    )


# --- b


def _lines(models: dict[str, pd.DataFrame], printed: pd.DataFrame) -> list[tuple[str, ...]]:
    """The cells of b as texts: model, kind of token, the three measures; () stands for a rule."""
    lines: list[tuple[str, ...]] = []
    for method, rows in models.items():
        for token in (NORMAL, OUTLIER, TAIL):
            cells = [_measured(rows, measure, token) for measure in MEASURES]
            texts = [_with_interval(cell, measure) for cell, measure in zip(cells, MEASURES)]
            if token == OUTLIER and all(cell is None for cell in cells):
                texts[0] = f"{DASH} no second mode"
            lines.append((style.name(method) if token == NORMAL else "", token, *texts))
        cells = [_measured(rows, measure, NORMAL) for measure in MEASURES]
        chance = [
            DASH if cell is None else measure.text(cell["chance"])
            for cell, measure in zip(cells, MEASURES)
        ]
        lines += [("", "chance", *chance), ()]
    for row, cells in printed.groupby("row", sort=False):
        values = cells.set_index("column")["value"]
        texts = [f"{values[measure.column]:g}" for measure in MEASURES]
        lines.append(("the paper, ViT-g" if row == NORMAL else "", row, *texts))
    return lines


def _with_interval(cell: pd.Series | None, measure: LocalMeasure) -> str:
    if cell is None:
        return DASH
    value, low, high = (measure.text(cell[column]) for column in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _printed_table(ax: Axes, lines: list[tuple[str, ...]]) -> None:
    """A table as in print: words left, numbers right, rules between models."""
    ax.set_axis_off()
    ax.set_title("(b) Linear probes on single patches, on held-out images", loc="left")
    height = len(lines) + 2.2
    ax.set(xlim=(0, 1), ylim=(height, 0))
    small = dict(va="center", fontsize=7)
    ax.axhline(0.05, color=style.INK, linewidth=0.8)
    for x, heading in zip(COLUMNS[2:], HEADINGS):
        ax.text(x, 0.95, heading, ha="right", color=style.GREY, linespacing=1.1, **small)
    ax.axhline(1.85, color=style.INK, linewidth=0.5)
    for y, line in enumerate(lines, start=2):
        if not line:
            ax.axhline(y + 0.5, color=style.PALE, linewidth=0.8)
        for x, text in zip(COLUMNS, line):
            pale = line[1] == "chance" or text.startswith(DASH)
            side = "left" if x < COLUMNS[2] else "right"
            ax.text(x, y + 0.5, text, ha=side, color=style.GREY if pale else style.INK, **small)
    ax.axhline(height - 0.1, color=style.INK, linewidth=0.8)
