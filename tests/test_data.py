"""Images, folders of classes, and the catalogue of roles."""

import json
import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import folder_of, write_shards

from registers.readers import catalogue, image_folder
from registers.readers.image_folder import ImageFolder
from registers.readers.images import decode, open_image
from registers.settings.data import DataSettings, WorldSettings
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.world import dataset
from registers.world.captions import from_class, templates
from registers.world.dataset import World

RED = (200, 10, 30)


# --- images --------------------------------------------------------------------------------------


def test_every_kind_of_image_becomes_rgb(tmp_path):
    red = Image.new("RGB", (8, 8), RED)
    kinds = {
        "grey.png": (Image.new("L", (8, 8), 77), (77, 77, 77)),
        "bits.png": (Image.new("1", (8, 8), 1), (255, 255, 255)),
        "palette.png": (red.convert("P", palette=Image.Palette.ADAPTIVE), RED),
        "alpha.png": (red.convert("RGBA"), RED),
        "grey-alpha.png": (Image.new("LA", (8, 8), (77, 255)), (77, 77, 77)),
        "deep.png": (Image.fromarray(np.full((8, 8), 77 * 257, np.uint16)), (77, 77, 77)),
        "unit.tif": (Image.fromarray(np.full((8, 8), 0.3, np.float32)), (77, 77, 77)),
        "float.tif": (Image.fromarray(np.full((8, 8), 77.2, np.float32)), (77, 77, 77)),
        "cmyk.jpg": (red.convert("CMYK"), RED),
        "plain.JPEG": (red, RED),
        "plain.webp": (red, RED),
    }
    for name, (image, expected) in kinds.items():
        image.save(
            tmp_path / name, **({"quality": 100} if name.startswith(("cmyk", "plain")) else {})
        )
        opened = open_image(tmp_path / name)
        assert opened.mode == "RGB" and opened.size == (8, 8), name
        assert np.abs(np.asarray(opened, int) - expected).max() <= 4, name


def test_transparent_palette_opens_without_a_warning(tmp_path, recwarn):
    Image.new("P", (8, 8), 3).save(tmp_path / "x.png", transparency=bytes([0, 10, 255, 7]))
    assert open_image(tmp_path / "x.png").mode == "RGB" and not recwarn.list


