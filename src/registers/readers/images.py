"""Opening image files of any kind as RGB, as the field does it.

Files come from strangers, so only the formats below are tried, whatever a file is called: Pillow
would start Ghostscript for EPS bytes named .jpg. Size and shape are read from the header and
bounded before a pixel is decoded.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from registers.data.usable import MAX_ASPECT_RATIO

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
# Pillow's own threshold of a "decompression bomb". It warns there and refuses twice as many; here
# both are refused in one line with the file's name, so that the warning would only say it again.
MAX_PIXELS = 1024**3 // 4 // 3
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def printable(path: Path | str) -> str:
    r"""A file name for messages and tables, on one line.

    Bytes that are not UTF-8, line ends and other control characters become \xe9 and the like.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@contextmanager
def opened(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    """An image with its header read and its pixels not yet decoded.

    source: a path or a file's bytes.
    name: what messages call it.
    Raises ValueError, one line with the name, for a missing, damaged, oversized or too slim image,
    also while the body decodes it.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=FORMATS) as image:
            _check_size(*image.size)
            yield image
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except UNREADABLE as error:
        raise ValueError(f"{name}: not a readable image ({reason(error)})") from None


def _check_size(width: int, height: int) -> None:
    """A strip of 1 x 60000 pixels, its short side resized to 224, would take 8 GB."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; must be at most {MAX_PIXELS:,} in all")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"{width} x {height} pixels; the long side must be at most {MAX_ASPECT_RATIO} times "
            "the short one"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with 8 bits by `convert("RGB")`, as torchvision, timm and open_clip do.

    Grey is repeated, CMYK converted, alpha dropped. One departure: `convert` clips images of 16
    bits (nearly all white) and of floating-point numbers up to 1 (all black), so those are scaled
    to 8 bits first. Raises ValueError for NaN.
    """
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image).astype(np.float64)
        if np.isnan(pixels).any():
            raise ValueError("it has pixels that are NaN")
        tops = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(image.mode, (65535.0,))
        top = next((top for top in tops if pixels.max(initial=0) <= top), tops[-1])
        image = Image.fromarray((np.clip(pixels / top, 0, 1) * 255 + 0.5).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about going to RGB at once
    return image if image.mode == "RGB" else image.convert("RGB")


def decode(source: Path | bytes, name: str) -> Image.Image:
    """An RGB image from a file or its bytes. Raises ValueError as `opened` does."""
    with opened(source, name) as image:
        image.load()
        return to_rgb(image)


def open_image(path: Path) -> Image.Image:
    return decode(path, printable(path))


def is_readable(path: Path) -> bool:
    """Whether a file is an image by its header."""
    try:
        with opened(path, ""):
            return True
    except ValueError:
        return False


def reason(error: Exception) -> str:
    """Pillow's message in one line, without the file's name, which our message has already."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels; must be at most {MAX_PIXELS:,} in all"
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return message.split(" '")[0].split(" <")[0]
