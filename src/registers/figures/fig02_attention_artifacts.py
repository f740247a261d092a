"""Fig. 2: artifacts in the attention of [CLS]: all methods without registers, DINO among them.

Last layer, mean over heads (paper, section 1).
"""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import cls_attention, grids, image_maps, style
from registers.settings.backbone_id import BackboneId

IMAGES = 3
# the paper's columns: supervised by labels, by text, by images alone; others follow
ORDER = ("deit3", "openclip", "dino", "dinov2")


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map: see `image_maps.long`."""
    return image_maps.long(_cells(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    titles = [style.name(id.method) for id in _models(maps)]
    return grids.gallery(image_maps.pictures(maps), _cells(maps), titles).figure


def caption(maps: image_maps.ImageMaps) -> str:
    rows = _cells(maps)
    ids = _models(maps)
    medians = cls_attention.largest_by_backbone(rows)
    printed = {id.method: style.times(medians[str(id)]) for id in ids}
    numbers = style.listing(f"{v} in {style.name(method)}" for method, v in printed.items())
    peaks = {method: float(value) for method, value in printed.items()}
    text = f"{cls_attention.largest(len(rows))} is {numbers}, {style.having(ids[0].registers)}"
    others = [method for method in peaks if method != "dino"]
    if "dino" not in peaks or not others:
        return f"{text}."
    larger = [m for m in others if peaks[m] > image_maps.NOTICEABLE * peaks["dino"]]
    names = style.listing(style.name(method) for method in larger)
    return f"{text}; clearly larger than in DINO for {names} (in the paper: for all others)."


def _models(maps: image_maps.ImageMaps) -> list[BackboneId]:
    """The models with the fewest registers, in the paper's order."""
    fewest = selection.ends(maps)[0]
    return sorted(
        fewest, key=lambda id: ORDER.index(id.method) if id.method in ORDER else len(ORDER)
    )


def _cells(maps: image_maps.ImageMaps) -> list[list[image_maps.MapCell]]:
    return cls_attention.of_models(maps, _models(maps), IMAGES)
