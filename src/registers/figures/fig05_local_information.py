"""Fig. 5: where high-norm patches lie (a: similarity to the neighbours) and what they hold of their place (b) (paper, section 2.1)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures.paint import style
from registers.vocabulary import NORMAL, OUTLIER, TAIL

MEASURES = {  # column of b: (question, metric, scale, digits)
    "position\ntop-1 (%)": ("position", "top1", 100, 1),
    "position\ndistance (patches)": ("position", "distance", 1, 2),
    "reconstruction\nL2 error": ("reconstruction", "l2", 1, 2),
}
PAPER = ("position top-1", "position distance", "reconstruction L2")
LINE = 0.155  # inches a line of b


def table(
    neighbours: pd.DataFrame,
    position: pd.DataFrame,
    reconstruction: pd.DataFrame,
    reference: pd.DataFrame,
) -> pd.DataFrame:
    """Panel a: densities and means of the cosine similarity; b: scores. By backbone and kind of token, with the paper's own for b.

    value, low, high, chance: as measured (top1 0 to 1). note: why a cell is empty, and of how many images it is.
    """
    a = neighbours.assign(panel="a")
    b = pd.concat([position, reconstruction]).assign(panel="b")
    rows = pd.concat([style.first_seed(a), style.first_seed(b)], ignore_index=True)
    kept = [
        "panel",
        "backbone",
        "question",
        "metric",
        "token",
        "at",
        "value",
        "low",
        "high",
        "n",
        "chance",
        "note",
    ]
    rows = rows[kept]
    names = {
        "position top-1": ("position", "top1", 100),
        "position distance": ("position", "distance", 1),
    }
    names["reconstruction L2"] = ("reconstruction", "l2", 1)
    printed = [
        {
            "panel": "b",
            "backbone": "the paper",
            "token": cell.row,
            "value": cell.value / names[cell.column][2],
            "note": cell.source,
        }
        | dict(zip(("question", "metric"), names[cell.column]))
        for cell in reference[reference["artifact"] == "fig05"].itertuples()
    ]
    return pd.concat([rows, pd.DataFrame(printed)], ignore_index=True)


def draw(
    neighbours: pd.DataFrame,
    position: pd.DataFrame,
    reconstruction: pd.DataFrame,
    reference: pd.DataFrame,
) -> Figure:
    shown, probed = _models(neighbours), _models(pd.concat([position, reconstruction]))
    lines = _lines(probed, reference)
    below = LINE * (len(lines) + 3.5)
    figure = Figure(figsize=(style.WIDTH, 2.0 + below), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.0, below])
    axes = top.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    lowest = 1.0
    for ax, (method, rows) in zip(axes, shown.items()):
        lowest = min(lowest, _densities(ax, method, rows))
    axes[0].set_xlim(lowest, 1)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("density")
    top.supxlabel("cosine similarity to the 4 neighbours, after the patch embedding", fontsize=8)
    axes[0].set_title(f"(a) {style.name(next(iter(shown)))}", loc="left")
    _grid(bottom.subplots(), lines)
    return figure


def caption(
    neighbours: pd.DataFrame,
    position: pd.DataFrame,
    reconstruction: pd.DataFrame,
    reference: pd.DataFrame,
) -> str:
    said, probed = [], _models(pd.concat([position, reconstruction]))
    for method, rows in _models(neighbours).items():
        there = _known(rows, "neighbours", "mean", OUTLIER) is not None
        kind = OUTLIER if there else TAIL
        words = [
            f"similarity {_pair([_known(rows, 'neighbours', 'mean', k) for k in (kind, NORMAL)], 1, 2)}"
        ]
        for name, column in (
            (("position top-1 in %", 0), ("L2 error of pixels", 2)) if method in probed else ()
        ):
            question, metric, scale, digits = list(MEASURES.values())[column]
            words.append(
                f"{name} {_pair([_known(probed[method], question, metric, k) for k in (kind, NORMAL)], scale, digits)}"
            )
        who = "outliers" if there else f"{TAIL}, as there is no second mode"
        said.append(f"{style.name(method)} ({who}) {', '.join(words)}")
    return (
        f"High-norm patches against normal ones: {'; '.join(said)}; ≈ where the intervals overlap."
    )


def _models(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of the first seed by method, in the paper's order of methods."""
    rows = style.first_seed(rows)
    return {m: rows[rows["method"] == m] for m in style.in_order(rows["method"])}


def _known(rows: pd.DataFrame, question: str, metric: str, token: str) -> pd.Series | None:
    found = rows[
        (rows["question"] == question) & (rows["metric"] == metric) & (rows["token"] == token)
    ].dropna(subset=["value"])
    return found.iloc[0] if len(found) else None


def _pair(pair: list[pd.Series | None], scale: float, digits: int) -> str:
    """ "0.89 > 0.78": two values and how their intervals lie; a dash for one that does not exist."""
    a, b = pair
    if a is None or b is None:
        return " and ".join(
            "–" if one is None else f"{scale * one['value']:.{digits}f}" for one in pair
        )
    sign = ">" if a["low"] > b["high"] else "<" if a["high"] < b["low"] else "≈"
    return f"{scale * a['value']:.{digits}f} {sign} {scale * b['value']:.{digits}f}"


