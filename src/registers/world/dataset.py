"""The built-in world: small scenes with every annotation that the paper's tasks need.

The same seed and index give the same bytes on every machine. A scene is a smooth, largely redundant
background and one to four textured things at different depths. It is defined in continuous
coordinates (the image is the unit square, y down), so it may be drawn at any number of pixels.
"""

import hashlib
import json
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from registers.data.sample import Sample
from registers.files import sha256
from registers.settings.errors import ConfigError
from registers.world.captions import describe
from registers.world.plan import (
    ATTRIBUTES,
    BACKGROUNDS,
    FAR,
    GROUND_FAR,
    GROUND_NEAR,
    GROUNDS,
    KINDS,
    NEAR,
    VERSION,
    Draws,
    Plan,
    Thing,
    labels_of,
    plan_scene,
)
from registers.world.shapes import HALF_SQRT2, TEXTURES

HEADER = "world.json"
ARRAYS = ("image", "mask", "depth", "labels", "boxes", "box_ends")


def scene(seed: int, index: int, pixels: int = 64, split: str = "train") -> Sample:
    """Scene `index` of a split, with all annotations.

    image: RGB (pixels, pixels) with analytic antialiasing. mask: 0 background, k = class k - 1.
    depth: scene units, background 7 to 10, things 2 to 6. boxes: of the visible extents, from the
    main thing on. attributes: the 14 of ATTRIBUTES.

    Splits never overlap: the split is part of the generator's key. Raises ConfigError for a split,
    seed or index that is not possible.
    """
    plan = plan_scene(Draws(seed, split, index))
    labels = labels_of(plan)
    names = {name: ATTRIBUTES[name][value] for name, value in labels.items()}
    image_CHW, depth, owner = _draw(plan, pixels)
    image = (np.minimum(np.maximum(image_CHW, 0), 1) * 255 + np.float32(0.5)).astype(np.uint8)
    kinds = np.array([0] + [1 + thing.kind for thing in plan.things], np.uint8)
    return Sample(
        image=Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))),
        name=f"{split}/{index}",
        label=labels["class"],
        caption=describe(names, plan.touching, index),
        attributes=labels,
        mask=kinds[owner],
        depth=depth,
        boxes=_boxes(owner, len(plan.things)),
    )


# --- drawing --------------------------------------------------------------------------------------


