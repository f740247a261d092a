"""Which photos a model looks at: a folder, files, or views of photos that packages bring along."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from registers.audit.errors import AuditError
from registers.audit.watched import AuditImages
from registers.data.transforms import BICUBIC, Normalization, to_tensor
from registers.readers import photos as installed

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
LIMIT = 32  # images of a folder that are looked at unless asked otherwise
VIEWS = 24  # of the default photos

Size = tuple[int, int]


def prepare(
    images: object, size: Size, normalization: Normalization, limit: int | None = None
) -> AuditImages:
    """Images as a model expects them.

    images: None for the default views; a path of a folder or file, or several; PIL images; or a
    tensor (B, 3, H, W), normalised already, which is taken as it is. size: height and width.
    limit: how many at most; default 32 of a folder. Raises AuditError where there are none.
    """
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise AuditError(f"images of shape {tuple(images.shape)}: must be (B, 3, H, W)")
        chosen = images[:limit]
        names = tuple(f"image {i + 1}" for i in range(len(chosen)))
        return AuditImages(chosen.float().cpu(), names, _pictures(chosen, normalization))
    if images is None:
        views = default_views(size, limit or VIEWS)
    else:
        views = [(name, fitted(image, size)) for name, image in _opened(images, limit or LIMIT)]
    if not views:
        raise AuditError("images: none; must be at least one")
    pixels = torch.stack([to_tensor(image, normalization) for _, image in views])
    pictures = np.stack([np.asarray(image) for _, image in views])
    return AuditImages(pixels, tuple(name for name, _ in views), pictures)


def default_views(size: Size, count: int = VIEWS) -> list[tuple[str, Image.Image]]:
    """Views of the photos that come with installed packages, the same ones every time."""
    photos = [(path.stem, Image.open(path).convert("RGB")) for path in installed.installed()]
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
    return crop(image.convert("RGB"), size)


def _opened(images: object, limit: int) -> list[tuple[str, Image.Image]]:
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, str | Path):
        images = [images]
    if not isinstance(images, Sequence):
        raise AuditError(f"images: {type(images).__name__}; must be paths, PIL images or a tensor")
    opened = []
    for number, image in enumerate(images):
        if isinstance(image, Image.Image):
            opened.append((f"image {number + 1}", image))
        else:
            opened += [(path.name, _open(path)) for path in _files(Path(image), limit)]
    return opened[:limit]


def _files(path: Path, limit: int) -> list[Path]:
    path = path.expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise AuditError(f"images = {path}: no images there ({', '.join(sorted(SUFFIXES))})")
        step = max(1, len(files) // limit)  # spread over the folder, not its first class
        return files[::step][:limit]
    if not path.is_file():
        raise AuditError(f"images = {path}: no such file or folder")
    return [path]


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise AuditError(f"images = {path}: cannot be read ({error})") from None


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
