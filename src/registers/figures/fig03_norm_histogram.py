"""Fig. 3: the distribution of patch norms at the output, and the share above the cut-off (paper, section 2.1).

The paper holds a clean model (DINO ViT-B/16) against an affected one (DINOv2 ViT-g/14). Here: DINO where it was trained, and DINOv2
without registers.
"""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures import distributions, panels


def table(norms: pd.DataFrame) -> pd.DataFrame:
    """The bins of each histogram, and beside them the verdict: second_mode, cutoff, share_above with its interval."""
    parts = []
    for backbone, rows in _models(norms):
        found = distributions.verdict(rows)
        bins = distributions.histogram(rows).assign(backbone=backbone, second_mode=found.second_mode, cutoff=found.cutoff)
        parts.append(bins.assign(share_above=found.share, share_above_low=found.low, share_above_high=found.high))
    return pd.concat(parts, ignore_index=True)


def draw(norms: pd.DataFrame) -> Figure:
    models = _models(norms)
    figure, axes = panels.canvas(1, len(models), height=2.3, width=panels.WIDTH if len(models) > 1 else 4.2, sharey=True)
    for ax, (_, rows) in zip(axes[0], models):
        method, registers = rows["method"].iloc[0], int(rows["registers"].iloc[0])
        found = distributions.verdict(rows)
        distributions.bars(ax, distributions.histogram(rows), panels.colour(method), found.cutoff)
        panels.logarithmic(ax.xaxis)
        panels.note(ax, found.words, colour=panels.CUTOFF if found.second_mode else panels.GREY)
        ax.set(title=f"{panels.name(method)}, {panels.registers_label(registers)}", xlabel="L2 norm of patch tokens at the output")
    axes[0, 0].set_ylabel("share of tokens")
    distributions.headroom(axes[0, 0], shares=True)
    return figure


def caption(norms: pd.DataFrame) -> str:
    said = []
    for _, rows in _models(norms):
        found = distributions.verdict(rows)
        model = f"{panels.name(rows['method'].iloc[0])} {panels.registers_label(int(rows['registers'].iloc[0]))}"
        if found.second_mode:
            interval = f"{panels.percent(found.low, 2)} to {panels.percent(found.high, 2)}"
            said.append(
                f"the patch norms of {model} have a second mode: {panels.percent(found.share, 2)} of the tokens "
                f"({interval}) lie above the cut-off {panels.number(found.cutoff)}"
            )
        else:
            largest = panels.number(found.max_over_median, 2)
            said.append(f"the patch norms of {model} have no second mode (largest {largest} times the median)")
    return f"Over {distributions.verdict(_models(norms)[0][1]).images} images, {panels.listing(said)}."


def _models(norms: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The models shown, left to right: DINO if it is there, and DINOv2 (or else the first method); fewest registers, first seed."""
    norms = norms[norms["registers"] == norms["registers"].min()]
    methods = panels.in_order(norms["method"])
    subject = "dinov2" if "dinov2" in methods else methods[0]
    shown = [m for m in ("dino", subject) if m in methods]
    frames = [panels.first_seed(norms[norms["method"] == m]) for m in dict.fromkeys(shown)]
    return [(f["backbone"].iloc[0], f) for f in frames]
