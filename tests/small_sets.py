"""Writes tiny data sets: images, folders of classes, shards."""

from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from registers.world.dataset import scene


def save_image(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def png(path: Path, array: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([i % 256 for i in range(768)])
    image.save(path)
    return path


def folder_of(root: Path, **classes: int) -> Path:
    """root/{train,test}/CLASS/*.png with so many images each, pixel value = number of the file."""
    for split in ("train", "test"):
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 6), (i, i, i)).save(root / split / name / f"{i:03d}.png")
    return root


def write_shards(
    folder: Path, texts: str = "txt", count: int = 7, labels: bool = True
) -> list[dict]:
    """Two shards by the webdataset library, with scenes as images; returns their samples."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for shard, indices in enumerate((range(0, 4), range(4, count))):
        with webdataset.TarWriter(str(folder / f"part-{shard:05d}.tar")) as sink:
            for i in indices:
                sample = scene(0, i, 24)
                text = sample.caption
                if texts == "json":
                    text = {"caption": sample.caption, "url": "x"}
                members = {"__key__": f"{i:06d}", "png": sample.image, texts: text}
                sink.write(members | ({"cls": sample.label} if labels else {}))
                label = sample.label if labels else None
                image = np.asarray(sample.image)
                samples.append({"image": image, "caption": sample.caption, "label": label})
    return samples