def _densities(ax: Axes, method: str, rows: pd.DataFrame) -> float:
    """Filled steps for normal patches, lines for outliers or, where there are none, the tail. Returns the lowest occupied edge."""
    outliers = _known(rows, "neighbours", "mean", OUTLIER) is not None
    looks = {
        NORMAL: dict(fill=True, color=style.shade(method, 0.15)),
        OUTLIER: dict(color=style.CUTOFF, linewidth=1.4),
        TAIL: dict(color=style.INK, linewidth=1.1, linestyle=(0, (3, 1.5))),
    }
    lowest = 1.0
    for token, look in looks.items():
        one = rows[(rows["metric"] == "density") & (rows["token"] == token)].sort_values("at")
        if one.empty or (token == TAIL and outliers):
            continue
        step = one["at"].diff().median()
        edges = np.append(one["at"] - step / 2, one["at"].iloc[-1] + step / 2)
        mean = _known(rows, "neighbours", "mean", token)
        ax.stairs(one["value"], edges, label=f"{token} (mean {mean['value']:.2f})", **look)
        lowest = min(
            lowest, float(edges[np.argmax(one["value"].cumsum().to_numpy() * step > 0.001)])
        )  # 0.1 % may lie outside
    chance = _known(rows, "neighbours", "mean", NORMAL)
    if chance is not None:
        ax.axvline(
            chance["chance"],
            color=style.GREY,
            linewidth=0.8,
            linestyle=":",
            label=f"any two patches ({chance['chance']:.2f})",
        )
    ax.set_title(style.name(method), loc="left")
    box = dict(frameon=True, facecolor="white", edgecolor="none", framealpha=0.85, borderpad=0.2)
    ax.legend(
        loc="upper left",
        handlelength=1.4,
        **box,
        title=None if outliers else "no second mode",
        title_fontsize=7,
        alignment="left",
    )
    ax.grid(False, axis="x")
    return lowest


def _lines(models: dict[str, pd.DataFrame], reference: pd.DataFrame) -> list[tuple[str, ...]]:
    """The cells of b as texts: model, kind of token, the three measures; an empty line stands for a rule."""
    lines: list[tuple[str, ...]] = []
    for method, rows in models.items():
        for token in (NORMAL, OUTLIER, TAIL):
            found = [_known(rows, q, m, token) for q, m, *_ in MEASURES.values()]
            shown = [
                _text(one, scale, digits)
                for one, (*_, scale, digits) in zip(found, MEASURES.values())
            ]
            if all(one is None for one in found):
                shown = ["– no second mode" if token == OUTLIER else "–", "–", "–"]
            lines.append((style.name(method) if token == NORMAL else "", token, *shown))
        guesses = [_known(rows, q, m, NORMAL) for q, m, *_ in MEASURES.values()]
        shown = [
            "–" if g is None else f"{s * g['chance']:.{d}f}"
            for g, (*_, s, d) in zip(guesses, MEASURES.values())
        ]
        lines += [("", "chance", *shown), ()]
    printed = reference[reference["artifact"] == "fig05"]
    for row, cells in printed.groupby("row", sort=False):
        values = cells.set_index("column")["value"]
        lines.append(
            ("the paper, ViT-g" if row == NORMAL else "", row, *(f"{values[c]:g}" for c in PAPER))
        )
    return lines


def _text(one: pd.Series | None, scale: float, digits: int) -> str:
    if one is None:
        return "–"
    value, low, high = (f"{scale * one[c]:.{digits}f}" for c in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _grid(ax: Axes, lines: list[tuple[str, ...]]) -> None:
    """A printed table: words left, numbers right, rules between models."""
    ax.set_axis_off()
    ax.set_title("(b) Linear probes on single patches, on held-out images", loc="left")
    at = (0.0, 0.17, 0.56, 0.79, 1.0)
    height = len(lines) + 2.2
    ax.set(xlim=(0, 1), ylim=(height, 0))
    ax.axhline(0.05, color=style.INK, linewidth=0.8)
    for x, head in zip(at[2:], MEASURES):
        ax.text(
            x, 0.95, head, ha="right", va="center", fontsize=7, color=style.GREY, linespacing=1.1
        )
    ax.axhline(1.85, color=style.INK, linewidth=0.5)
    for i, line in enumerate(lines):
        y = i + 2.5
        if not line:
            ax.axhline(y, color=style.PALE, linewidth=0.8)
            continue
        for x, text, side in zip(at, line, ("left", "left", "right", "right", "right")):
            grey = line[1] == "chance" or text.startswith("–")
            ax.text(
                x,
                y,
                text,
                ha=side,
                va="center",
                fontsize=7,
                color=style.GREY if grey else style.INK,
            )
    ax.axhline(height - 0.1, color=style.INK, linewidth=0.8)
