"""Roles with masks, depth and boxes: which data sets they take, which part is measured, and the stages through the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from registers import cli
from registers.data.sample import Sample
from registers.evals.lost_search import ShortSide
from registers.readers import catalogue, splits
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings


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


def test_one_data_set_for_everything_is_for_pictures_only():
    settings = load_settings({"scale": "smoke", "data": {"use": "folder:cifar10"}})
    assert (
        settings.data.eval == "folder:cifar10"
        and settings.data.segmentation == "world"
        and settings.data.discovery == ("world",)
    )
    other = load_settings(
        {"scale": "smoke", "data": {"use": {"discovery": ["world", "coco:five"]}}}
    )
    assert other.run == "smoke" and other.data.specs("discovery") == (
        "world",
        "coco:five",
    )  # trains nothing again
    for use, words in (
        ({"depth": "voc2012:x"}, 'depth = "voc2012:x": allowed are world, nyud'),
        ({"discovery": []}, "at least one"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_settings({"scale": "smoke", "data": {"use": use}})


def test_shrinking_keeps_boxes_on_their_objects():
    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Sample(Image.new("RGB", (40, 20)), boxes=np.array([[10, 5, 30, 15]], np.float32))

    small = ShortSide(One(), 10)[0]
    assert small.image.size == (20, 10) and small.boxes.tolist() == [[5, 2.5, 15, 7.5]]


def test_dense_and_discovery_by_the_command_line(coco, tmp_path, monkeypatch):
    """A real set beside the world, by settings alone: rows for both, steps of the first."""
    monkeypatch.chdir(tmp_path)
    use = {"discovery": ["world", "coco:five"], "segmentation": "semantic:five"}
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(
            {"scale": "smoke", "mlflow_uri": "sqlite:///m.db", "data": {"root": "data", "use": use}}
        )
    )
    for arguments in (
        ["data", "images"],
        ["train", "dinov2-r0-s0"],
        *(["data", r] for r in ("segmentation", "depth", "discovery")),
    ):
        assert cli.main(arguments) == 0
    assert cli.main(["dense", "dinov2-r0-s0"]) == 0 and cli.main(["discovery", "dinov2-r0-s0"]) == 0
    folder = tmp_path / "results" / "smoke"
    rows = {
        q: pd.read_csv(folder / "measurements" / q / "dinov2-r0-s0.csv")
        for q in ("segmentation", "depth", "discovery")
    }
    assert set(rows["segmentation"]["data"]) == {"five"} and set(rows["segmentation"]["n"]) == {3}
    assert set(rows["depth"]["metric"]) == {"rmse", "rmse_mean_image"} and set(
        rows["depth"]["data"]
    ) == {"world"}
    corloc = (
        rows["discovery"][rows["discovery"]["metric"] == "corloc"].set_index("data")["n"].to_dict()
    )
    assert corloc == {"world": 8, "five": 3}
    pictures = {
        q: np.load(folder / "pictures" / q / "dinov2-r0-s0.npz")
        for q in ("segmentation", "depth", "discovery")
    }
    assert {q: str(arrays["data"]) for q, arrays in pictures.items()} == {
        "segmentation": "five",
        "depth": "world",
        "discovery": "world",
    }
    assert pictures["segmentation"]["0_predicted"].shape == (24, 32) and pictures["segmentation"][
        "classes"
    ].tolist() == ["sky", "sea"]
    for question in pictures:
        assert cli.main(["picture", question, "dinov2-r0-s0"]) == 0
        assert (tmp_path / f"reports/pictures/{question}-dinov2-r0-s0.png").stat().st_size > 0
    steps = pictures["discovery"]
    assert steps["0_rgb"].shape == (32, 32, 3) and len(steps["names"]) == 2
    manifest = json.loads((folder / "data" / "discovery.json").read_text())
    assert {"world val", "five val", "five train"} <= set(manifest)
    assert (
        catalogue.open_annotated(load_settings("params.yaml"), "depth", "val")["world"].split == "val"
    )
