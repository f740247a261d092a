"""Fig. 10: how often a token at each position has a norm above the cut-off, without (left) and with antialiasing (right) (appendix A).

Antialiasing of the resize of position embeddings in training. Where norms have no second mode there are no outliers: the 2 % of tokens
of highest norm are shown, under that name.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, style


def table(positions: pd.DataFrame) -> pd.DataFrame:
    """A row per position: see `grids.long`; value: share of images. And noaa, second_mode, cutoff (or the tail's norm)."""
    parts = []
    for cell, rows in _models(positions):
        about = dict(
            noaa=bool(rows["noaa"].iloc[0]),
            second_mode=_second_mode(rows),
            cutoff=_one(rows, _bound(rows)),
        )
        parts.append(grids.long([[cell]]).assign(**about))
    return pd.concat(parts, ignore_index=True)


def draw(positions: pd.DataFrame) -> Figure:
    shown = _models(positions)
    high = max(cell.values.max() for cell, _ in shown)
    page = grids.page(
        1,
        len(shown),
        ["" for _ in shown],
        range(1, len(shown)),
        side=2.1,
        below=grids.BAR,
        above=0.15,
    )
    for ax, (cell, rows) in zip(page.axes[0], shown):
        image = grids.show(ax, 100 * cell.values, low=0, high=100 * high)
        ax.set_title(f"{_how(rows)}\n{_short(rows)}", fontsize=8, pad=3)
    page.bar(
        image,
        0,
        len(shown) - 1,
        "images with such a norm at this position (%)",
        grids.ticks(0, 100 * high, 8),
    )
    return page.figure


def caption(positions: pd.DataFrame) -> str:
    said = []
    for cell, rows in _models(positions):
        border = np.ones(cell.values.shape, dtype=bool)
        border[1:-1, 1:-1] = False
        images, outer, inner = (
            int(rows["n"].min()),
            cell.values[border].mean(),
            cell.values[1:-1, 1:-1].mean(),
        )
        low, high = style.percent(cell.values.min()), style.percent(cell.values.max())
        border_and_inside = (
            f"{style.percent(outer)} at the border and {style.percent(inner)} inside"
        )
        said.append(
            f"{_how(rows)}, {low} to {high} of {images} images have {_above(rows)} at a position, {border_and_inside}, and "
            f"neighbouring columns differ {_stripes(cell.values, images):.1f} times as much as if tokens were independent"
        )
    return f"In {style.name(positions['method'].iloc[0])}, {'; '.join(said)}."


def _stripes(values: np.ndarray, images: int) -> float:
    """How far the means of columns alternate: their second differences (root mean square) over those of independent tokens.

    Vertical stripes raise it above 1, a smooth change from the border to the centre hardly does.
    """
    mean = values.mean()
    chance = np.sqrt(
        6 * mean * (1 - mean) / (images * values.shape[0])
    )  # second difference: variance 1 + 4 + 1
    return (
        float(np.sqrt((np.diff(values.mean(0), 2) ** 2).mean()) / chance)
        if chance and values.shape[1] > 2
        else 0.0
    )


def _how(rows: pd.DataFrame) -> str:
    return "without antialiasing" if rows["noaa"].iloc[0] else "with antialiasing"


def _above(rows: pd.DataFrame) -> str:
    bound = style.number(_one(rows, _bound(rows)))
    return (
        f"a norm above the cut-off {bound}"
        if _second_mode(rows)
        else f"a norm in the high-norm tail (2 %, above {bound})"
    )


def _short(rows: pd.DataFrame) -> str:
    bound = style.number(_one(rows, _bound(rows)))
    return (
        f"norm above the cut-off {bound}"
        if _second_mode(rows)
        else f"high-norm tail (2 %): above {bound}"
    )


def _bound(rows: pd.DataFrame) -> str:
    return "cutoff" if _second_mode(rows) else "tail"


def _second_mode(rows: pd.DataFrame) -> bool:
    return _one(rows, "second_mode") == 1


def _one(rows: pd.DataFrame, metric: str) -> float:
    return float(rows.loc[rows["metric"] == metric, "value"].iloc[0])


def _models(positions: pd.DataFrame) -> list[tuple[grids.Cell, pd.DataFrame]]:
    """The model trained without antialiasing, then the one with: the paper's left and right."""
    rows = style.first_seed(positions)
    found = []
    for noaa in (True, False):
        one = rows[rows["noaa"].astype(bool) == noaa]
        if len(one):
            panel = "share_above" if _second_mode(one) else "share_tail"
            found.append(
                (
                    grids.Cell(
                        one["backbone"].iloc[0],
                        "share of all",
                        panel,
                        grids.square(one, panel, "patch"),
                    ),
                    one,
                )
            )
    return found