def test_a_pixel_that_is_no_number_is_told(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(
        ValueError, match=r"x\.tif: not a readable image \(it has pixels that are NaN"
    ):
        open_image(tmp_path / "x.tif")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_unreadable_image_is_one_line_with_its_name(tmp_path, damage):
    whole = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    data = {"truncated": whole.read_bytes()[:1500], "empty": b"", "text": b"hello"}[damage]
    with pytest.raises(ValueError, match=r"some/photo.jpg: not a readable image") as error:
        decode(data, "some/photo.jpg")
    assert "\n" not in str(error.value)


# --- folders -------------------------------------------------------------------------------------


def test_folder_is_sorted_labelled_and_captioned(tmp_path):
    root = folder_of(tmp_path, zebra=2, great_white_shark=3)
    (root / "train" / "zebra" / "notes.txt").write_text("no image")
    (root / "train" / "zebra" / ".hidden.png").write_text("no image")
    data = pickle.loads(pickle.dumps(ImageFolder(root, "train")))
    assert data.classes == ("great white shark", "zebra") and len(data) == 5
    assert [data[i].label for i in range(5)] == [0, 0, 0, 1, 1]
    assert [np.asarray(data[i].image)[0, 0, 0] for i in range(5)] == [0, 1, 2, 0, 1]
    assert data[4].name == "train/zebra/001.png" and data[-1].name == data[4].name
    assert "great white shark" in data[2].caption and data[2].caption == data[2].caption
    with pytest.raises(IndexError):
        data[5]


def test_templates_are_clips_and_all_are_used():
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    captions = [from_class("cat", i) for i in range(84)]
    assert set(captions[:80]) == {template("cat") for template in OPENAI_IMAGENET_TEMPLATES}
    assert len(templates()) == 80
    assert captions[3] != captions[4] and captions[3] == captions[83]


def test_wordnet_ids_become_names(tmp_path):
    folders = ["n01440764_tench", "n01443537", "n02", "black_grouse"]
    names = ("tench", "goldfish", "n02", "black grouse")
    assert image_folder.class_names(folders, tmp_path) == names
    (tmp_path / "words.txt").write_text(
        "n01440764\ttench, Tinca tinca\nn01443537 gold fish, Carassius auratus\n"
    )
    assert image_folder.class_names(["n01440764", "n01443537"], tmp_path) == ("tench", "gold fish")


def test_val_and_test_stand_in_for_each_other(tmp_path):
    root = folder_of(tmp_path, cat=1)
    assert ImageFolder(root, "val").split == "test" and ImageFolder(root, "test").split == "test"
    (root / "test").rename(root / "val")
    assert ImageFolder(root, "test").split == "val"


def test_missing_things_are_one_clear_line(tmp_path):
    def message(split: str = "train") -> str:
        with pytest.raises(ConfigError) as error:
            ImageFolder(tmp_path / "set", split)
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
        return str(error.value)

    assert "no such folder" in message()
    (tmp_path / "set" / "train").mkdir(parents=True)
    assert "no class folders" in message()
    assert "no val/ (nor test/)" in message("val")
    (tmp_path / "set" / "train" / "cat").mkdir()
    assert "no images" in message()


def test_bad_file_is_replaced_noted_and_logged_once(tmp_path, caplog):
    root = folder_of(tmp_path, cat=3, dog=1)
    (root / "train" / "cat" / "001.png").write_bytes(b"broken")
    data = ImageFolder(root, "train")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert data[1].name == "train/cat/002.png"
    assert (
        data.bad == ["train/cat/001.png"]
        and len(caplog.records) == 1
        and "cat/001.png: not a readable image" in caplog.text
    )
    with pytest.raises(ValueError, match=r"cat/001\.png: not a readable image"):
        ImageFolder(root, "train", strict=True)[1]
    (root / "train" / "dog" / "000.png").write_bytes(b"broken")
    assert ImageFolder(root, "train")[3].name == "train/cat/000.png"  # from the last to the first
    for name in ("000", "002"):
        (root / "train" / "cat" / f"{name}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of its 4 images can be read"):
        data[0]


def test_check_lists_unreadable_files(tmp_path):
    root = folder_of(tmp_path, cat=4)
    (root / "train" / "cat" / "000.png").write_bytes(b"broken")
    noise = root / "train" / "cat" / "002.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(noise)
    noise.write_bytes(noise.read_bytes()[:5000])  # the header is whole
    data = ImageFolder(root, "train")
    assert data.check() == ["train/cat/000.png"]
    assert data.check(limit=1) == ["train/cat/000.png"] and data.bad == []


def test_fingerprint_follows_names_and_bytes(tmp_path):
    root = folder_of(tmp_path / "a", cat=2)
    first = ImageFolder(root, "train").fingerprint
    assert ImageFolder(folder_of(tmp_path / "b", cat=2), "train").fingerprint == first
    with open(root / "train" / "cat" / "000.png", "ab") as file:
        file.write(b"!")
    second = ImageFolder(root, "train").fingerprint
    (root / "train" / "cat" / "000.png").rename(root / "train" / "cat" / "00.png")
    assert len({first, second, ImageFolder(root, "train").fingerprint}) == 3


def test_cached_listing_is_used_and_renewed(tmp_path, monkeypatch):
    root = folder_of(tmp_path / "set", cat=2, dog=1)
    cache = tmp_path / "index.npz"
    fresh = ImageFolder(root, "train", cache)
    scandir = os.scandir
    scans = []
    monkeypatch.setattr(
        image_folder.os, "scandir", lambda path: scans.append(str(path)) or scandir(path)
    )
    again = ImageFolder(root, "train", cache)
    assert scans == [str(root / "train")]  # no class folder was read
    assert [again.path(i) for i in range(3)] == [fresh.path(i) for i in range(3)]
    assert again.fingerprint == fresh.fingerprint
    Image.new("RGB", (4, 4)).save(root / "train" / "dog" / "new.png")
    assert len(ImageFolder(root, "train", cache)) == 4
    cache.write_bytes(b"damaged")
    assert len(ImageFolder(root, "train", cache)) == 4


def test_a_mixed_folder_shows_all_classes_early_and_always_in_the_same_order(tmp_path):
    root = folder_of(tmp_path / "set", cat=30, dog=30, owl=30)
    mixed = ImageFolder(root, "train", mixed=True)
    plain = ImageFolder(root, "train")
    first = [mixed[i].label for i in range(30)]
    assert min(first.count(label) for label in range(3)) >= 4
    assert {plain[i].label for i in range(30)} == {0}
    assert sorted(mixed[i].name for i in range(90)) == [plain[i].name for i in range(90)]
    again = ImageFolder(root, "train", mixed=True)
    assert [again[i].name for i in range(90)] == [mixed[i].name for i in range(90)]
    assert all(
        s.name.split("/")[1] == mixed.classes[s.label] for s in (mixed[i] for i in range(90))
    )


# --- catalogue -----------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    made = load_settings(root / "params.yaml", scale="smoke")
    monkeypatch.chdir(tmp_path)
    return made.model_copy(update={"world": WorldSettings(pixels=16, train=5, val=3, test=2)})


def manifest_of(settings, role):
    return json.loads(catalogue.prepare(settings, role, progress=False).read_text())


def test_prepare_draws_the_world_once_and_writes_a_manifest(settings, monkeypatch):
    path = catalogue.prepare(settings, "labels", progress=False)
    assert path == settings.results / "data" / "labels.json"
    manifest = json.loads(path.read_text())
    samples = {split: about["samples"] for split, about in manifest.items()}
    assert samples == {"train": 5, "val": 3, "test": 2}
    assert list(manifest["val"]) == [
        "spec", "split", "samples", "classes", "attributes", "fingerprint", "checked", "unreadable",
    ]  # fmt: skip
    train = catalogue.open_dataset(settings, "labels", "train")
    assert isinstance(train, World) and manifest["train"]["fingerprint"] == train.fingerprint
    before = path.read_bytes()
    monkeypatch.setattr(dataset, "scene", None)  # a second call draws nothing
    assert catalogue.prepare(settings, "labels", progress=False).read_bytes() == before
    assert manifest_of(settings, "eval") == manifest


def test_folders_and_shards_play_roles(settings, tmp_path):
    folder_of(tmp_path / "photos", cat=3, dog=2)
    (tmp_path / "photos" / "train" / "cat" / "001.png").write_bytes(b"broken")
    written = write_shards(tmp_path / "pairs")
    data = DataSettings(
        labels="folder:photos", text="shards:pairs/*.tar", images="folder:photos", eval="world"
    )
    settings = settings.model_copy(update={"data_root": str(tmp_path), "data": data})
    labels = manifest_of(settings, "labels")
    assert labels["train"]["unreadable"] == ["train/cat/001.png"]
    assert labels["val"]["split"] == "test" and labels["train"]["classes"] == ["cat", "dog"]
    pairs = manifest_of(settings, "text")
    assert set(pairs) == {"train"} and pairs["train"]["samples"] == len(written)
    assert manifest_of(settings, "eval")["train"]["spec"] == "world"
    text = catalogue.open_dataset(settings, "text", "train")
    assert [text[i].caption for i in range(7)] == [sample["caption"] for sample in written]
    with pytest.raises(ConfigError, match=r"data.use.text.*shards have no split val"):
        catalogue.open_dataset(settings, "text", "val")
    assert len(list((settings.results / "data").glob("index-*.npz"))) == 3 + 1


def test_a_training_folder_needs_no_val_but_eval_does(settings, tmp_path):
    folder_of(tmp_path / "photos", cat=3)
    shutil.rmtree(tmp_path / "photos" / "test")
    settings = settings.model_copy(
        update={"data_root": str(tmp_path), "data": DataSettings(labels="folder:photos")}
    )
    assert set(manifest_of(settings, "labels")) == {"train"}
    settings = settings.model_copy(update={"data": DataSettings(eval="folder:photos")})
    with pytest.raises(ConfigError, match=r'data.use.eval = "folder:photos": it has no val split'):
        catalogue.prepare(settings, "eval", progress=False)


def test_classes_that_differ_between_splits_are_named_before_anything_trains(settings, tmp_path):
    folder_of(tmp_path / "photos", cat=2, dog=2)
    (tmp_path / "photos" / "test" / "dog").rename(tmp_path / "photos" / "test" / "eel")
    data = DataSettings(labels="folder:photos", eval="folder:photos")
    settings = settings.model_copy(update={"data_root": str(tmp_path), "data": data})
    told = r"the same classes \(only in train: dog; only in val: eel\)"
    with pytest.raises(ConfigError, match=rf'data.use.eval = "folder:photos": .*{told}'):
        catalogue.prepare(settings, "eval", progress=False)
    assert "train" in manifest_of(settings, "labels")  # a training does not care


def test_a_folder_without_a_readable_image_is_refused(settings, tmp_path):
    folder_of(tmp_path / "photos", cat=2)
    for image in (tmp_path / "photos" / "train").rglob("*.png"):
        image.write_bytes(b"broken")
    data = DataSettings(labels="folder:photos")
    settings = settings.model_copy(update={"data_root": str(tmp_path), "data": data})
    with pytest.raises(ConfigError, match=r"folder:photos, train: none of the 2 images"):
        catalogue.prepare(settings, "labels", progress=False)


def test_catalogue_errors_are_one_clear_line(settings):
    with pytest.raises(ConfigError, match=r"world = .*world-val: no prepared split"):
        catalogue.open_dataset(settings, "eval", "val")
    with pytest.raises(
        ConfigError, match="role = 'label': must be one of labels, text, images, eval"
    ):
        catalogue.open_dataset(settings, "label", "train")
    with pytest.raises(ConfigError, match="split = 'dev': must be one of train, val, test"):
        catalogue.open_dataset(settings, "labels", "dev")
    with pytest.raises(ConfigError, match=r"role = 'label': must be one of labels, .*, discovery"):
        catalogue.prepare(settings, "label")
