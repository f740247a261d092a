"""Fig. 3: norms of patch tokens at the output, as maps of one image and as histograms, and the share above the cut-off (section 2.1).

The paper holds a clean model (DINO ViT-B/16) against an affected one (DINOv2 ViT-g/14). Here: DINO where it was trained, and DINOv2
without registers.
"""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import distributions, grids, style
from registers.settings.backbone_id import BackboneId

SIDE = 1.12  # inches: a map
LABELS = 0.62  # inches: left of the histograms
BELOW = 0.38  # inches


def table(norms: pd.DataFrame, maps: grids.Maps) -> pd.DataFrame:
    """Panel histogram: the bins, and beside them the verdict (second_mode, cutoff, share_above with its interval). Panel norm: the maps."""
    parts = []
    for backbone, rows in _models(norms):
        found = distributions.verdict(rows)
        bins = distributions.histogram(rows).assign(
            backbone=backbone, panel="histogram", second_mode=found.second_mode, cutoff=found.cutoff
        )
        parts.append(
            bins.assign(
                share_above=found.share, share_above_low=found.low, share_above_high=found.high
            )
        )
    cells = _cells(norms, maps)
    return pd.concat([*parts, *([grids.long([cells])] if cells else [])], ignore_index=True)


def draw(norms: pd.DataFrame, maps: grids.Maps) -> Figure:
    models, cells = _models(norms), _cells(norms, maps)
    names = [f"{style.name(rows['method'].iloc[0])} norms" for _, rows in models]
    page = grids.page(
        1,
        1 + len(cells),
        ["Input", *names],
        [1],
        side=SIDE,
        below=BELOW,
        right=style.WIDTH - (1 + len(cells)) * SIDE - 0.3,
    )
    page.axes[0, 0].imshow(grids.inputs(maps)[0], aspect="auto")
    for column, cell in enumerate(cells, start=1):
        image = grids.show(page.axes[0, column], cell.values)
        page.bar(image, column, column, "L2 norm", grids.ticks(*image.get_clim()))

    _, bottom, left, top = page.inches(page.axes[0, -1])
    room = (page.figure.get_size_inches()[0] - left - LABELS - 0.08) / len(models)
    first = None
    for i, (_, rows) in enumerate(models):
        place = page.box(
            left + LABELS + i * room,
            bottom,
            room - (0.1 if i < len(models) - 1 else 0),
            top - bottom,
        )
        ax = page.figure.add_axes(place, sharey=first)
        found = distributions.verdict(rows)
        distributions.bars(
            ax, distributions.histogram(rows), style.colour(rows["method"].iloc[0]), found.cutoff
        )
        style.logarithmic(ax.xaxis)
        style.note(ax, found.words, colour=style.CUTOFF if found.second_mode else style.GREY)
        ax.set_title(style.name(rows["method"].iloc[0]), fontsize=8, pad=3)
        ax.set_xlabel("L2 norm", fontsize=7, labelpad=2)
        if first is None:
            ax.set_ylabel("share of tokens", labelpad=2)
        else:
            ax.tick_params(labelleft=False)
        first = first or ax
    distributions.headroom(first, shares=True)
    return page.figure


def caption(norms: pd.DataFrame, maps: grids.Maps) -> str:
    said = []
    for _, rows in _models(norms):
        found = distributions.verdict(rows)
        model = f"{style.name(rows['method'].iloc[0])} {style.registers_label(int(rows['registers'].iloc[0]))}"
        if found.second_mode:
            interval = f"{style.percent(found.low, 2)} to {style.percent(found.high, 2)}"
            said.append(
                f"the patch norms of {model} have a second mode: {style.percent(found.share, 2)} of the tokens "
                f"({interval}) lie above the cut-off {style.number(found.cutoff)}"
            )
        else:
            largest = style.number(found.max_over_median, 2)
            said.append(
                f"the patch norms of {model} have no second mode (largest {largest} times the median)"
            )
    method = {backbone: rows["method"].iloc[0] for backbone, rows in _models(norms)}
    shown = style.listing(
        f"{grids.times(grids.peak(c.values))} ({style.name(method[c.backbone])})"
        for c in _cells(norms, maps)
    )
    images = distributions.verdict(_models(norms)[0][1]).images
    return f"Over {images} images, {style.listing(said)}; in the image shown the largest norm is {shown} times the median."


def _cells(norms: pd.DataFrame, maps: grids.Maps) -> list[grids.Cell]:
    """The norm maps of the first image, of the models in the histograms."""
    shown = [BackboneId.parse(b) for b, _ in _models(norms) if b in maps]
    return grids.cells(maps, shown, 1, "norm", lambda arrays, i: arrays["norms"][i])[0]


def _models(norms: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The models shown, left to right: DINO if it is there, and DINOv2 (or else the first method); fewest registers, first seed."""
    norms = norms[norms["registers"] == norms["registers"].min()]
    methods = style.in_order(norms["method"])
    subject = "dinov2" if "dinov2" in methods else methods[0]
    shown = [m for m in ("dino", subject) if m in methods]
    frames = [style.first_seed(norms[norms["method"] == m]) for m in dict.fromkeys(shown)]
    return [(f["backbone"].iloc[0], f) for f in frames]
