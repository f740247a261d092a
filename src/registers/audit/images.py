"""Which photos a model looks at: a folder, files, or views of photos that packages bring along.

Files of a folder are chosen evenly over it, as classes lie in folders of their own. Those that
cannot be read are left out and named; a file that was named itself must be readable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from registers.audit.errors import AuditError
from registers.audit.verdict import counted
from registers.audit.watched import AuditImages
from registers.data.transforms import BICUBIC, Normalization, to_tensor
from registers.readers import photos as installed
from registers.readers.images import (
    SUFFIXES,
    UNREADABLE,
    is_image,
    open_image,
    printable,
    reason,
    to_rgb,
)

LIMIT = 32  # images of folders that are looked at unless asked otherwise
VIEWS = 24  # of the default photos
NAMED = 3  # unreadable files that a note names

Size = tuple[int, int]


def prepare(
    images: object, size: Size, normalization: Normalization, limit: int | None = None
) -> AuditImages:
    """Images as a model expects them.

    images: None for the default views; a path of a folder or file, or several; PIL images; or a
    tensor (B, 3, H, W), normalised already, which is taken as it is. size: height and width.
    limit: how many at most, evenly chosen; default: 32 of all folders, and every file that is named
    itself. Raises AuditError where there are none.
    """
    if limit is not None and limit < 1:
        raise AuditError(f"limit = {limit}: must be at least 1")
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise AuditError(f"images of shape {tuple(images.shape)}: must be (B, 3, H, W)")
        if not len(images):
            raise AuditError("images: none given; at least one is needed")
        order = evenly(list(range(len(images))), limit or len(images))
        chosen = images[order].float().cpu()
        names = tuple(f"image {i + 1}" for i in order)
        return AuditImages(chosen, names, _pictures(chosen, normalization))
    notes: tuple[str, ...] = ()
    if images is None:
        views = default_views(size, limit or VIEWS)
    else:
        views, notes = _looked_at(_given(images), size, limit)
    pixels = torch.stack([to_tensor(image, normalization) for _, image in views])
    pictures = np.stack([np.asarray(image) for _, image in views])
    return AuditImages(pixels, tuple(name for name, _ in views), pictures, notes)


def default_views(size: Size, count: int = VIEWS) -> list[tuple[str, Image.Image]]:
    """Views of the photos that come with installed packages, the same ones every time."""
    photos = [(path.stem, open_image(path)) for path in installed.installed()]
    if not photos:
        raise AuditError(
            "images: no installed package brings photos along; give --images PATH, or install "
            "scikit-learn or scikit-image"
        )
    views = []
    for i, (share, down, across) in enumerate(installed.VIEWS):
        for name, photo in photos:
            views.append((f"{name}, view {i + 1}", crop(photo, size, share, down, across)))
    return views[:count]


def crop(
    image: Image.Image, size: Size, share: float = 1.0, down: float = 0.5, across: float = 0.5
) -> Image.Image:
    """A part of the image in the shape of `size`, resized to it, bicubic, antialiased."""
    height, width = size
    scale = share * min(image.height / height, image.width / width)
    top = down * (image.height - scale * height)
    left = across * (image.width - scale * width)
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), BICUBIC, box=box)


def fitted(image: Image.Image, size: Size) -> Image.Image:
    """The largest centred part of the shape of `size`."""
    return crop(to_rgb(image), size)


# --- which of those that were named


@dataclass(frozen=True)
class _Given:
    """One image that was named: itself, or by the folder it lies in. image: a path or an image."""

    name: str
    image: Path | Image.Image
    of_folder: bool = False


def _given(images: object) -> list[_Given]:
    if isinstance(images, Image.Image | str | Path):
        images = [images]
    if not isinstance(images, Sequence):
        raise AuditError(f"images: {type(images).__name__}; must be paths, PIL images or a tensor")
    given = []
    for number, image in enumerate(images):
        if isinstance(image, Image.Image):
            given.append(_Given(f"image {number + 1}", image))
        elif isinstance(image, str | Path):
            if image == "":  # Path("") is the folder that one is in
                raise AuditError("images: must not be an empty path")
            given += _files(Path(image).expanduser())
        else:
            raise AuditError(
                f"images: holds {type(image).__name__}; must be paths, PIL images or a tensor"
            )
    if not given:
        raise AuditError("images: none given; at least one is needed")
    return given


def _files(path: Path) -> list[_Given]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if is_image(p.name) and not p.is_dir())
        if not files:
            kinds = ", ".join(sorted(SUFFIXES))
            raise AuditError(f"images = {printable(path)}: no images there ({kinds})")
        return [_Given(printable(p.name), p, of_folder=True) for p in files]
    if not path.is_file():
        raise AuditError(f"images = {printable(path)}: no such file or folder")
    return [_Given(printable(path.name), path)]


def _looked_at(
    given: list[_Given], size: Size, limit: int | None
) -> tuple[list[tuple[str, Image.Image]], tuple[str, ...]]:
    """Names and images in the order given, and notes on those that are left out."""
    pool = [i for i, each in enumerate(given) if limit or each.of_folder]
    views = {i: _view(given[i], size) for i in range(len(given)) if i not in set(pool)}
    wanted = len(views) + min(len(pool), limit or LIMIT)
    broken: dict[int, str] = {}
    while pool and len(views) < wanted:  # others of the folders take the place of broken files
        chosen = evenly(pool, wanted - len(views))
        for i in chosen:
            try:
                views[i] = _view(given[i], size)
            except AuditError as error:
                if not given[i].of_folder:
                    raise
                broken[i] = str(error).removeprefix("images = ")
        pool = [i for i in pool if i not in set(chosen)]
    if not views:
        first = next(iter(broken.values()))
        tried = counted(len(broken), "file")
        raise AuditError(f"images = {first}; none of {tried} is a readable image")
    notes = []
    if broken:
        reasons = "; ".join(broken[i] for i in sorted(broken)[:NAMED])
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        notes.append(f"left out {counted(len(broken), 'image')}: {reasons}{more}")
    if len(views) + len(broken) < len(given):
        notes.append(f"{len(views)} of {len(given)} images, evenly chosen; --limit N takes N")
    return [(given[i].name, views[i]) for i in sorted(views)], tuple(notes)


def evenly(items: list[int], count: int) -> list[int]:
    """At most so many, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in np.unique(places)]


def _view(given: _Given, size: Size) -> Image.Image:
    try:
        if isinstance(given.image, Path):
            return fitted(open_image(given.image), size)
        return fitted(given.image, size)
    except UNREADABLE as error:  # open_image's has the file's name and is one line
        words = str(error) if isinstance(given.image, Path) else f"{given.name}: {reason(error)}"
        raise AuditError(f"images = {words}") from None


def _pictures(pixels: torch.Tensor, normalization: Normalization) -> np.ndarray:
    """(B, H, W, 3) uint8: normalised pixels back to what they look like."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalization)
    shown = (pixels.float().cpu() * std + mean).clamp(0, 1) * 255
    return shown.round().byte().permute(0, 2, 3, 1).numpy()


def texture(pixels: torch.Tensor, grid: Size) -> np.ndarray:
    """(B, P) standard deviation of the pixels inside each patch; small where it is flat."""
    down, across = grid
    batch, channels, height, width = pixels.shape
    parts = pixels.reshape(batch, channels, down, height // down, across, width // across).permute(
        0, 2, 4, 1, 3, 5
    )
    flat = parts.reshape(batch, down * across, channels, -1)
    return flat.std(dim=-1, correction=0).mean(-1).numpy()
