"""All claims in one picture: effect, interval, the paper's value and verdict (a forest plot).

Claims are about accuracies, norms and costs, so each line has a scale of its own. Its middle is the
edge of what is claimed (or the middle, where both ends are), right of it the claim holds.
"""

import math
import textwrap
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from registers.claims import wording
from registers.claims.effects import Effect
from registers.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    VERDICTS,
    Verdict,
)
from registers.figures.paint import style

COLOURS = {
    REPRODUCED: style.GOOD,
    CONTRADICTED: style.CUTOFF,
    INCONCLUSIVE: style.OPEN,
    NOT_TESTABLE: style.GREY,
}

NAMES = {  # words of the claims' ids that are names
    "b": "B",
    "clip": "CLIP",
    "cls": "[CLS]",
    "deit": "DeiT",
    "dino": "DINO",
    "dinov2": "DINOv2",
    "flops": "FLOPs",
    "l": "L",
    "lost": "LOST",
    "mae": "MAE",
    "vit": "ViT",
}

# inches
LINE = 0.145
PLOT = (2.75, 4.35)  # left and right end of the scales
OURS = 4.45
PAPER = 6.0
LETTERS = 132  # of a line of claims that could not be tested
SMALL = 6.5  # points


def table(verdicts: list[Verdict]) -> pd.DataFrame:
    """A row per claim, with the number that decides it. claimed_low, claimed_high: empty if open.

    value, low, high, claimed and paper are in the unit of the rows: shares from 0 to 1.
    """
    rows = []
    for v in verdicts:
        row = {"claim": v.id, "where": v.where, "verdict": v.verdict, "parts": v.parts}
        if v.effect is not None:
            effect = v.effect
            row |= {"about": effect.about, "value": effect.value, "low": effect.low}
            row |= {"high": effect.high, "claimed_low": effect.claimed[0]}
            row |= {"claimed_high": effect.claimed[1], "paper": effect.paper}
            row |= {"printed": effect.words, "printed_paper": effect.words_of_paper}
        rows.append(row | {"p": v.p, "together": v.together, "reason": v.reason})
    return pd.DataFrame(rows)


def draw(verdicts: list[Verdict]) -> Figure:
    """Claims by verdict, in the paper's order; below them those that could not be tested, named."""
    groups = {name: [v for v in verdicts if v.verdict == name] for name in VERDICTS}
    untested = _untested(groups.pop(NOT_TESTABLE))
    lines = 1.6 + sum(1.6 + len(group) for group in groups.values() if group)
    lines += (1.4 + len(untested)) if untested else 0

    figure = Figure(figsize=(style.WIDTH, LINE * lines + 0.1))
    ax = figure.add_axes([0, 0, 1, 1])
    ax.set_axis_off()
    ax.set(xlim=(-0.05, style.WIDTH), ylim=(lines + 0.3, -0.3))

    y = _head(ax)
    for name, group in groups.items():
        if not group:
            continue
        y = _heading(ax, y, name, len(group))
        for v in group:
            _line(ax, y, v)
            y += 1
    if untested:
        number = sum(v.verdict == NOT_TESTABLE for v in verdicts)
        y = _heading(ax, y, NOT_TESTABLE, number)
        for text in untested:
            _text(ax, 0, y, text, color=style.GREY)
            y += 0.95
    return figure


def caption(verdicts: list[Verdict]) -> str:
    """What a reader must know to read it."""
    tested = sum(v.effect is not None for v in verdicts)
    return (
        f"{style.plural(tested, 'claim')} of the paper's {len(verdicts)} with a number of this "
        "run: the one that decides (of several parts the least sure), its 95 % interval, and the "
        "paper's value (diamond) where it prints one; changes are in points or, relative, in %; "
        "each line has its own scale, and on green ground the claim holds."
    )


def title(v: Verdict) -> str:
    """A claim in a few words: its id, with names as they are written."""
    return " ".join(NAMES.get(word, word) for word in v.id.split("-"))


def position(effect: Effect, value: float) -> float:
    """Where a number stands on its line, from -1 to 1: right of 0 (or around it) as claimed.

    Ratios stand on a logarithmic scale.
    """
    if effect.unit == wording.TIMES:
        ends = ("value", "low", "high", "paper")
        logs = {name: _logarithm(getattr(effect, name)) for name in ends}
        claimed = tuple(_logarithm(end) for end in effect.claimed)
        effect = replace(effect, **logs, claimed=claimed, unit="")
        value = _logarithm(value)
    centre, toward = _centre(effect)
    reach = max(
        abs(number - centre)
        for number in (effect.value, effect.low, effect.high, effect.paper, *effect.claimed)
        if number is not None
    )
    return toward * (value - centre) / (1.1 * reach) if reach else 0.5  # at the edge, which holds


