"""Small maps over the patches of images, as numbers: what they hold, their tables and captions.

Arrays come as `registers.evals.maps` writes them, for M images in patches of h x w:
rgb (M, y, x, 3) and names (M,) of the images; attention (M, Q, h, w) of the queries (Q,);
heads (M, H, h, w); norms (M, h, w); components (M, 3, h, w).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from registers.figures import selection
from registers.figures.paint import style
from registers.settings.backbone_id import BackboneId

Arrays = dict[str, np.ndarray]
ImageMaps = dict[str, Arrays]  # by backbone id
DIGITS = 4  # significant digits of a value in a table
NOTICEABLE = 1.1  # ratio of two numbers from which captions call one larger


@dataclass(frozen=True)
class MapCell:
    """One map of a grid.

    backbone, image, panel: what it is of.
    values: (h, w), or (h, w, 3) colours from 0 to 1.
    """

    backbone: str
    image: str
    panel: str
    values: np.ndarray


def cells(
    maps: ImageMaps,
    ids: Sequence[BackboneId],
    images: int | None,
    panel: str,
    pick: Callable[[Arrays, int], np.ndarray],
) -> list[list[MapCell]]:
    """A row per image, a column per backbone.

    images: how many, from the first; None for all.
    pick: (arrays of a backbone, number of the image) -> values (h, w).
    """
    return [
        [MapCell(str(id), image, panel, pick(maps[str(id)], i)) for id in ids]
        for i, image in enumerate(image_names(next(iter(maps.values())), images))
    ]


def image_names(arrays: Arrays, images: int | None = None) -> list[str]:
    return [str(name) for name in arrays["names"][:images]]


def pictures(maps: ImageMaps, images: int | None = None) -> list[np.ndarray]:
    """The images themselves, (y, x, 3) each: the same for all backbones."""
    return list(next(iter(maps.values()))["rgb"][:images])


def cls_attention(arrays: Arrays, image: int) -> np.ndarray:
    """Attention (h, w) of [CLS] to the patches in the last block, mean over heads."""
    return query_attention(arrays, image, "cls")


def query_attention(arrays: Arrays, image: int, query: str) -> np.ndarray:
    return arrays["attention"][image, list(arrays["queries"]).index(query)]


def norms(arrays: Arrays, image: int) -> np.ndarray:
    """Output norms (h, w) of the patches: last block, before the final norm."""
    return arrays["norms"][image]


def by_position(rows: pd.DataFrame, metric: str, token: str) -> np.ndarray:
    """Values of one metric and token of one backbone, as the square grid of their positions."""
    of_token = rows[(rows["metric"] == metric) & (rows["token"] == token)]
    values = of_token.sort_values("at")["value"].to_numpy(float)
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)


# --- tables


def long(rows: Iterable[Iterable[MapCell]]) -> pd.DataFrame:
    """A row per value drawn: backbone, method, registers, image, panel, row, column, value.

    Colours are three panels: panel.red, .green and .blue. Values have four significant digits. The
    images themselves are not in the table.
    """
    parts = [part for row in rows for cell in row for part in _long(cell)]
    # Int64: rows and columns stay whole numbers beside rows of a table that have none
    return pd.concat(parts, ignore_index=True).astype({"row": "Int64", "column": "Int64"})


def _long(cell: MapCell) -> list[pd.DataFrame]:
    backbone = BackboneId.parse(cell.backbone)
    panels = {cell.panel: cell.values}
    if cell.values.ndim == 3:
        names = [f"{cell.panel}.{colour}" for colour in ("red", "green", "blue")]
        panels = dict(zip(names, np.moveaxis(cell.values, 2, 0)))
    parts = []
    for panel, values in panels.items():
        row, column = np.indices(values.shape)
        columns = {
            "backbone": cell.backbone,
            "method": backbone.method,
            "registers": backbone.registers,
            "image": cell.image,
            "panel": panel,
            "row": row.ravel(),
            "column": column.ravel(),
            "value": rounded(values.ravel()),
        }
        parts.append(pd.DataFrame(columns))
    return parts


def rounded(values: np.ndarray) -> np.ndarray:
    """float64 values to DIGITS significant digits, so that a table of thousands stays small."""
    return np.array([float(f"{v:.{DIGITS}g}") for v in np.asarray(values, dtype=np.float64)])


# --- captions


def peak(values: np.ndarray) -> float:
    """How far a map's largest value stands out: over its median; 1 for a flat map."""
    median = float(np.median(values))
    return float(values.max()) / median if median > 0 else float("inf")


