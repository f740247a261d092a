"""Which photos an audit looks at: folders, files, and what cannot be read."""

import argparse
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from registers.audit import command
from registers.audit import images as photos
from registers.audit.api import tokens
from registers.audit.errors import AuditError

SIZE = (32, 32)
FLAT = ((0.0,) * 3, (1.0,) * 3)


def prepare(images, limit=None):
    return photos.prepare(images, SIZE, FLAT, limit)


@pytest.fixture
def classes(tmp_path):
    """Two folders of 32 and 31 photos, as of two classes."""
    for name, count in (("a", 32), ("b", 31)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            path = tmp_path / "photos" / name / f"{name}{i:02}.png"
            Image.new("RGB", (40, 40), (i, 0, 0)).save(path)
    return tmp_path / "photos"


def test_the_default_views_need_no_network_and_are_always_the_same():
    size = (48, 64)
    first, second = (photos.prepare(None, size, ((0.5,) * 3, (0.5,) * 3)) for _ in range(2))
    assert first.pixels.shape == (photos.VIEWS, 3, 48, 64)
    assert torch.equal(first.pixels, second.pixels)
    assert len(set(first.names)) == photos.VIEWS
    shown = photos.prepare(first.pixels, size, ((0.5,) * 3, (0.5,) * 3)).pictures
    assert np.abs(shown.astype(int) - first.pictures).max() <= 1


def of_class(looked_at, name):
    return sum(each.startswith(name) for each in looked_at.names)


def test_a_limit_is_spread_over_all_that_was_named(classes):
    for given in (classes, [classes / "a", classes / "b"]):
        looked_at = prepare(given)
        assert len(looked_at.names) == photos.LIMIT
        assert of_class(looked_at, "a") == of_class(looked_at, "b") == 16
        assert looked_at.names[0] == "a00.png" and looked_at.names[-1] == "b30.png"
        assert looked_at.notes == ("32 of 63 images, evenly chosen; --limit N takes N",)
        assert prepare(given, 2).names == ("a00.png", "b30.png")
    assert len(prepare(classes, 63).names) == 63 and prepare(classes, 63).notes == ()


def test_files_that_are_named_are_all_looked_at(classes):
    files = sorted(classes.rglob("*.png"))[:40]
    assert len(prepare(files).names) == 40
    assert len(prepare([*files, classes / "b"]).names) == 40 + 31
    assert len(prepare(files, 5).names) == 5
    assert prepare(torch.zeros(10, 3, 8, 8), 2).names == ("image 1", "image 10")


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
def test_a_limit_is_at_least_one(limit, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["m", "--limit", limit])
    assert "at least 1" in capsys.readouterr().err
    with pytest.raises(AuditError, match="limit = 0: must be at least 1"):
        prepare(None, 0)


def test_broken_files_of_a_folder_are_left_out_and_named(classes):
    for name in ("a05", "a06", "a07", "b00"):
        (classes / name[0] / f"{name}.png").write_bytes(b"broken")
    looked_at = prepare(classes)
    assert len(looked_at.names) == photos.LIMIT, "others take their place"
    looked_at = prepare(classes, 63)
    assert len(looked_at.names) == 59 and len(looked_at.pixels) == 59
    why = "not a readable image (cannot identify image file)"
    first = [f"{classes / 'a' / name}: {why}" for name in ("a05.png", "a06.png", "a07.png")]
    said = f"left out 4 images: {'; '.join(first)}; and 1 more"
    assert looked_at.notes == (said,)
    bank = tokens(lambda x: torch.rand(len(x), 65, 8), classes, prefix=1, limit=63)
    assert said in bank.card.notes
    with pytest.raises(AuditError, match=r"images = .*a05\.png: not a readable image") as error:
        prepare([classes / "a" / "a00.png", classes / "a" / "a05.png"])
    assert "\n" not in str(error.value)


def test_a_folder_of_broken_files_is_refused(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(AuditError, match="none of 2 files is a readable image") as error:
        prepare(tmp_path)
    assert "\n" not in str(error.value)


def test_a_format_that_pillow_gives_to_a_program_is_not_opened(tmp_path, monkeypatch):
    """EPS bytes named .jpg would run Ghostscript."""
    from PIL import EpsImagePlugin

    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: ran.append(1))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(AuditError, match=r"a\.jpg: not a readable image"):
        prepare(tmp_path / "a.jpg")
    assert not ran


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (20, 20)).save(tmp_path / "bomb.png")
    with pytest.raises(AuditError, match=r"bomb\.png: not a readable image") as error:
        prepare(tmp_path / "bomb.png")
    assert "\n" not in str(error.value)
    with pytest.raises(AuditError, match="bomb"):
        prepare([Image.new("I;16", (2, 1)), tmp_path / "bomb.png"])


@pytest.mark.parametrize(
    ("side", "why"), [(9600, "9600 x 9600 pixels; must be"), (13500, "too many pixels; must be")]
)
def test_a_huge_photo_of_a_folder_is_left_out_without_a_warning(tmp_path, side, why):
    """In a process of its own, as pytest sets the filters of warnings."""
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "small.png")
    code = f"""
from registers.audit.images import prepare
looked_at = prepare({str(tmp_path)!r}, (32, 32), ((0.0,) * 3, (1.0,) * 3))
print(*looked_at.names, *looked_at.notes)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    place = tmp_path / "huge.png"
    assert (
        f"small.png left out 1 image: {place}: not a readable image ({why} at most 89,478,485"
        in (run.stdout)
    )


def test_a_path_that_is_empty_is_not_the_folder_that_one_is_in(classes, monkeypatch):
    monkeypatch.chdir(classes)
    for given in ("", ["a", ""]):
        with pytest.raises(AuditError, match="images: must not be an empty path"):
            prepare(given)
    assert len(prepare(".").names) == photos.LIMIT


def test_line_ends_of_a_name_stay_out_of_messages(tmp_path):
    (tmp_path / "a\n\x1b[1m.png").write_bytes(b"broken")
    for given in (tmp_path, tmp_path / "a\n\x1b[1m.png", tmp_path / "b\n.png"):
        with pytest.raises(AuditError) as error:
            prepare(given)
        assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
        assert r"\x0a" in str(error.value)
