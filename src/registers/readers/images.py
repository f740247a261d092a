"""Opening image files of any kind as RGB, as the field does it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


def is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with 8 bits by `convert("RGB")`, as torchvision, timm and open_clip do: grey repeated, CMYK converted, alpha dropped.

    One departure: that call clips 16-bit pictures (nearly all white), so those are scaled to 8 bits first.
    """
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.float64)
        top = 255.0 if image.mode == "I" and pixels.max(initial=0) <= 255 else 65535.0
        image = Image.fromarray((np.clip(pixels / top, 0, 1) * 255 + 0.5).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about going to RGB at once
    return image if image.mode == "RGB" else image.convert("RGB")


def decode(data: bytes | Path, name: str) -> Image.Image:
    """An RGB image from a file or its bytes. Raises ValueError, one line with the name, when it is truncated or no image."""
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image.load()
            return to_rgb(image)
    except FileNotFoundError:
        raise ValueError(f"{name}: no such image") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a readable image ({reason(error)})") from None


def reason(error: Exception) -> str:
    """What Pillow says in one line, without the file's name: our message has it."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return said.split(" '")[0].split(" <")[0]


def open_picture(path: Path) -> Image.Image:
    return decode(path, str(path))


def readable(path: Path, thorough: bool = False) -> bool:
    """Whether a file is an image by its header; thorough: whether it decodes to its end."""
    try:
        if thorough:
            open_picture(path)
        else:
            with Image.open(path):
                pass
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True
