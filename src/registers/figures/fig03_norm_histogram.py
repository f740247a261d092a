"""Fig. 3: norms of patch tokens at the output, as maps of one image and as histograms.

The paper holds a clean model (DINO ViT-B/16) against an affected one (DINOv2 ViT-g/14) (section
2.1). Here: DINO where it was trained, and DINOv2 without registers.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import distributions, grids, image_maps, style
from registers.settings.backbone_id import BackboneId

PRINTED_CUTOFF = 150  # Fig. 3, caption; a bin begins at 149.6
# inches
SIDE = 1.12  # of a map
LABELS = 0.62  # left of the histograms
BELOW = 0.38


def table(norms: pd.DataFrame, maps: image_maps.ImageMaps) -> pd.DataFrame:
    """Panel histogram: bins. Panel norm: maps.

    Beside the bins stands the model's verdict: second_mode, cutoff, and share_above with its
    interval.
    """
    parts = []
    for rows in _models(norms):
        summary = distributions.mode_summary(rows)
        bins = distributions.histogram(rows).assign(
            backbone=rows["backbone"].iloc[0],
            panel="histogram",
            second_mode=summary.second_mode,
            cutoff=summary.cutoff,
            share_above=summary.share,
            share_above_low=summary.low,
            share_above_high=summary.high,
        )
        parts.append(bins)
    if cells := _cells(norms, maps):
        parts.append(image_maps.long([cells]))
    return pd.concat(parts, ignore_index=True)


def draw(norms: pd.DataFrame, maps: image_maps.ImageMaps) -> Figure:
    # --- the image and its maps
    cells = _cells(norms, maps)
    names = [f"{_name(rows)} norms" for rows in _models(norms)]
    right = style.WIDTH - (1 + len(cells)) * SIDE - 0.3
    page = grids.page(
        1, 1 + len(cells), ["Input", *names], [1], side=SIDE, below=BELOW, right=right
    )
    page.axes[0, 0].imshow(image_maps.pictures(maps)[0], aspect="auto")
    for column, cell in enumerate(cells, start=1):
        image = grids.show(page.axes[0, column], cell.values, low=0, high=grids.top([cell.values]))
        page.bar(image, column, column, "L2 norm", grids.ticks(*image.get_clim()))

    # --- histograms, right of them
    models = _models(norms)
    _, bottom, left, top = page.inches(page.axes[0, -1])
    room = (page.figure.get_size_inches()[0] - left - LABELS - 0.08) / len(models)
    panels: list[Axes] = []
    for i, rows in enumerate(models):
        width = room - (0.1 if i < len(models) - 1 else 0)
        place = page.box(left + LABELS + i * room, bottom, width, top - bottom)
        panels.append(page.figure.add_axes(place, sharey=panels[0] if panels else None))
        _histogram(panels[-1], rows)
    panels[0].set_ylabel("share of tokens", labelpad=2)
    for ax in panels[1:]:
        ax.tick_params(labelleft=False)
    distributions.headroom(panels[0], shares=True)
    return page.figure


def caption(norms: pd.DataFrame, maps: image_maps.ImageMaps) -> str:
    models = _models(norms)
    findings = [_finding(rows) for rows in models]
    names = {rows["backbone"].iloc[0]: _name(rows) for rows in models}
    peaks = [
        f"{style.times(image_maps.peak(cell.values))} ({names[cell.backbone]})"
        for cell in _cells(norms, maps)
    ]
    images = distributions.mode_summary(models[0]).images
    return (
        f"Over {style.plural(images, 'image')}, {style.listing(findings)}; in the image shown the "
        f"largest norm is {style.listing(peaks)} times the median."
    )


def _finding(rows: pd.DataFrame) -> str:
    summary = distributions.mode_summary(rows)
    model = style.model(rows["method"].iloc[0], int(rows["registers"].iloc[0]))
    if not summary.second_mode:
        largest = style.times(summary.max_over_median)
        return (
            f"the patch norms of {model} have no second mode (largest {largest} times the median)"
        )
    share, low, high = (style.percent(v, 2) for v in (summary.share, summary.low, summary.high))
    return (
        f"the patch norms of {model} have a second mode: {share} of the tokens ({low} to {high}) "
        f"lie above the cut-off {style.number(summary.cutoff)}{_above_printed(rows)}"
    )


def _above_printed(rows: pd.DataFrame) -> str:
    """Of the paper's own model, DINOv2's ViT-g, the share above the cut-off that it picked."""
    id = BackboneId.parse(rows["backbone"].iloc[0])
    if (id.method, id.size) != ("dinov2", "giant"):
        return ""
    bins = distributions.histogram(rows)
    share = bins.loc[bins["high"] > PRINTED_CUTOFF, "share"].sum()
    return f", {style.percent(share, 2)} above the paper's {PRINTED_CUTOFF}"


def _histogram(ax: Axes, rows: pd.DataFrame) -> None:
    summary = distributions.mode_summary(rows)
    colour = style.colour(rows["method"].iloc[0])
    distributions.bars(ax, distributions.histogram(rows), colour, summary.cutoff)
    style.logarithmic(ax.xaxis)
    style.note(ax, summary.words, colour=summary.colour)
    ax.set_title(_name(rows), fontsize=8, pad=3)
    ax.set_xlabel("L2 norm", fontsize=7, labelpad=2)


def _name(rows: pd.DataFrame) -> str:
    return style.name(rows["method"].iloc[0])


def _cells(norms: pd.DataFrame, maps: image_maps.ImageMaps) -> list[image_maps.MapCell]:
    """The norm maps of the first image, of the models in the histograms."""
    backbones = [rows["backbone"].iloc[0] for rows in _models(norms)]
    ids = [BackboneId.parse(backbone) for backbone in backbones if backbone in maps]
    return image_maps.cells(maps, ids, 1, "norm", image_maps.norms)[0]


def _models(norms: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of each model, left to right: DINO where it is there, and DINOv2 or the first method.

    Fewest registers, first seed.
    """
    plain = selection.by_method(norms[norms["registers"] == norms["registers"].min()])
    methods = dict.fromkeys(["dino", selection.subject(plain)])
    return [selection.first_seed(plain[method]) for method in methods if method in plain]
