"""The wall as image files: what is written is what a study's run is trained on."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from registers.settings.errors import ConfigError
from registers.study.pictures import CONTRAST, write_pictures
from registers.study.regime import TokenRegime
from registers.study.tokens_world import draw_tokens

WALL = TokenRegime(appearance="glyphs", blanks=4, blanks_at="area", content="shared", mark=0.0)


def test_files_show_the_scenes_and_captions_tell_them(tmp_path):
    write_pictures(WALL, tmp_path, {"train": 6, "val": 3})
    scenes = draw_tokens(WALL, 6, torch.Generator().manual_seed(0))
    with tarfile.open(tmp_path / "train.tar") as shard:
        names = shard.getnames()
        texts = [shard.extractfile(name).read().decode() for name in names[1::2]]
    assert names[:2] == ["000000.png", "000000.txt"] and len(names) == 12
    for i, label in enumerate(scenes.label.tolist()):
        file = tmp_path / "train" / f"{label:02d}" / f"{i:06d}.png"
        grey = np.array(Image.open(file).convert("L"), dtype=float)
        first = (160 - grey[:8, 8:16]) / CONTRAST  # the second patch of the first row
        shown = scenes.images[i, 1].view(8, 8).numpy()
        visible = (grey[:8, 8:16] > 0) & (grey[:8, 8:16] < 255)
        assert np.abs(first - shown)[visible].max() < 1 / CONTRAST
        words = texts[i].split()
        assert words[:2] == ["code", str(label)]
        assert words.count("wall") == WALL.blanks
        assert words.count("left") == int(scenes.triggered[i].sum())
        numbers = [int(word) for word in words[2:] if word.isdigit()]
        assert numbers == scenes.symbols[i][~scenes.redundant[i]].tolist()
    assert len(list((tmp_path / "val").glob("*/*.png"))) == 3


def test_vectors_are_no_pictures(tmp_path):
    with pytest.raises(ConfigError, match="must be glyphs"):
        write_pictures(TokenRegime(), tmp_path, {"train": 1})
    assert not list(tmp_path.iterdir())