def over_even(attention: np.ndarray) -> np.ndarray:
    """A map of attention (h, w) over one that spreads as much evenly over the patches."""
    mean = float(attention.mean())
    return attention / mean if mean > 0 else np.ones_like(attention)


def largest_over_even(attention: np.ndarray) -> float:
    """How far the most attended patch stands out; 1 for an even map."""
    return float(over_even(attention).max())


def medians(
    rows: Sequence[Sequence[MapCell]], measure: Callable[[np.ndarray], float] = peak
) -> dict[str, float]:
    """A measure of a map by backbone: the median over the backbone's maps."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for cell in row:
            values.setdefault(cell.backbone, []).append(measure(cell.values))
    return {backbone: float(np.median(of_images)) for backbone, of_images in values.items()}


def comparison(
    maps: ImageMaps,
    rows_of: Callable[[list[BackboneId]], Sequence[Sequence[MapCell]]],
    measure: Callable[[np.ndarray], float] = peak,
    in_paper: bool = True,
) -> str:
    """In words, how a number changes with registers: of the first seed, and in how many seeds.

    rows_of: the maps of backbones, of which `measure` takes the number: the median over images.
    in_paper: whether the paper shows it to shrink for all methods. For example "9.0 and 2.0 in
    DeiT-III, ... (without registers and with 4 registers); with registers it is clearly smaller for
    DeiT-III (in the paper: for all)".
    """
    seeds = selection.seeds(maps)
    by_seed = [_by_method(selection.ends(maps, seed), rows_of, measure) for seed in seeds]
    counts = " and ".join(style.having(group[0].registers) for group in selection.ends(maps))
    numbers = [
        f"{style.listing(ends)} in {style.name(method)}" for method, ends in by_seed[0].items()
    ]
    text = f"{style.listing(numbers)} ({counts})"

    # as printed, so that the sentence agrees with its numbers
    pairs: dict[str, list[list[float]]] = {}
    for by_method in by_seed:
        for method, ends in by_method.items():
            if len(ends) > 1:
                pairs.setdefault(method, []).append([float(end) for end in ends])
    if not pairs:
        return text
    smaller = {m: sum(a > NOTICEABLE * b for a, b in ends) for m, ends in pairs.items()}
    larger = {m: sum(b > NOTICEABLE * a for a, b in ends) for m, ends in pairs.items()}
    verdict = f"with registers it is clearly smaller for {_in_seeds(smaller, len(seeds))}"
    if in_paper:
        as_there = all(smaller[method] == len(seeds) for method in pairs)
        verdict += ", as in the paper" if as_there else " (in the paper: for all)"
    if any(larger.values()):
        verdict += f" and clearly larger for {_in_seeds(larger, len(seeds))}"
    return f"{text}; {verdict}"


def _by_method(
    groups: Sequence[Sequence[BackboneId]],
    rows_of: Callable[[list[BackboneId]], Sequence[Sequence[MapCell]]],
    measure: Callable[[np.ndarray], float],
) -> dict[str, list[str]]:
    """A number as it is printed, by method: with the fewest and with the most registers."""
    ids = [id for group in groups for id in group]
    values = medians(rows_of(ids), measure)
    by_method: dict[str, list[str]] = {}
    for id in ids:
        by_method.setdefault(id.method, []).append(style.times(values[str(id)]))
    return by_method


def _in_seeds(counts: dict[str, int], seeds: int) -> str:
    """Methods by the number of seeds in which something holds: "DINOv2 (2 of 3 seeds)"."""
    methods = [method for method, count in counts.items() if count]
    if seeds == 1 or not methods or all(count == seeds for count in counts.values()):
        in_all = f" in all {seeds} seeds" if seeds > 1 and methods else ""
        return f"{these(methods, counts)}{in_all}"
    return style.listing(f"{style.name(m)} ({counts[m]} of {seeds} seeds)" for m in methods)


def these(methods: Iterable[str], of: Iterable[str]) -> str:
    """Some of several methods: "DeiT-III and DINOv2", "all 3 methods", "none of the 3 methods"."""
    methods = list(methods)
    everything = list(of)
    if len(everything) > 1 and len(methods) == len(everything):
        return f"all {len(everything)} methods"
    if len(everything) > 1 and not methods:
        return f"none of the {len(everything)} methods"
    return style.listing(style.name(method) for method in methods)
