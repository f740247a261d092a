"""How claims write metrics and numbers: in the units of the tables, as people write them."""

import math
from collections.abc import Iterable
from typing import Any

from registers.figures.paint import style

PERCENT = {  # metrics that are shares: per cent, and points for their differences
    "top1",
    "top1_main",
    "top1_mean",
    "top1_std_max",
    "miou",
    "corloc",
    "corloc_tuned",
    "share",
    "share_tail",
    "border_share",
    "inner_share",
    "highest_share",
    "first_layer",
    "macs_increase",
    "params_increase",
    "register_quantisation",
    "map_distance",
    "attention_on_norms",
    "least_head_on_norms",
    "range_of_heads_on_norms",
}
TITLES = {  # where the name of a metric does not read well
    "top1": "top-1",
    "top1_main": "top-1",
    "top1_mean": "mean top-1",
    "top1_std_max": "largest deviation of top-1 over draws",
    "miou": "mIoU",
    "max_over_median": "largest norm over the median",
    "macs_increase": "increase in FLOPs",
    "params_increase": "increase in parameters",
    "corloc_tuned": "corloc (tuned)",
    "first_layer": "first layer with outliers, in the depth,",
    "l2": "L2 error",
    "mean": "similarity",
    "stripes_tail": "stripes of the tail",
    "attention_peak": "largest attention over the median",
}
POINTS = "points"
SHARE = "%"
OF_IT = "% of it"  # relative to the second number of a comparison
TIMES = "times"  # a ratio
TINY = 0.001  # what lies nearer to 0 is not written out
DIGITS = 3  # after the point at most


def scale(unit: str) -> int:
    """From a number of the rows to its unit."""
    return 100 if unit in (POINTS, SHARE, OF_IT) else 1


def unit(metric: str, difference: bool = False, relative: bool = False) -> str:
    """The unit that a metric, or a difference of two, is written in; "" for a plain number."""
    if relative:
        return OF_IT
    if metric not in PERCENT:
        return ""
    return POINTS if difference else SHARE


def number(value: float, low: float, high: float, unit: str, signed: bool = False) -> str:
    """A number with its interval: "+1.3 [-2.0, +4.6] points", "41.1 %", "0.83 [0.80, 0.86]".

    value, low, high: of the rows. Digits end where the interval makes them meaningless; ratios
    have three, as their interval is as wide in factors on both sides.
    """
    if unit == TIMES:
        ends = f" [{_ratio(low)}, {_ratio(high)}]" if low < high else ""
        return f"{_ratio(value)}{ends} {TIMES}"
    value, low, high = (scale(unit) * number for number in (value, low, high))
    half = (high - low) / 2

    def written(number: float) -> str:
        text = style.number(number)
        if half > 0:
            digits = min(max(0, 1 - math.floor(math.log10(half))), DIGITS)
            text = f"{number:.{min(digits, 1) if half >= 0.05 and unit else digits}f}"
        elif number and abs(number) < TINY:
            return f"<{TINY:g}" if number > 0 else f">-{TINY:g}"
        elif unit:
            text = style.percent(number / 100).removesuffix(" %")
        bare = text.lstrip("-")
        if not float(bare):
            return bare
        return f"+{text}" if signed and number > 0 else text

    interval = f" [{written(low)}, {written(high)}]" if half > 0 else ""
    return f"{written(value)}{interval}{f' {unit}' if unit else ''}"


def _ratio(number: float) -> str:
    """Three digits of what a reader can tell apart."""
    if number < TINY:
        return f"<{TINY:g}"
    return style.number(number) if number <= 1 / TINY else f">{1 / TINY:g}"


def title(metric: str) -> str:
    """A metric in words: "top-1", "second mode"."""
    return TITLES.get(metric, metric.replace("_", " "))


def named(selector: dict[str, Any]) -> str:
    """A selector in words: "linear top-1 of DINOv2 with 4 registers, data coco"."""
    rest = dict(selector)
    question = str(rest.pop("question", "")).replace("_", " ")
    words = title(str(rest.pop("metric", "")))
    text = words if question in ("", "norms", "maps", "cost") else f"{question} {words}"
    method = rest.pop("method", "")
    if method:
        text += f" of {_all(style.name, method)}"
    if "registers" in rest:
        text += f" {_all(style.having, rest.pop('registers'))}"
    return ", ".join([text, *(f"{name} {_value(value)}" for name, value in rest.items())])


def label(values: dict[str, Any]) -> str:
    """What a part of a claim is about: "DeiT-III"; "" for all there is."""
    return ", ".join(
        style.name(value) if column == "method" else str(value) for column, value in values.items()
    )


def about(selectors: Iterable[dict[str, Any]]) -> str:
    """The one method that all selectors name: "DeiT-III"; "" where they name several or none."""
    methods = {method for each in selectors for method in _listed(each.get("method", ""))}
    return style.name(methods.pop()) if len(methods) == 1 else ""


def _all(write, values: Any) -> str:
    return style.listing(write(value) for value in _listed(values))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        ends = {"from": "from", "below": "below"}
        return " ".join(f"{word} {value[key]:g}" for key, word in ends.items() if key in value)
    return style.listing(str(each) for each in _listed(value))


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]
