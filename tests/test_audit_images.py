"""Which photos an audit looks at: folders, files, and what cannot be read."""

import argparse

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
    said = "left out, not readable: 4 images, a05.png, a06.png, a07.png and 1 more"
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
