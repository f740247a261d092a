"""Files made to harm: nothing is started, memory stays bounded, and each is one clear line."""

import io
import logging
import os
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import folder_of

from registers.readers.annotated import read_values
from registers.readers.image_folder import ImageFolder
from registers.readers.images import decode, is_readable, open_image
from registers.readers.shards import Shards
from registers.settings.errors import ConfigError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(pwned) print\nshowpage\n"


def save(path: Path, *size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_one", [open_image, lambda path: read_values(path, path.name)])
def test_postscript_by_another_name_starts_nothing(tmp_path, monkeypatch, open_one):
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: started.append(a))
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: started.append(a))
    path = tmp_path / "photo.jpg"
    path.write_bytes(EPS)
    with pytest.raises(ValueError, match=r"photo\.jpg: not a readable image") as error:
        open_one(path)
    assert not started and "\n" not in str(error.value) and not is_readable(path)


def test_other_formats_that_nobody_asked_for_are_refused(tmp_path):
    for kind in ("PDF", "ICO", "TGA", "SGI"):
        path = tmp_path / f"{kind}.png"
        Image.new("RGB", (8, 8)).save(path, kind)
        with pytest.raises(ValueError, match="not a readable image"):
            open_image(path)


def test_a_photo_of_several_frames_is_a_jpeg(tmp_path):
    """Cameras write MPO: a JPEG with a second picture behind it."""
    frame = Image.new("RGB", (8, 8), (200, 10, 30))
    frame.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[frame])
    assert open_image(tmp_path / "a.jpg").size == (8, 8)


@pytest.mark.parametrize("size", [(1, 60000), (60000, 1)])
def test_a_strip_is_refused_by_its_header(tmp_path, size):
    path = save(tmp_path / "strip.png", *size)
    with pytest.raises(ValueError, match=r"strip\.png: .*at most 100 times the short one"):
        open_image(path)
    assert open_image(save(tmp_path / "fine.png", 100, 1)).size == (100, 1)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_take_no_memory():
    zeros = zlib.compress(bytes(200 << 20), 9)
    text = (b"zTXt", b"k\0\0" + zeros)
    bombs = {
        "too many pixels; must be at most 89,478,485": png(30000, 30000, (b"IDAT", zeros)),
        "10000 x 10000 pixels; must be at most 89,478,485": png(10000, 10000, (b"IDAT", zeros)),
        "too large": png(8, 8, text, (b"IDAT", zlib.compress(bytes(200)))),
    }
    for words, data in bombs.items():
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"a.png: not a readable image .*{words}") as error:
            decode(data, "a.png")
        assert tracemalloc.get_traced_memory()[1] < 80 << 20 and "\n" not in str(error.value)
        tracemalloc.stop()


# --- folders -------------------------------------------------------------------------------------


def test_a_loop_of_links_and_a_latin_1_name_stop_nothing(tmp_path, caplog):
    root = folder_of(tmp_path / "set", cat=2)
    place = root / "train"
    (place / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (place / "loop").symlink_to("loop")
    (place / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    Image.new("RGB", (8, 8)).save(place / "plain.png")
    latin = os.fsencode(place) + b"/caf\xe9"
    os.mkdir(latin)
    os.rename(place / "plain.png", latin + b"/gar\xe7on.png")
    cache = tmp_path / "index.npz"
    for _ in range(2):
        data = ImageFolder(root, "train", cache, mixed=True)
        assert len(data) == 3 and data.classes == ("caf\\xe9", "cat")
        names = sorted(data[i].name for i in range(3))
        assert names == ["train/caf\\xe9/gar\\xe7on.png", "train/cat/000.png", "train/cat/001.png"]
        assert len(data.fingerprint) == 64 and data.check() == []
    assert "loop.jpg: cannot be opened (left out)" in caplog.text


# --- shards --------------------------------------------------------------------------------------


def shard(path: Path, **members: bytes) -> str:
    """One sample with an image and these members."""
    image = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image, "PNG")
    with tarfile.open(path, "w") as tar:
        for suffix, data in {"png": image.getvalue(), **members}.items():
            info = tarfile.TarInfo(f"a.{suffix}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize(
    "label", [b"999999999999", b"1000000", b"-1", b"x", b"7" * 100_000, b"3.5", b"\xff"]
)
def test_labels_that_no_data_set_has_are_one_line(tmp_path, label):
    with pytest.raises(ConfigError, match=r"a\.cls is .*; must be an integer from 0 to 999,999"):
        Shards(shard(tmp_path / "a.tar", cls=label))
    assert Shards(shard(tmp_path / "b.tar", cls=b" 12\n"))[0].label == 12


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"json": b"[" * 100_000}, "too deeply nested"),
        ({"json": b'{"caption": ' + b"[" * 100_000}, "too deeply nested"),
        ({"json": b'{"caption": "' + b"x" * (2 << 20) + b'"}'}, "a text of over 1,048,576 bytes"),
        ({"txt": b"x" * (2 << 20)}, "a text of over 1,048,576 bytes"),
    ],
)
def test_texts_without_bounds_are_no_captions(tmp_path, caplog, member, words):
    data = Shards(shard(tmp_path / "a.tar", **member))
    with caplog.at_level(logging.WARNING):
        assert data[0].caption is None
    assert [words in record.getMessage() for record in caplog.records] == [True]


def test_a_text_of_brackets_is_a_caption(tmp_path):
    assert len(Shards(shard(tmp_path / "a.tar", txt=b"[" * 100_000))[0].caption) == 100_000
