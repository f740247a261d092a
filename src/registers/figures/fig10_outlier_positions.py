"""Fig. 10: how often a token at each position has a norm above the cut-off (appendix A).

Left without, right with antialiasing of the resize of position embeddings in training. Where norms
have no second mode there are no outliers: the 2 % of tokens of highest norm are shown, under that
name.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style
from registers.settings.backbone_id import BackboneId
from registers.vocabulary import TAIL

TRAINED = "offset"  # the mode of backbones that are trained without antialiasing
STRIPES = 0.25  # weights that lie so far apart, over their mean, can be seen


@dataclass(frozen=True)
class Model:
    """One model's map: the share of images with a high norm at each position.

    bound: the cut-off or, without a second mode, the norm where the tail begins.
    stripes: see `probes.by_position.stripes`; NaN where the grid is too small.
    """

    cell: image_maps.MapCell
    noaa: bool
    second_mode: bool
    bound: float
    images: int
    stripes: float

    @property
    def training(self) -> str:
        if BackboneId.parse(self.cell.backbone).size:  # a published model, whose name says its size
            return "as published"
        return "without antialiasing" if self.noaa else "with antialiasing"


def table(positions: pd.DataFrame, interpolation: pd.DataFrame) -> pd.DataFrame:
    """A row per position: see `image_maps.long`; value: share of images.

    And noaa, second_mode, and cutoff (or the norm where the tail begins).
    """
    parts = []
    for model in _models(positions):
        rows = image_maps.long([[model.cell]])
        parts.append(
            rows.assign(noaa=model.noaa, second_mode=model.second_mode, cutoff=model.bound)
        )
    return pd.concat(parts, ignore_index=True)


def draw(positions: pd.DataFrame, interpolation: pd.DataFrame) -> Figure:
    models = _models(positions)
    highest = grids.top(100 * model.cell.values for model in models)
    titles = [""] * len(models)
    groups = range(1, len(models))
    page = grids.page(
        1, len(models), titles, groups, side=2.1, below=grids.BAR, above=0.15, whole=True
    )
    for ax, model in zip(page.axes[0], models):
        image = grids.show(ax, 100 * model.cell.values, low=0, high=highest)
        bound = style.number(model.bound)
        above = f"norm above the cut-off {bound}" if model.second_mode else f"{TAIL}: above {bound}"
        ax.set_title(f"{model.training}\n{above}", fontsize=8, pad=3)
    label = "images with such a norm at this position (%)"
    page.bar(image, 0, len(models) - 1, label, grids.ticks(0, highest, 8))
    return page.figure


def caption(positions: pd.DataFrame, interpolation: pd.DataFrame) -> str:
    method = positions["method"].iloc[0]
    findings = [_finding(model) for model in _models(positions)]
    possible = _possible(interpolation, method)
    return f"In {style.name(method)}, {'; '.join(findings)}{possible}."


def _possible(interpolation: pd.DataFrame, method: str) -> str:
    """Whether the resize in training can make stripes at all: how uneven its weights are."""
    uneven = interpolation[
        (interpolation["metric"] == "unevenness")
        & (interpolation["variant"] == TRAINED)
        & interpolation["data"].str.startswith(f"{method}: ")
    ]
    if uneven.empty:
        return ""
    grids_of_it = uneven["data"].iloc[0].removeprefix(f"{method}: ")
    value = float(uneven["value"].iloc[0])
    apart = f"weighs positions {style.percent(value)} of their mean apart"
    can = "can make stripes" if value >= STRIPES else "is so even that no stripes can come from it"
    return f"; the resize without antialiasing ({grids_of_it} patches) {apart} and {can}"


def _finding(model: Model) -> str:
    values = model.cell.values
    border = np.ones(values.shape, dtype=bool)
    border[1:-1, 1:-1] = False
    range_of_shares = style.span(style.percent(share) for share in (values.min(), values.max()))
    outer = style.percent(values[border].mean())
    inner = style.percent(values[~border].mean())
    bound = style.number(model.bound)
    above = f"above the cut-off {bound}"
    if not model.second_mode:
        above = f"in the {TAIL.removesuffix(')')}, above {bound})"
    stripes = "too few columns to tell stripes"
    if not np.isnan(model.stripes):
        stripes = (
            f"columns inside the border alternate {model.stripes:.1f} times as much as images "
            "explain"
        )
    return (
        f"{model.training}, {range_of_shares} of {style.plural(model.images, 'image')} have a norm "
        f"{above} at a position, {outer} at the border and {inner} inside, and {stripes}"
    )


def _models(positions: pd.DataFrame) -> list[Model]:
    """The model trained without antialiasing, then the one with: the paper's left and right."""
    first = selection.first_seed(positions)
    parts = [first[first["noaa"].astype(bool) == noaa] for noaa in (True, False)]
    return [_model(rows) for rows in parts if len(rows)]


def _model(rows: pd.DataFrame) -> Model:
    def value(metric: str) -> float:
        values = rows.loc[rows["metric"] == metric, "value"]
        return float(values.iloc[0]) if len(values) else float("nan")

    second_mode = value("second_mode") == 1
    panel = "share_above" if second_mode else "share_tail"
    values = image_maps.by_position(rows, panel, "patch")
    return Model(
        cell=image_maps.MapCell(rows["backbone"].iloc[0], "share of all", panel, values),
        noaa=bool(rows["noaa"].iloc[0]),
        second_mode=second_mode,
        bound=value("cutoff" if second_mode else "tail"),
        images=int(rows["n"].min()),
        stripes=value("stripes" if second_mode else "stripes_tail"),
    )
