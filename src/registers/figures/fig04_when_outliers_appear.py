"""Fig. 4: norms over the layers (a), over training (b) and over model sizes (c) of DINOv2 without
registers (paper, section 2.1)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import distributions, style
from registers.settings.backbone_id import BackboneId
from registers.settings.recipes import SIZES

LABELS = 7  # of checkpoints at most, so that they do not touch


def table(steps: pd.DataFrame, sizes: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """A row per column of a panel: panel, at (layer, per cent of training, size), quantiles.

    And the verdict at the output of that model; in c its width and parameters.
    """
    # --- a
    last = _final(steps)
    layers = distributions.quantiles(last).reset_index().rename(columns={"layer": "at"})
    parts = [layers.assign(panel="a", backbone=last["backbone"].iloc[0])]

    # --- b and c
    for panel, models in (("b", _by_percent(steps)), ("c", _by_size(sizes))):
        for at, rows in models.items():
            summary = distributions.mode_summary(rows)
            output = distributions.quantiles(rows).tail(1)
            part = output.assign(
                panel=panel,
                at=at,
                backbone=rows["backbone"].iloc[0],
                second_mode=summary.second_mode,
                cutoff=summary.cutoff,
                share=summary.share,
                max_over_median=summary.max_over_median,
            )
            parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    of_size = frame["panel"] == "c"
    known = weights.set_index("backbone")
    for column in ("width", "parameters"):
        frame[column] = frame["backbone"].where(of_size).map(known[column]).astype("Int64")
    first = ["panel", "at", "backbone"]
    return frame[first + [column for column in frame.columns if column not in first]]


def draw(steps: pd.DataFrame, sizes: pd.DataFrame, weights: pd.DataFrame) -> Figure:
    ratios = [1, 1, 1.35]  # names of sizes are wide
    figure, ((layers, training, size),) = style.canvas(1, 3, height=2.6, width_ratios=ratios)
    last = _final(steps)
    method = last["method"].iloc[0]

    # --- a: layers
    quantile = distributions.quantiles(last)
    histograms = {layer: distributions.histogram(last, layer=layer) for layer in quantile.index}
    distributions.columns(layers, histograms, style.colormap(method))
    distributions.lines(layers, quantile.index, quantile)
    style.letter(layers, "a", "Norms along layers")
    layers.set(xlabel="layer", ylabel="L2 norm of patch tokens")
    layers.xaxis.get_major_locator().set_params(integer=True)
    _remark(layers, [last], "at the output")

    # --- b: training
    checkpoints = _by_percent(steps)
    _columns(training, method, list(checkpoints.values()))
    every = 1 + len(checkpoints) // LABELS
    labels = [f"{p} %" if i % every == 0 else "" for i, p in enumerate(checkpoints)]
    training.set_xticks(range(len(labels)), labels)
    training.set_xlabel("training done")
    style.letter(training, "b", "Norms along training")
    if _is_published(last):
        style.note(training, "no checkpoints on the way\nare published", "upper left")
    else:
        _remark(training, list(checkpoints.values()), "at any time")

    # --- c: sizes
    by_size = _by_size(sizes)
    _columns(size, method, list(by_size.values()))
    labels = [
        f"{name}\n{width}\n{style.number(parameters / 1e6, 2)}"
        for name, width, parameters in _named(by_size, weights)
    ]
    size.set_xticks(range(len(labels)), labels)
    size.set_xlabel("name, width, million parameters")
    style.letter(size, "c", "Norms across sizes")
    _remark(size, list(by_size.values()), "at any size")

    for ax in (layers, training, size):
        distributions.headroom(ax)
        style.logarithmic(ax.yaxis)
    figure.legend(*layers.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def caption(steps: pd.DataFrame, sizes: pd.DataFrame, weights: pd.DataFrame) -> str:
    checkpoints = _by_percent(steps)
    by_size = _by_size(sizes)
    late = [f"{percent} %" for percent in _with_second_mode(checkpoints)]
    large = _with_second_mode(by_size)

    last = _final(steps)
    model = style.model(last["method"].iloc[0], int(last["registers"].iloc[0]))
    quantile = distributions.quantiles(last)
    ratio = quantile["q100"] / quantile["q50"]
    rest = (
        f"the largest patch norm is farthest from the median in layer {ratio.idxmax()} of "
        f"{len(ratio)} ({style.times(ratio.max())} times the median)"
    )
    if first := _first_layer(last, len(ratio)):
        rest += f", and norms have a second mode from layer {first} of {len(ratio)} on"
    if _is_published(last):
        rest += "; no checkpoints on the way are published"
    rest += f"; {_ends(by_size, weights)}"
    if late or large:
        return (
            f"In {model} norms have a second mode in {_count(late, len(checkpoints), 'checkpoint')}"
            f" along training and in {_count(large, len(by_size), 'size')}; {rest}."
        )
    largest = max(distributions.mode_summary(rows).max_over_median for rows in by_size.values())
    return (
        f"In {model} norms have no second mode, neither in the "
        f"{style.plural(len(checkpoints), 'checkpoint')} along training nor in the "
        f"{style.plural(len(by_size), 'size')} (largest norm at most {style.times(largest)} times "
        f"the median); {rest}."
    )


def _named(by_size: dict[str, pd.DataFrame], weights: pd.DataFrame) -> list[tuple[str, int, int]]:
    """What each size is in this run: its name, width and parameters."""
    known = weights.set_index("backbone")
    backbones = [rows["backbone"].iloc[0] for rows in by_size.values()]
    return list(zip(by_size, known.loc[backbones, "width"], known.loc[backbones, "parameters"]))


def _ends(by_size: dict[str, pd.DataFrame], weights: pd.DataFrame) -> str:
    """The smallest and the largest size in words."""
    sizes = [
        f"{size} (width {width}, {style.count(parameters)} parameters)"
        for size, width, parameters in _named(by_size, weights)
    ]
    return f"sizes are those of this run, {style.span([sizes[0], sizes[-1]])}"


def _count(names: list[str], of: int, noun: str) -> str:
    """2 of 4 checkpoints (50 % and 100 %)."""
    text = f"{len(names)} of {style.plural(of, noun)}"
    return f"{text} ({style.listing(names)})" if names else text


def _with_second_mode(models: dict) -> list:
    """The keys of models with a second mode."""
    return [at for at, rows in models.items() if distributions.mode_summary(rows).second_mode]


def _columns(ax: Axes, method: str, models: list[pd.DataFrame]) -> None:
    """One column per model, its cut-off as a short line where there is one."""
    histograms = {i: distributions.histogram(rows) for i, rows in enumerate(models)}
    distributions.columns(ax, histograms, style.colormap(method), half=0.42)
    output = pd.concat([distributions.quantiles(rows).tail(1) for rows in models])
    distributions.lines(ax, range(len(models)), output)
    dashed = dict(color=style.CUTOFF, linestyle=distributions.DASHED, linewidth=0.9)
    for i, rows in enumerate(models):
        cutoff = distributions.mode_summary(rows).cutoff
        if cutoff == cutoff:  # not nan
            ax.hlines(cutoff, i - 0.45, i + 0.45, **dashed)


def _remark(ax: Axes, models: list[pd.DataFrame], where: str) -> None:
    """In how many of the panel's models there is a second mode."""
    summaries = [distributions.mode_summary(rows) for rows in models]
    count = sum(summary.second_mode for summary in summaries)
    if not count:
        style.note(ax, f"no second mode {where}", "upper left")
    elif len(models) > 1:
        style.note(ax, f"second mode in {count} of {len(models)}", "upper left", style.CUTOFF)
    else:
        style.note(ax, summaries[0].words, "upper left", style.CUTOFF)


def _first_layer(rows: pd.DataFrame, layers: int) -> int:
    """The layer from which on all have a second mode (the paper: 15 of 40); 0 where none has."""
    share = rows.loc[rows["metric"] == "first_layer", "value"].dropna()
    return round(share.iloc[0] * layers) if len(share) else 0


def _is_published(rows: pd.DataFrame) -> bool:
    """Whether a model was fetched and not trained here: names of such models say their size."""
    return bool(BackboneId.parse(rows["backbone"].iloc[0]).size)


def _final(steps: pd.DataFrame) -> pd.DataFrame:
    """Rows of the model at the end of training."""
    return list(_by_percent(steps).values())[-1]


def _by_percent(steps: pd.DataFrame) -> dict[int, pd.DataFrame]:
    groups = selection.first_seed(steps).groupby("percent")
    return {int(percent): rows for percent, rows in groups}


def _by_size(sizes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = dict(list(selection.first_seed(sizes).groupby("size")))
    return {size: groups[size] for size in SIZES if size in groups}
