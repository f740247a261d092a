"""Writes small data sets with every fault we can think of, in their native layouts.

Each set holds good images, unusual ones that can be used (grey, 16 bits, CMYK, palette, 1 x 1) and
faulty ones. A fault is in an image's name, so that rows and log can be asked for it.
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (24, 16)
GOOD = ("good_0", "good_1", "good_2", "good_3")
UNUSUAL = ("grey", "grey16", "cmyk", "palette", "1x1", "slim")  # all can be used
BROKEN = ("truncated", "empty", "text")


def side(name: str) -> tuple[int, int]:
    """Width and height of a picture of that name."""
    return {"1x1": (1, 1), "slim": (90, 1)}.get(name, SIZE)


def draw(path: Path, name: str | None = None) -> None:
    """A picture of random colours with the property that its name says."""
    name = name or path.stem
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = side(name)
    pixels = np.random.default_rng(sum(name.encode())).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    image = Image.fromarray(pixels)
    kind = "PNG"
    if name == "grey":
        image = image.convert("L")
    elif name == "grey16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif name == "cmyk":
        image = image.convert("CMYK")
        kind = "JPEG"
    elif name == "palette":
        image = image.quantize(16)
    file = io.BytesIO()
    image.save(file, kind)
    whole = file.getvalue()
    broken = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>404</html>"}
    path.write_bytes(broken.get(name, whole))


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def lines(path: Path, names) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


# --- the sets: `names` is what a split lists, in this order

MASKS = (
    "other_size",
    "range",
    "colour",
    "ignored",
    "no_mask",
)  # faults of a mask; its picture is good


def mask_of(name: str, top: int, nothing: int) -> np.ndarray | None:
    """Values 1 to top over the picture, `nothing` for ignored ones; or what its fault says."""
    width, height = side(name)
    mask = (np.arange(width * height).reshape(height, width) % top + 1).astype(np.uint8)
    if name == "other_size":
        mask = mask[:, :-1]
    elif name == "range":
        mask[0, 0] = top + 1
    elif name == "colour":
        mask = np.stack([mask] * 3, -1)
    elif name == "ignored":
        mask[:] = nothing
    return None if name == "no_mask" else mask


def ade20k(root: Path) -> None:
    lines(
        root / "objectInfo150.txt",
        ["Idx\tRatio\tTrain\tVal\tName", "1\t0.2\t1\t1\twall", "2\t0.1\t1\t1\tsky"],
    )
    for split in ("training", "validation"):
        for name in GOOD + UNUSUAL + BROKEN + MASKS:
            draw(root / "images" / split / f"{name}.jpg")
            if (mask := mask_of(name, top=2, nothing=0)) is not None:
                png(root / "annotations" / split / f"{name}.png", mask)


def voc2012_masks(root: Path) -> None:
    """Only a list of validation images."""
    names = [*GOOD, *UNUSUAL, *BROKEN, *MASKS, "no_picture"]
    # each name twice, so that every second image is one of each
    twice = sorted([*names, *names], key=names.index)
    lines(root / "ImageSets" / "Segmentation" / "val.txt", twice)
    for name in names:
        if name != "no_picture":
            draw(root / "JPEGImages" / f"{name}.jpg")
        if (mask := mask_of(name, top=20, nothing=255)) is not None:
            png(root / "SegmentationClass" / f"{name}.png", mask)


DEPTHS = ("other_size", "eight_bits", "unknown", "no_depth", "cut_depth")


def depth_of(name: str) -> np.ndarray | None:
    width, height = side(name)
    depth = np.full((height, width), 2500, np.uint16)
    depth[0, 0] = 4000
    if name == "other_size":
        depth = depth.T.copy()
    elif name == "eight_bits":
        depth = (depth // 20).astype(np.uint8)
    elif name == "unknown":
        depth[:] = 65535
    return None if name == "no_depth" else depth


def nyud(root: Path) -> None:
    """N_image.png with N_depth.png; the same images, under other numbers, train and test."""
    names = GOOD + UNUSUAL + BROKEN + DEPTHS
    for number, name in enumerate(names + names, start=1):
        draw(root / f"{number}_image.png", name)
        if (depth := depth_of(name)) is not None:
            path = root / f"{number}_depth.png"
            png(path, depth)
            if name == "cut_depth":
                path.write_bytes(path.read_bytes()[:60])
    numbers = np.arange(1, len(names) + 1)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers, "testNdxs": numbers + len(names)})


def recording(root: Path) -> None:
    """Frames of colour and depth without a split, each twice, so that half is one of each."""
    names = GOOD + BROKEN + DEPTHS[:3]
    for place in range(2 * len(names)):
        name = names[place // 2]
        draw(root / f"frame-{place:03d}.color.jpg", name)
        png(root / f"frame-{place:03d}.depth.png", depth_of(name))


BOXES = ("no_boxes", "bad_xml", "no_xml", "endless")


def voc_boxes(root: Path, year: str) -> None:
    place = root / "VOCdevkit" / f"VOC{year}"
    names = [*GOOD, *UNUSUAL, *BROKEN, *BOXES, "no_picture"]
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    box = f"<object><name>cat</name><bndbox>{corners}</bndbox></object>"
    faults = {"no_boxes": "", "endless": box.format("1e999", 4), "bad_xml": "<object>"}
    (place / "Annotations").mkdir(parents=True)
    for split in ("trainval", "test"):
        lines(place / "ImageSets" / "Main" / f"{split}.txt", names)
    for name in names:
        if name != "no_picture":
            draw(place / "JPEGImages" / f"{name}.jpg")
        objects = faults.get(name, box.format(*side(name)))
        if name != "no_xml":
            file = place / "Annotations" / f"{name}.xml"
            file.write_text(f"<annotation>{objects}</annotation>")


def coco(root: Path, split: str = "train2014") -> None:
    names = [*GOOD, *UNUSUAL, *BROKEN, "no_boxes", "crowd", "three_numbers", "null", "no_picture"]
    annotations = []
    for number, name in enumerate(names):
        if name != "no_picture":
            draw(root / split / f"{name}.jpg")
        width, height = side(name)
        one = {
            "image_id": number,
            "category_id": 1,
            "iscrowd": int(name == "crowd"),
            "bbox": [0, 0, width, height],
        }
        one["segmentation"] = [[0, 0, width, 0, width, height, 0, height]]
        if name in ("three_numbers", "null"):
            one["bbox"] = [1, 2, 3] if name == "three_numbers" else None
            one["segmentation"] = [[0, 0, 1, 1, "x", 2]] if name == "three_numbers" else None
        if name != "no_boxes":
            annotations.append(one)
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(names)]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    lines(root / "coco_20k_filenames.txt", [f"{split}/{name}.jpg" for name in names])


def faults_alone(question: str, root: Path) -> None:
    """A data set of two images, of which none can be used for the question."""
    if question == "depth":
        for name in ("a", "b"):
            draw(root / f"{name}.color.jpg", "truncated")
        return
    for name in ("a", "b"):
        draw(root / "train2017" / f"{name}.jpg", "good_0")
    content = {
        "images": [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("ab")],
        "annotations": [{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}],
        "categories": [],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def image_folder(root: Path) -> None:
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            for name in GOOD + UNUSUAL + BROKEN:
                draw(root / split / kind / f"{name}.jpg")
