"""Scenes of glyphs as image files: the wall as a data set, for the paper's recipes or your own.

OUT/{train,val}/CODE/NUMBER.png, for `data: {use: {labels: "folder:OUT"}}`, and OUT/train.tar, a
WebDataset shard of the same pictures with captions, for `text: "shards:OUT/train.tar"`. A caption
names the code and then what every patch shows, row by row: the number of its symbol, with a
"left" before it where it has a trigger, or "wall".
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from registers.settings.errors import refusal
from registers.study.regime import AnyRegime
from registers.study.tokens_world import TokenScenes, draw_tokens

CONTRAST = 170.0  # grey levels of a pixel's unit; ink is dark
ONCE = 500  # scenes drawn together


def write_pictures(regime: AnyRegime, out: Path, counts: dict[str, int]) -> None:
    """counts: split -> number of scenes; those of one split are never in another. Raises
    ConfigError where patches are no pictures."""
    if getattr(regime, "appearance", None) != "glyphs":
        raise refusal("variant.appearance", getattr(regime, "appearance", None), "glyphs")
    out.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(counts.items()):
        with tarfile.open(out / f"{split}.tar", "w") as shard:
            for start in tqdm(range(0, count, ONCE), desc=split):
                many = min(ONCE, count - start)
                generator = torch.Generator().manual_seed(seed * 10**9 + start)
                scenes = draw_tokens(regime, many, generator)
                pictures, captions = paint(scenes), caption(scenes)
                for i, (picture, text) in enumerate(zip(pictures, captions, strict=True)):
                    file = io.BytesIO()
                    Image.fromarray(picture).convert("RGB").save(file, "png")
                    name = f"{start + i:06d}"
                    folder = out / split / f"{int(scenes.label[i]):02d}"
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{name}.png").write_bytes(file.getvalue())
                    _add(shard, f"{name}.png", file.getvalue())
                    _add(shard, f"{name}.txt", text.encode())


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def paint(scenes: TokenScenes) -> np.ndarray:
    """(B, H, W) uint8, the patches in their places."""
    count, cells, channels = scenes.images.shape
    grid, side = round(cells**0.5), round(channels**0.5)
    tiles = scenes.images.view(count, grid, grid, side, side).transpose(2, 3)
    grey = 160 - CONTRAST * tiles.reshape(count, grid * side, grid * side)
    return grey.round().clamp(0, 255).to(torch.uint8).numpy()


def caption(scenes: TokenScenes) -> list[str]:
    """One text a scene."""
    texts = []
    for i, label in enumerate(scenes.label.tolist()):
        words = [f"code {label}"]
        for cell, symbol in enumerate(scenes.symbols[i].tolist()):
            if scenes.redundant[i, cell]:
                words.append("wall")
            else:
                words.append(f"left {symbol}" if scenes.triggered[i, cell] else str(symbol))
        texts.append(" ".join(words))
    return texts