# --- parts of the picture


def _head(ax: Axes) -> float:
    """Names of the columns; returns where the lines begin."""
    grey = dict(color=style.GREY)
    _text(ax, 0, 0.5, "claim", **grey)
    _text(ax, sum(PLOT) / 2, 0.5, "not as claimed  |  as claimed", ha="center", **grey)
    _text(ax, OURS, 0.5, "this run, 95 % interval", **grey)
    _text(ax, PAPER, 0.5, "the paper", **grey)
    return 1.1


def _heading(ax: Axes, y: float, name: str, count: int) -> float:
    ax.axhline(y + 0.1, color=style.PALE, linewidth=0.6)
    text = f"{style.capitalised(name)}: {count}"
    ax.text(0, y + 0.75, text, va="center", fontsize=7.5, color=COLOURS[name], weight="bold")
    return y + 1.6


def _line(ax: Axes, y: float, v: Verdict) -> None:
    """One claim: its name, its number on its own scale, and both in words."""
    effect = v.effect
    name = style.capitalised(title(v))
    name = f"{name} ({effect.about})" if effect and effect.about else name
    _text(ax, 0, y, name)
    if effect is None:
        _text(ax, OURS, y, textwrap.shorten(v.reason, 60, placeholder="…"), color=style.GREY)
        return
    _claimed(ax, y, effect)
    low, high = (_x(position(effect, end)) for end in (effect.low, effect.high))
    colour = COLOURS[v.verdict]
    ax.plot([low, high], [y, y], color=colour, linewidth=1, solid_capstyle="butt")
    ax.plot(_x(position(effect, effect.value)), y, "o", color=colour, markersize=3)
    if effect.paper is not None:
        diamond = dict(markersize=3.6, markerfacecolor="white", markeredgewidth=0.7)
        ax.plot(_x(position(effect, effect.paper)), y, "D", color=style.INK, **diamond)
    _text(ax, OURS, y, _short(effect.words))
    _text(ax, PAPER, y, _short(effect.words_of_paper))


def _short(words: str) -> str:
    """A number in the picture, where a sign and % say that it is a relative change."""
    return words.replace(wording.OF_IT, "%")


def _claimed(ax: Axes, y: float, effect: Effect) -> None:
    """The ground on which the claim holds, and the middle of the scale."""
    low, high = effect.claimed
    start, end = 0.0, 1.0
    if low is not None and high is not None:
        start, end = sorted((position(effect, low), position(effect, high)))
    ground = Rectangle((_x(start), y - 0.46), _x(end) - _x(start), 0.92, color=style.CLAIMED, lw=0)
    ax.add_patch(ground)
    middle = _x(0)
    ax.plot([middle, middle], [y - 0.46, y + 0.46], color=style.GREY, linewidth=0.4)


def _untested(verdicts: list[Verdict]) -> list[str]:
    """Claims by the reason why nothing can be said of them, as lines of text."""
    by_reason: dict[str, list[str]] = {}
    for v in verdicts:
        reason = v.reason.split("; ")[0]
        by_reason.setdefault(reason, []).append(title(v))
    lines = []
    for reason, names in by_reason.items():
        text = f"{style.capitalised(reason)}: {', '.join(names)}."
        lines += textwrap.wrap(text, LETTERS, subsequent_indent="    ")
    return lines


def _centre(effect: Effect) -> tuple[float, int]:
    """The middle of a line's scale, and which way the claim lies: 1 upwards, -1 downwards."""
    low, high = effect.claimed
    if low is None:
        return high, -1
    return (low, 1) if high is None else ((low + high) / 2, 1)


def _logarithm(number: float | None) -> float | None:
    return None if number is None else math.log(number)


def _x(place: float) -> float:
    """From -1 to 1 on the scale to inches."""
    left, right = PLOT
    return left + (right - left) * (place + 1) / 2


def _text(ax: Axes, x: float, y: float, text: str, **drawing) -> None:
    ax.text(x, y, text, va="center", fontsize=SMALL, **{"color": style.INK, **drawing})
