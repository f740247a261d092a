"""What a manifest depends on: fingerprints of bytes, and the state of a role's files."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import folder_of, write_shards

from registers.readers import catalogue, fingerprints
from registers.readers.image_folder import ImageFolder
from registers.readers.shards import Shards
from registers.readers.splits import open_set
from registers.settings.data import DataSettings
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings


def bitmap(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (value, 0, 0)).save(path)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Other bytes in place: the same size, and the file's own date set back."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


def test_folders_of_bitmaps_differ_by_their_pixels(tmp_path):
    for name, value in (("a", 1), ("b", 2), ("c", 1)):
        bitmap(tmp_path / name / "train" / "cat" / "0.bmp", value)
    a, b, c = (ImageFolder(tmp_path / name, "train").fingerprint for name in "abc")
    assert a != b and a == c


def test_a_file_rewritten_in_place_changes_the_cached_fingerprint(tmp_path):
    root = tmp_path / "set"
    cache = tmp_path / "index.npz"
    for i in range(3):
        bitmap(root / "train" / "cat" / f"{i}.bmp", 7)
    first = ImageFolder(root, "train", cache).fingerprint
    assert ImageFolder(root, "train", cache, mixed=True).fingerprint == first
    rewrite(root / "train" / "cat" / "1.bmp", b"\x07", b"\x08")
    second = ImageFolder(root, "train", cache).fingerprint
    assert second != first and second == ImageFolder(root, "train").fingerprint


def test_only_new_and_changed_files_are_read_again(tmp_path, monkeypatch):
    root = folder_of(tmp_path / "set", cat=3)
    cache = tmp_path / "index.npz"
    digest = fingerprints._digest
    paths = []
    monkeypatch.setattr(fingerprints, "_digest", lambda path: paths.append(path) or digest(path))
    first = ImageFolder(root, "train", cache).fingerprint
    assert len(paths) == 3
    assert ImageFolder(root, "train", cache).fingerprint == first and len(paths) == 3
    (root / "train" / "cat" / "001.png").write_bytes(b"new")
    (root / "train" / "cat" / "new.png").write_bytes(b"new")
    assert ImageFolder(root, "train", cache).fingerprint != first
    assert sorted(Path(path).name for path in paths[3:]) == ["001.png", "new.png"]
    (digests,) = tmp_path.glob("digests-*.npz")
    digests.write_bytes(b"damaged")
    assert ImageFolder(root, "train", cache).fingerprint != first and len(paths) == 9


def test_shards_differ_by_their_bytes(tmp_path):
    write_shards(tmp_path / "s")
    pattern = str(tmp_path / "s" / "*.tar")
    cache = tmp_path / "index.npz"
    first = Shards(pattern, cache).fingerprint
    assert Shards(pattern).fingerprint == first
    shard = tmp_path / "s" / "part-00000.tar"
    content = shard.read_bytes()
    rewrite(shard, content[512:540], content[512:540][::-1])
    assert Shards(pattern, cache).fingerprint != first


def test_a_mask_rewritten_in_place_changes_an_annotated_set(tmp_path):
    root = tmp_path / "set"
    (root / "semantic" / "train").mkdir(parents=True)
    (root / "semantic" / "classes.yaml").write_text("classes: {1: sky, 2: sea}\n")
    for i in range(2):
        bitmap(root / "train" / f"{i}.bmp", i)
        mask = root / "semantic" / "train" / f"{i}.png"
        Image.fromarray(np.ones((6, 8), np.uint8)).save(mask)

    def fingerprint() -> str:
        samples = open_set("semantic", root, "segmentation", "val")
        samples.keep_digests(tmp_path / "digests.npz")
        return samples.fingerprint

    first = fingerprint()
    assert fingerprint() == first and (tmp_path / "digests.npz").is_file()
    rewrite(mask, mask.read_bytes()[50:54], b"abcd")
    assert fingerprint() != first


# --- the state of a role's files -----------------------------------------------------------------


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = DataSettings(labels="folder:photos", text="shards:p{a,b}/*.tar", eval="folder:photos")
    loaded = load_settings({"scale": "smoke"})
    return loaded.model_copy(update={"data_root": str(tmp_path), "data": data})


def test_the_state_follows_photos_classes_and_the_place(settings, tmp_path):
    root = folder_of(tmp_path / "photos", cat=2)
    states = []

    def is_new(state: str) -> bool:
        states.append(state)
        return states.count(state) == 1

    assert is_new(catalogue.files_state(settings, "eval"))
    assert not is_new(catalogue.files_state(settings, "eval"))
    bitmap(root / "test" / "cat" / "new.bmp", 1)
    assert is_new(catalogue.files_state(settings, "eval"))
    (root / "train" / "dog").mkdir()
    assert is_new(catalogue.files_state(settings, "eval"))
    bitmap(root / "test" / "cat" / "new.bmp", 2)  # in place: another date
    assert is_new(catalogue.files_state(settings, "eval"))
    shutil.copytree(root, tmp_path / "elsewhere" / "photos")
    moved = settings.model_copy(update={"data_root": str(tmp_path / "elsewhere")})
    assert is_new(catalogue.files_state(moved, "eval"))


def test_the_state_follows_shards_in_folders_with_braces(settings, tmp_path):
    write_shards(tmp_path / "pa")
    first = catalogue.files_state(settings, "text")
    assert len(catalogue.open_dataset(settings, "text", "train")) == 7
    write_shards(tmp_path / "pb")
    assert catalogue.files_state(settings, "text") != first
    assert len(catalogue.open_dataset(settings, "text", "train")) == 14


def test_the_state_of_an_annotated_set_and_of_what_is_not_there(settings, tmp_path):
    data = DataSettings(segmentation="voc2012:VOC2012", images="folder:none")
    settings = settings.model_copy(update={"data": data})
    assert catalogue.files_state(settings, "images")
    before = catalogue.files_state(settings, "segmentation")
    bitmap(tmp_path / "VOC2012" / "JPEGImages" / "a.bmp", 1)
    after = catalogue.files_state(settings, "segmentation")
    (tmp_path / "VOC2012" / "loop").symlink_to(tmp_path / "VOC2012")
    bitmap(tmp_path / "VOC2007" / "b.bmp", 1)  # looked for beside it
    assert len({before, after, catalogue.files_state(settings, "segmentation")}) == 3


def test_the_world_and_a_download_have_the_same_state_on_every_machine(settings, tmp_path):
    def state(root: str, **roles: str) -> str:
        changed = settings.model_copy(update={"data_root": root, "data": DataSettings(**roles)})
        return catalogue.files_state(changed, "eval")

    assert state(str(tmp_path), eval="world") == state("/elsewhere", eval="world")
    before = state(str(tmp_path), eval="folder:cifar10")
    folder_of(tmp_path / "cifar10", cat=2)
    assert state(str(tmp_path), eval="folder:cifar10") != before  # somebody's own folder
    (tmp_path / "cifar10.complete").touch()  # the pipeline's
    assert state(str(tmp_path), eval="folder:cifar10") == before


# --- what a manifest warns of --------------------------------------------------------------------


def test_an_empty_class_and_a_val_equal_to_train_are_reported(settings, tmp_path, caplog):
    root = folder_of(tmp_path / "photos", cat=2, dog=1)

    def manifest() -> dict:
        caplog.clear()
        return json.loads(catalogue.prepare(settings, "eval", progress=False).read_text())

    # folder_of writes the same files to train and test
    assert manifest()["val"]["same_as_train"] and "same_as_train" not in manifest()["train"]
    assert "folder:photos, val: the same images as train" in caplog.text
    bitmap(root / "test" / "cat" / "new.bmp", 1)
    assert "same_as_train" not in manifest()["val"] and not caplog.text
    for split in ("train", "test"):
        (root / split / "owl").mkdir()
        (root / split / "owl" / "notes.txt").write_text("no image")
    assert manifest()["train"]["empty_classes"] == ["owl"]
    assert "folder:photos, train: class folders without an image: owl" in caplog.text
    (root / "test" / "owl" / "notes.txt").unlink()
    (root / "test" / "owl").rmdir()
    with pytest.raises(ConfigError, match=r"same classes \(only in train: owl"):
        manifest()
