"""Attention of [CLS] to the patches in the last layer, mean over heads: Figs. 1, 2, 8 and 19."""

from collections.abc import Sequence
from functools import partial

from registers.figures import selection
from registers.figures.paint import image_maps, style
from registers.figures.paint.image_maps import ImageMaps, MapCell
from registers.settings.backbone_id import BackboneId


def of_models(
    maps: ImageMaps, ids: Sequence[BackboneId], images: int | None = None
) -> list[list[MapCell]]:
    """A row per image (all of them by default), a column per model."""
    return image_maps.cells(maps, ids, images, "attention", image_maps.cls_attention)


def of_ends(maps: ImageMaps, images: int | None = None) -> list[list[MapCell]]:
    """Every method without registers, then with: the columns of Figs. 1 and 19."""
    ids = [id for group in selection.ends(maps) for id in group]
    return of_models(maps, ids, images)


def caption(maps: ImageMaps, images: int | None = None) -> str:
    """Of Figs. 1 and 19: the largest attention of the maps that they show, and of all seeds."""
    number = len(image_maps.image_names(next(iter(maps.values())), images))
    rows_of = partial(of_models, maps, images=images)
    peaks = image_maps.comparison(maps, rows_of, image_maps.largest_over_even)
    return f"{largest(number)} is {peaks}."


def largest(images: int) -> str:
    """What the number under each map is, and that the caption gives its median over images."""
    over = style.plural(images, "image")
    under = "under each map" if images == 1 else f"under each map; median of {over}"
    return f"The largest attention of [CLS] to a patch, over an even one ({under}),"


def largest_by_backbone(rows: Sequence[Sequence[MapCell]]) -> dict[str, float]:
    """That number by backbone: its median over images."""
    return image_maps.medians(rows, image_maps.largest_over_even)