def _draw(plan: Plan, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A planned scene: (image (3, H, W), depth (H, W), owner (H, W)).

    owner: uint8, 0 for the background or 1 + the position in plan.things.
    """
    course = _course(plan, pixels)
    near, far = tuple(GROUNDS.values())[plan.ground]
    image = np.stack([n + (f - n) * course for n, f in zip(near, far)]).astype(np.float32)
    depth = np.float32(GROUND_NEAR) + np.float32(GROUND_FAR - GROUND_NEAR) * course
    owner = np.zeros((pixels, pixels), np.uint8)
    light = _light(plan)
    for thing in plan.painted:
        _cast_shadow(image, thing, light)
        where, u, v = thing.window(pixels)
        distance = thing.distance(u, v)
        inside = distance < 0
        _paint(image, where, thing, (u, v), distance, light, far)
        relief = 0.3 * np.maximum(1 - u * u - v * v, 0)
        depth[where] = np.where(inside, thing.depth - relief, depth[where])
        owner[where][inside] = 1 + plan.things.index(thing)
    return image, depth, owner


def _course(plan: Plan, pixels: int) -> np.ndarray:
    """How the background runs from near (0) to far (1): (pixels, pixels) float32."""
    middles = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels * 2 - 1  # -1 to 1
    x = middles[None, :]
    y = middles[:, None]
    p = plan.ramp
    match BACKGROUNDS[plan.background]:
        case "plain":
            course = np.full((pixels, pixels), 0.5 + 0.3 * p[0], np.float32)
        case "gradient":
            steep = abs(p[0]) + abs(p[1]) + 0.2
            course = 0.5 + (p[0] * x + p[1] * y) / (2 * steep)
        case "glow":
            dx = x - 0.6 * p[0]
            dy = y - 0.6 * p[1]
            course = 1 / (1 + (1.2 + 0.6 * p[2]) * (dx * dx + dy * dy))
        case "horizon":
            t = np.minimum(np.maximum((0.3 * p[0] - y) / (0.5 + 0.3 * p[1]) + 0.5, 0), 1)
            course = 0.1 + (t * t * (3 - 2 * t)) * 0.8 + 0.1 * (0.5 + 0.5 * p[2] * x)
        case "haze":
            course = 0.5 + 0.3 * (
                p[0] * x * y
                + p[1] * (x * x - 0.3)
                + p[2] * (y * y - 0.3)
                + p[3] * x * (1 - y * y)
                + p[4] * y * (1 - x * x)
            )
    weak = (
        p[5] * x
        + p[6] * y
        + p[7] * x * y
        + p[8] * x * x * y
        + p[9] * y * y * x
        + p[10] * (x * x - y * y)
    )
    return np.minimum(np.maximum(course + 0.03 * weak, 0), 1).astype(np.float32)


def _light(plan: Plan) -> tuple[float, float]:
    """Unit vector (x, y) towards the light, one of the four corners."""
    x = HALF_SQRT2 if plan.light % 2 else -HALF_SQRT2
    y = HALF_SQRT2 if plan.light // 2 else -HALF_SQRT2
    return x, y


def _cast_shadow(image: np.ndarray, thing: Thing, light: tuple[float, float]) -> None:
    """Darken what lies behind a thing, away from the light.

    The farther the ground, the longer and softer the shadow.
    """
    height = (GROUND_NEAR - thing.depth) / (GROUND_NEAR - NEAR)  # 0.2 to 1
    length = 0.015 + 0.04 * height
    dx = -light[0] * length
    dy = -light[1] * length
    where, u, v = thing.window(image.shape[1], dx, dy, reach=1.3)
    softness = (0.02 + 0.05 * height) / thing.radius
    cover = np.minimum(np.maximum(0.5 - thing.distance(u, v) / softness, 0), 1)
    image[(slice(None), *where)] *= 1 - np.float32(0.4) * cover


def _paint(
    image: np.ndarray,
    where: tuple[slice, slice],
    thing: Thing,
    frame: tuple[np.ndarray, np.ndarray],
    distance: np.ndarray,
    light: tuple[float, float],
    haze_rgb: tuple[float, ...],
) -> None:
    """Paint a textured, shaded thing into the image.

    where: its part of the image. frame: coordinates (u, v) of its own frame there.
    distance: to its rim, in radii. haze_rgb: the colour that far things fade to.
    """
    u, v = frame
    pixel = 1 / (thing.radius * image.shape[1])  # one pixel in the thing's units
    cover = np.minimum(np.maximum(0.5 - distance / pixel, 0), 1)
    texture = tuple(TEXTURES.values())[thing.texture]
    tone = texture(u, v, pixel, thing.table)
    # the light, rotated into the thing's frame
    light_u = thing.cos * light[0] + thing.sin * light[1]
    light_v = thing.cos * light[1] - thing.sin * light[0]
    shade = 1 + 0.2 * (light_u * u + light_v * v)
    haze = 0.35 * (thing.depth - NEAR) / (FAR - NEAR)
    for channel, base in enumerate(thing.rgb):
        colour = (base + (_second_tone(base, thing.second_tone) - base) * tone) * shade
        colour = colour + (haze_rgb[channel] - colour) * haze
        part = image[channel][where]
        part += (colour - part) * cover


def _second_tone(base: float, brightness: float) -> float:
    """A tone towards white (brightness above 0) or black (below)."""
    if brightness > 0:
        return base + brightness * (1 - base)
    return base * (1 + brightness)


def _boxes(owner: np.ndarray, things: int) -> np.ndarray:
    """Visible extents (K, 4) as x0, y0, x1, y1, ends exclusive; a hidden thing has none."""
    boxes = []
    for number in range(1, things + 1):
        visible = owner == number
        rows = np.flatnonzero(visible.any(1))
        columns = np.flatnonzero(visible.any(0))
        if len(rows):
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, np.float32).reshape(-1, 4)


# --- a split on disk ------------------------------------------------------------------------------


def prepare(
    folder: Path, split: str, count: int, pixels: int, seed: int = 0, progress: bool = True
) -> Path:
    """Draw a split once: `folder` gets memory-mapped arrays and world.json. Returns the folder.

    count: scenes. pixels: side of an image. progress: show a bar.

    Does nothing where the same split is complete. Atomic: all is written to a partial folder beside
    it, which is renamed at the end.
    """
    folder = Path(folder)
    request = {"version": VERSION, "split": split, "count": count, "pixels": pixels, "seed": seed}
    header = _header(folder)
    if header.get("request") == request and "sha256" in header:
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fingerprint, captions = _write_arrays(partial, split, count, pixels, seed, progress)
    header = {
        "request": request,
        "fingerprint": fingerprint,
        "classes": KINDS,
        "attributes": ATTRIBUTES,
        "captions": captions,
        "sha256": {name: sha256(partial / f"{name}.npy") for name in ARRAYS},
    }
    (partial / HEADER).write_text(json.dumps(header))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _write_arrays(
    folder: Path, split: str, count: int, pixels: int, seed: int, progress: bool
) -> tuple[str, list[str]]:
    """Draw and write all scenes: (fingerprint over all that was written, captions).

    Per scene an image, mask and depth; labels; boxes, those of scene i from box_ends[i] to
    box_ends[i + 1].
    """
    digest = hashlib.sha256()
    dense = _open_arrays(folder, count, pixels)
    labels = np.zeros((count, len(ATTRIBUTES)), np.int16)
    box_ends = np.zeros(count + 1, np.int64)
    boxes = [np.zeros((0, 4), np.float32)]
    captions = []
    indices = tqdm(
        range(count), desc=f"world {split}", unit="scene", disable=not progress, mininterval=1
    )
    for index in indices:
        sample = scene(seed, index, pixels, split)
        values = {"image": np.asarray(sample.image), "mask": sample.mask, "depth": sample.depth}
        for name, value in values.items():
            dense[name][index] = value
            digest.update(_bytes(value))
        labels[index] = list(sample.attributes.values())
        boxes.append(sample.boxes)
        box_ends[index + 1] = box_ends[index] + len(sample.boxes)
        captions.append(sample.caption)
    for array in dense.values():
        array.flush()
    small = {"labels": labels, "boxes": np.concatenate(boxes), "box_ends": box_ends}
    for name, array in small.items():
        np.save(folder / f"{name}.npy", array)
        digest.update(_bytes(array))
    digest.update("\n".join(captions).encode())
    return digest.hexdigest(), captions


def _open_arrays(folder: Path, count: int, pixels: int) -> dict[str, np.ndarray]:
    """Empty memory-mapped arrays of what a scene has per pixel."""
    shapes = {
        "image": ((count, pixels, pixels, 3), np.uint8),
        "mask": ((count, pixels, pixels), np.uint8),
        "depth": ((count, pixels, pixels), np.float32),
    }
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in shapes.items()
    }


def _bytes(array: np.ndarray) -> bytes:
    """Its content, little-endian on every machine."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _header(folder: Path) -> dict:
    try:
        header = json.loads((Path(folder) / HEADER).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


class World:
    """A prepared split as a Dataset.

    Arrays are opened where they are first read, so that it travels to loader workers. Raises
    ConfigError where no split was prepared.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        header = _header(self.folder)
        if "sha256" not in header:
            raise ConfigError(
                f"world = {self.folder}: no prepared split there; `registers world SPLIT` draws it"
            )
        self.classes = tuple(header["classes"])
        self.attributes = {name: tuple(values) for name, values in header["attributes"].items()}
        self.captions: list[str] = header["captions"]
        self.split = header["request"]["split"]
        self.fingerprint = header["fingerprint"]
        self._digests = header["sha256"]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: self._array(name) for name in ARRAYS}

    def _array(self, name: str) -> np.ndarray:
        """Memory-mapped, and compared with its SHA-256. Raises ConfigError where it is damaged."""
        path = self.folder / f"{name}.npy"
        if not path.is_file() or sha256(path) != self._digests[name]:
            raise ConfigError(
                f"{path}: damaged, its SHA-256 is not the one in {HEADER}; delete the folder "
                f"{self.folder} and run snakemake again"
            )
        return np.load(path, mmap_mode="r")

    def __getstate__(self) -> dict:
        """Without the arrays: a memory map would be pickled as its content."""
        return {name: value for name, value in vars(self).items() if name != "_arrays"}

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder}: index {index} of {len(self)}")
        index %= len(self)
        arrays = self._arrays
        labels = dict(zip(self.attributes, arrays["labels"][index].tolist()))
        start, end = arrays["box_ends"][index : index + 2]
        return Sample(
            image=Image.fromarray(np.array(arrays["image"][index])),
            name=f"{self.split}/{index}",
            label=labels["class"],
            caption=self.captions[index],
            attributes=labels,
            mask=np.array(arrays["mask"][index]),
            depth=np.array(arrays["depth"][index]),
            boxes=np.array(arrays["boxes"][start:end]),
        )
