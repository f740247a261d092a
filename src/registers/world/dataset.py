"""The embedded world: small scenes with every truth that the paper's tasks need. Same seed and index, same bytes everywhere.

A scene is a smooth, largely redundant background and one to four textured things at different depths. It is defined in
continuous coordinates (the picture is the unit square, y down), so it may be drawn at any number of pixels.
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


def _ground(plan: Plan, pixels: int) -> np.ndarray:
    """The background's course from near (0) to far (1): (pixels, pixels) float32."""
    at = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels * 2 - 1  # -1..1
    x, y = at[None, :], at[:, None]
    p = plan.ramp
    kind = BACKGROUNDS[plan.background]
    if kind == "plain":
        course = np.full((pixels, pixels), 0.5 + 0.3 * p[0], np.float32)
    elif kind == "gradient":
        steep = abs(p[0]) + abs(p[1]) + 0.2
        course = 0.5 + (p[0] * x + p[1] * y) / (2 * steep)
    elif kind == "glow":
        dx, dy = x - 0.6 * p[0], y - 0.6 * p[1]
        course = 1 / (1 + (1.2 + 0.6 * p[2]) * (dx * dx + dy * dy))
    elif kind == "horizon":
        t = np.minimum(np.maximum((0.3 * p[0] - y) / (0.5 + 0.3 * p[1]) + 0.5, 0), 1)
        course = 0.1 + (t * t * (3 - 2 * t)) * 0.8 + 0.1 * (0.5 + 0.5 * p[2] * x)
    else:
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


def scene(seed: int, index: int, pixels: int = 64, split: str = "train") -> Sample:
    """Scene `index` of a split, with all truths; pure and deterministic, the same bytes on every machine.

    image RGB (pixels, pixels) with analytic antialiasing; mask uint8, 0 background, k = class k - 1; depth float32 in scene
    units, background 7 to 10, things 2 to 6; boxes of the visible extents, from the main thing on; 14 attributes (ATTRIBUTES).
    Splits never overlap: the split is part of the generator's key. Raises ConfigError for a split, seed or index that is none.
    """
    plan = plan_scene(Draws(seed, split, index))
    course = _ground(plan, pixels)
    near, far = tuple(GROUNDS.values())[plan.ground]
    picture = np.stack([n + (f - n) * course for n, f in zip(near, far)]).astype(
        np.float32
    )  # (3, pixels, pixels)
    depth = np.float32(GROUND_NEAR) + np.float32(GROUND_FAR - GROUND_NEAR) * course
    owner = np.zeros((pixels, pixels), np.uint8)  # 0 or 1 + position in plan.things
    light_x, light_y = (
        (HALF_SQRT2 if plan.light % 2 else -HALF_SQRT2),
        (HALF_SQRT2 if plan.light // 2 else -HALF_SQRT2),
    )
    for thing in plan.painted:
        _cast_shadow(picture, thing, -light_x, -light_y)
        where, u, v = thing.window(pixels)
        distance = thing.distance(u, v)
        pixel = 1 / (thing.radius * pixels)  # one pixel in the thing's units
        cover = np.minimum(np.maximum(0.5 - distance / pixel, 0), 1)
        tone = TEXTURES[tuple(TEXTURES)[thing.texture]](u, v, pixel, thing.table)
        # towards the light: rotate the light into the thing's frame
        shade = 1 + 0.2 * (
            (thing.cos * light_x + thing.sin * light_y) * u
            + (thing.cos * light_y - thing.sin * light_x) * v
        )
        haze = 0.35 * (thing.depth - NEAR) / (FAR - NEAR)
        for channel in range(3):
            base = thing.rgb[channel]
            other = (
                base + thing.second_tone * (1 - base)
                if thing.second_tone > 0
                else base * (1 + thing.second_tone)
            )
            colour = (base + (other - base) * tone) * shade
            colour = colour + (far[channel] - colour) * haze
            patch = picture[channel][where]
            patch += (colour - patch) * cover
        inside = distance < 0
        relief = 0.3 * np.maximum(1 - u * u - v * v, 0)
        depth[where] = np.where(inside, thing.depth - relief, depth[where])
        owner[where][inside] = 1 + plan.things.index(thing)
    image = (
        (np.minimum(np.maximum(picture, 0), 1) * 255 + np.float32(0.5))
        .astype(np.uint8)
        .transpose(1, 2, 0)
    )
    kinds = np.array([0] + [1 + thing.kind for thing in plan.things], np.uint8)
    labels = labels_of(plan)
    return Sample(
        image=Image.fromarray(np.ascontiguousarray(image)),
        name=f"{split}/{index}",
        label=labels["class"],
        caption=describe(
            {name: ATTRIBUTES[name][value] for name, value in labels.items()}, plan.touching, index
        ),
        attributes=labels,
        mask=kinds[owner],
        depth=depth,
        boxes=_boxes(owner, len(plan.things)),
    )


def _cast_shadow(picture: np.ndarray, thing: Thing, dx: float, dy: float) -> None:
    """Darken what lies behind, away from the light; the farther the ground, the longer and softer the shadow."""
    height = (GROUND_NEAR - thing.depth) / (GROUND_NEAR - NEAR)  # 0.2..1
    length = 0.015 + 0.04 * height
    where, u, v = thing.window(picture.shape[1], dx * length, dy * length, reach=1.3)
    soft = (0.02 + 0.05 * height) / thing.radius
    cover = np.minimum(np.maximum(0.5 - thing.distance(u, v) / soft, 0), 1)
    picture[(slice(None), *where)] *= 1 - np.float32(0.4) * cover


def _boxes(owner: np.ndarray, things: int) -> np.ndarray:
    """Visible extents (K, 4) as x0, y0, x1, y1, ends exclusive; things without a visible pixel have none."""
    boxes = []
    for number in range(1, things + 1):
        seen = owner == number
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        if len(rows):
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, np.float32).reshape(-1, 4)


