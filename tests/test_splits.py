"""Roles with masks, depth and boxes: which sets they take, and which part of each is measured."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from registers import cli
from registers.data.sample import Sample
from registers.digest import digest
from registers.evals.lost_search import ShortSide
from registers.layout import Layout
from registers.readers import catalogue, splits
from registers.settings.data import ANNOTATED_ROLES
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

BACKBONE = "dinov2-r0-s0"


@pytest.fixture
def coco(tmp_path):
    """Five photos, a box in each; masks of the same names. One split: train2017."""
    root = tmp_path / "data" / "five"
    for folder in ("annotations", "train2017", "semantic/train2017"):
        (root / folder).mkdir(parents=True)
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "train2017" / f"{i}.jpg")
        Image.fromarray((np.arange(24 * 32).reshape(24, 32) % 2 + 3).astype(np.uint8)).save(
            root / "semantic" / "train2017" / f"{i}.png"
        )
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 32, "height": 24} for i in range(5)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": [i, 1, 10, 12]}
        for i in range(5)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    (root / "semantic" / "classes.yaml").write_text("classes: {3: sky, 4: sea}\n")
    return root


def test_a_set_of_one_split_is_halved(coco):
    measured = splits.open_set("coco", coco, "discovery", "val")
    tuned = splits.open_set("coco", coco, "discovery", "train")
    assert [s.boxes[0, 0] for s in (measured[i] for i in range(len(measured)))] == [0, 2, 4]
    assert [s.boxes[0, 0] for s in (tuned[i] for i in range(len(tuned)))] == [1, 3]
    assert measured.fingerprint != tuned.fingerprint
    with pytest.raises(ConfigError, match="has no segmentation"):
        splits.open_set("coco", coco, "segmentation", "val")
    masks = splits.open_set("semantic", coco, "segmentation", "train")
    assert (
        len(masks) == 2
        and masks.mask_classes == ("sky", "sea")
        and set(np.unique(masks[0].mask)) == {0, 1}
    )


def test_voc_2012_is_never_tuned_on_its_own_images(tmp_path):
    """Also where the setting names VOCdevkit/VOC2012 itself; VOC 2007 is looked for beside it."""

    def listed(year):
        place = tmp_path / "VOCdevkit" / f"VOC{year}"
        (place / "Annotations").mkdir(parents=True)
        (place / "ImageSets" / "Main").mkdir(parents=True)
        (place / "ImageSets" / "Main" / "trainval.txt").write_text(f"of_{year}\n")
        return place

    place = listed("2012")
    for root in (place, place.parent, tmp_path):
        assert splits.open_set("voc2012", root, "discovery", "train") is None
    listed("2007")
    for root in (place, place.parent, tmp_path):
        assert [p.stem for p in splits.open_set("voc2012", root, "discovery", "train").images] == [
            "of_2007"
        ]
        assert [p.stem for p in splits.open_set("voc2012", root, "discovery", "val").images] == [
            "of_2012"
        ]


def test_the_full_ade20k_by_its_setting(tmp_path):
    root = tmp_path / "ADE20K_2021_17_01"
    for split, folder in (("train", "training"), ("val", "validation")):
        place = root / "images" / "ADE" / folder / "street"
        place.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (2, 1)).save(place / f"ADE_{split}_{i}.jpg")
    with pytest.raises(ConfigError, match=r"objectInfo150\.txt"):
        splits.open_set("ade20k", root, "segmentation", "train")
    (tmp_path / "ADEChallengeData2016").mkdir()
    (tmp_path / "ADEChallengeData2016" / "objectInfo150.txt").write_text(
        "Idx\tName\n1\twall\n2\tsky\n"
    )
    train, val = (
        splits.open_set("ade20k", root, "segmentation", split) for split in ("train", "val")
    )
    assert (
        train.mask_classes == ("wall", "sky")
        and {p.stem for p in train.images} == {"ADE_train_0", "ADE_train_1"}
        and len(val) == 2
    )
    assert (
        splits.name_of("ade20k", root) == "ADE20K_2021_17_01"
        and splits.name_of("coco20k", root) == "COCO 20k"
    )


def test_one_data_set_for_everything_is_for_images_only():
    settings = load_settings({"scale": "smoke", "data": {"use": "folder:cifar10"}})
    assert settings.data.eval == "folder:cifar10"
    assert settings.data.segmentation == "world" and settings.data.discovery == ("world",)
    use = {"discovery": ["world", "coco:five"]}
    other = load_settings({"scale": "smoke", "data": {"use": use}})
    assert other.run == "smoke"  # trains nothing again
    assert other.data.specs("discovery") == ("world", "coco:five")
    for use, words in (
        ({"depth": "voc2012:x"}, "'voc2012:x' is not allowed; must be one of world, none, nyud"),
        ({"discovery": []}, "at least one"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_settings({"scale": "smoke", "data": {"use": use}})


def test_evaluation_sets_are_named_and_opened_at_first_use(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use = {"discovery": ["world", "coco:five"], "eval": "folder:photos", "depth": "nyud:none"}
    settings = load_settings({"scale": "smoke", "data": {"root": "data", "use": use}})

    def names(role: str) -> list[str]:
        return [one.name for one in catalogue.evaluation_sets(settings, role)]

    assert names("discovery") == ["world", "five"] and names("") == []
    assert names("eval") == ["photos"] and names("segmentation") == ["world"]
    five = catalogue.evaluation_sets(settings, "discovery")[1]
    assert five.train.split.endswith("the second on") and len(five.val) == 3
    assert five.val is five.val
    (missing,) = catalogue.evaluation_sets(settings, "depth")
    with pytest.raises(ConfigError, match=r"nyud = .*none: no such folder"):
        _ = missing.val  # opened only now


def test_code_that_reads_a_role():
    use = {"discovery": ["world", "coco:five"], "eval": "folder:photos", "text": "shards:x"}
    settings = load_settings({"scale": "smoke", "data": {"use": use}})
    modules = {
        "": [],
        "eval": ["registers.readers.image_folder"],
        "text": ["registers.readers.shards"],
        "depth": ["registers.world.dataset"],
        "discovery": ["registers.readers.splits", "registers.world.dataset"],
    }
    for role, expected in modules.items():
        assert catalogue.reader_modules(settings, role) == expected
        assert len(digest(*expected)) == 12


def test_shrinking_keeps_boxes_on_their_objects():
    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Sample(Image.new("RGB", (40, 20)), boxes=np.array([[10, 5, 30, 15]], np.float32))

    small = ShortSide(One(), 10)[0]
    assert small.image.size == (20, 10) and small.boxes.tolist() == [[5, 2.5, 15, 7.5]]


# --- through the command line --------------------------------------------------------------------


@pytest.fixture
def run(coco, tmp_path, monkeypatch) -> Path:
    """The results of a trained backbone, measured on a real set beside the world."""
    monkeypatch.chdir(tmp_path)
    use = {"discovery": ["world", "coco:five"], "segmentation": "semantic:five"}
    params = {
        "scale": "smoke",
        "mlflow_uri": "sqlite:///m.db",
        "data": {"root": "data", "use": use},
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for arguments in (
        ["data", "images"],
        ["train", BACKBONE],
        *(["data", question] for question in ANNOTATED_ROLES),
        *(["measure", question, BACKBONE] for question in ANNOTATED_ROLES),
    ):
        assert cli.main(arguments) == 0
    return load_settings("params.yaml").results


def test_a_real_set_beside_the_world_by_settings_alone(run):
    """Rows for both, arrays of the first."""
    rows = {q: pd.read_csv(Layout(run).measurement(q, BACKBONE)) for q in ANNOTATED_ROLES}
    assert set(rows["segmentation"]["data"]) == {"five"} and set(rows["segmentation"]["n"]) == {3}
    assert set(rows["depth"]["metric"]) == {"rmse", "rmse_mean_image"}
    assert set(rows["depth"]["data"]) == {"world"}
    corloc = rows["discovery"][rows["discovery"]["metric"] == "corloc"]
    assert corloc.set_index("data")["n"].to_dict() == {"world": 8, "five": 3}

    arrays = {q: np.load(Layout(run).arrays(q, BACKBONE)) for q in ANNOTATED_ROLES}
    names = {question: str(one["data"]) for question, one in arrays.items()}
    assert names == {"segmentation": "five", "depth": "world", "discovery": "world"}
    assert arrays["segmentation"]["classes"].tolist() == ["sky", "sea"]
    for question in ANNOTATED_ROLES:
        assert cli.main(["draw", f"{question}-{BACKBONE}"]) == 0
        picture = Layout(run).drawing("pictures", f"{question}-{BACKBONE}", "png")
        assert picture.stat().st_size > 0

    manifest = json.loads(Layout(run).manifest("discovery").read_text())
    assert {"world val", "five val", "five train"} <= set(manifest)
    settings = load_settings("params.yaml")
    assert catalogue.open_annotated(settings, "depth", "val")["world"].split == "val"