# --- a split on disk ---------------------------------------------------------------------------------------------------


def prepare(
    folder: Path, split: str, count: int, pixels: int, seed: int = 0, progress: bool = True
) -> Path:
    """Draw a split once: `folder` gets memory-mapped arrays and world.json. Does nothing where the same split is complete.

    Atomic: all is written to a partial folder beside it, which is renamed at the end. Returns the folder.
    """
    folder = Path(folder)
    request = {"version": VERSION, "split": split, "count": count, "pixels": pixels, "seed": seed}
    if _header(folder).get("request") == request:
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shapes = {
        "image": ((pixels, pixels, 3), np.uint8),
        "mask": ((pixels, pixels), np.uint8),
        "depth": ((pixels, pixels), np.float32),
    }
    arrays = {
        name: np.lib.format.open_memmap(
            partial / f"{name}.npy", mode="w+", dtype=dtype, shape=(count, *shape)
        )
        for name, (shape, dtype) in shapes.items()
    }
    labels, boxes, ends, captions = (
        np.zeros((count, len(ATTRIBUTES)), np.int16),
        [],
        np.zeros(count + 1, np.int64),
        [],
    )
    digest = hashlib.sha256()
    for index in tqdm(
        range(count), desc=f"world {split}", unit="scene", disable=not progress, mininterval=1
    ):
        sample = scene(seed, index, pixels, split)
        truths = {"image": np.asarray(sample.image), "mask": sample.mask, "depth": sample.depth}
        for name, value in truths.items():
            arrays[name][index] = value
            digest.update(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
        labels[index] = list(sample.attributes.values())
        boxes.append(sample.boxes)
        ends[index + 1] = ends[index] + len(sample.boxes)
        captions.append(sample.caption)
    for array in arrays.values():
        array.flush()
    boxes = np.concatenate(boxes) if boxes else np.zeros((0, 4), np.float32)
    for name, array in (("labels", labels), ("boxes", boxes), ("box_ends", ends)):
        np.save(partial / f"{name}.npy", array)
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    digest.update("\n".join(captions).encode())
    header = {
        "request": request,
        "fingerprint": digest.hexdigest(),
        "classes": KINDS,
        "attributes": ATTRIBUTES,
        "captions": captions,
    }
    (partial / "world.json").write_text(json.dumps(header))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _header(folder: Path) -> dict:
    try:
        return json.loads((Path(folder) / "world.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


class World:
    """A prepared split as a Dataset. Arrays are opened where they are first read, so it travels to loader workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        header = _header(self.folder)
        if not header:
            raise ConfigError(
                f"world = {self.folder}: no prepared split there; `snakemake` rule data draws it (registers data)"
            )
        self.classes = tuple(header["classes"])
        self.attributes = {name: tuple(values) for name, values in header["attributes"].items()}
        self.captions: list[str] = header["captions"]
        self.split, self.fingerprint = header["request"]["split"], header["fingerprint"]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("image", "mask", "depth", "labels", "boxes", "box_ends")
        return {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names}

    def __getstate__(self) -> dict:
        return {
            name: value for name, value in self.__dict__.items() if name != "_arrays"
        }  # a memory map pickles as its content

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder}: index {index} of {len(self)}")
        index %= len(self)
        a = self._arrays
        labels = dict(zip(self.attributes, a["labels"][index].tolist()))
        return Sample(
            image=Image.fromarray(np.array(a["image"][index])),
            name=f"{self.split}/{index}",
            label=labels["class"],
            caption=self.captions[index],
            attributes=labels,
            mask=np.array(a["mask"][index]),
            depth=np.array(a["depth"][index]),
            boxes=np.array(a["boxes"][a["box_ends"][index] : a["box_ends"][index + 1]]),
        )
