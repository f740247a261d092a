"""Readers of VOC, COCO, ADE20k and NYUd: tiny copies of their layouts, and damaged files."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image
from small_sets import png, save_image

from registers.data.usable import UsableSamples
from registers.readers.ade20k import Ade20k, Ade20kFull, object_names
from registers.readers.coco import Coco, SemanticMasks
from registers.readers.nyud import Nyud
from registers.readers.voc import Voc
from registers.settings.errors import ConfigError


def xml(path: Path, *objects: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"<object>{one}</object>" for one in objects)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{content}</annotation>")


def box(x0, y0, x1, y1) -> str:
    return f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2007"
    xml(
        root / "Annotations" / "a.xml",
        "<name>cat</name><difficult>1</difficult>" + box(1, 1, 6, 4),
        "<name>dog</name>" + box(2, 3, "4.7", 4),
    )
    xml(
        root / "Annotations" / "b.xml",
        "<name>cat</name><truncated>1</truncated><difficult/>" + box(1, 1, 2, 2),
    )
    xml(root / "Annotations" / "c.xml")
    for name in "abc":
        save_image(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("a\nb\nc\n")
    return tmp_path


def test_voc_boxes_follow_the_published_rule(voc):
    data = Voc(voc, "trainval")
    # 1-based, inclusive; a fraction is dropped; difficult ones count
    assert data[0].boxes.tolist() == [[0, 0, 6, 4], [1, 2, 4, 4]]
    assert data[1].boxes.tolist() == [[0, 0, 2, 2]] and data[2].boxes.shape == (0, 4)
    assert [Path(s.name).name for s in data] == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(Voc(voc / "VOCdevkit", "all")) == 3
    assert data.fingerprint == Voc(voc / "VOCdevkit" / "VOC2007").fingerprint
    with pytest.raises(ConfigError, match=r"val\.txt: no such file"):
        Voc(voc, "val")


def test_voc_masks_and_what_is_wrong_with_some(tmp_path):
    root = tmp_path / "VOC2012"
    good = np.array([[0, 20, 255], [1, 2, 3]], np.uint8)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    listed = root / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_text("good\nsize\nrange\ncolour\nmissing\n")
    for name, mask in (
        ("good", good),
        ("size", good.T.copy()),
        ("range", good + 21),
        ("colour", np.zeros((2, 3, 3), np.uint8)),
    ):
        save_image(root / "JPEGImages" / f"{name}.jpg", (3, 2))
        png(root / "SegmentationClass" / f"{name}.png", mask, palette=name == "good")
    data = Voc(tmp_path, "val", "2012", annotation="masks")
    assert data[0].mask.dtype == np.uint8 and data[0].mask.tolist() == good.tolist()
    assert len(data.mask_classes) == 21
    for index, message in (
        (1, "SegmentationClass/size.png: 2 x 3 pixels, but its image has 3 x 2"),
        (2, "SegmentationClass/range.png: class id 21 is out of range; must be 0 to 20, 255"),
        (3, "SegmentationClass/colour.png: a mask of shape"),
        (4, "missing.jpg: no such file"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            data[index]
        assert "\n" not in str(error.value)
    samples = UsableSamples(data, needs=["mask"])
    assert [Path(s.name).name for s in samples] == ["good.jpg"] and samples.used == 1
    note = "; 4 of 5 images left out, the first: SegmentationClass/size.png"
    assert samples.note().startswith(note)


@pytest.mark.parametrize("kind", ["grey", "grey16", "cmyk", "alpha", "1x1"])
def test_unusual_images_become_rgb(voc, kind):
    path = voc / "VOCdevkit" / "VOC2007" / "JPEGImages" / "a.jpg"
    if kind == "cmyk":
        Image.new("CMYK", (6, 4), (0, 0, 0, 255)).save(path)
    elif kind == "grey16":
        Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(path, format="PNG")
    else:
        mode = {"grey": "L", "alpha": "RGBA", "1x1": "RGB"}[kind]
        Image.new(mode, (1, 1) if kind == "1x1" else (6, 4)).save(path, format="PNG")
    image = Voc(voc)[0].image
    assert image.mode == "RGB" and image.size == ((1, 1) if kind == "1x1" else (6, 4))
    if kind == "grey16":
        assert np.asarray(image)[0, 0].tolist() == [156] * 3  # 40000 / 65535 * 255


def test_truncated_images_and_damaged_annotations_are_named_and_left_out(voc):
    root = voc / "VOCdevkit" / "VOC2007"
    rng = np.random.default_rng(0)
    photo = root / "JPEGImages" / "a.jpg"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(photo)
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    (root / "Annotations" / "b.xml").write_text("<annotation><object>")
    xml(root / "Annotations" / "c.xml", "<name>cat</name>" + box(1, 1, 2, 2))
    samples = UsableSamples(Voc(voc), needs=["boxes"])
    assert [Path(s.name).name for s in samples] == ["c.jpg"]
    assert "a.jpg: not a readable image" in samples.left_out[0]
    assert "Annotations/b.xml: not a readable VOC annotation" in samples.left_out[1]


COCO = {
    "images": [{"id": 7, "file_name": "x_7.jpg"}, {"id": 3, "file_name": "x_3.jpg"}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    "annotations": [
        {
            "image_id": 7,
            "category_id": 18,
            "iscrowd": 0,
            "bbox": [0.4, 0.6, 2.2, 2.0],
            "segmentation": [[0, 0, 2, 0, 2, 3, 0, 3]],
        },
        {
            "image_id": 7,
            "category_id": 1,
            "iscrowd": 1,
            "bbox": [0, 0, 6, 4],
            "segmentation": {"size": [4, 6], "counts": [20, 4]},
        },
        {
            "image_id": 3,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [1, 1, 2.5, 1.5],
            "segmentation": [[2, 1, 5, 1, 5, 3, 2, 3]],
        },
        {
            "image_id": 3,
            "category_id": 18,
            "iscrowd": 0,
            "bbox": [4, 1, 1, 2],
            "segmentation": [[4, 1, 5, 1, 5, 3, 4, 3]],
        },
    ],
}


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2014.json").write_text(json.dumps(COCO))
    for name in ("x_7.jpg", "x_3.jpg"):
        save_image(tmp_path / "train2014" / name)
    return tmp_path


def test_coco_boxes_are_rounded_and_crowds_dropped(coco):
    data = Coco(coco, "train2014")
    assert [Path(s.name).name for s in data] == ["x_3.jpg", "x_7.jpg"]  # by id
    assert data[1].boxes.tolist() == [[0, 1, 3, 3]]
    # Python rounds 3.5 to 4 and 2.5 to 2, as the release does
    assert data[0].boxes.tolist() == [[1, 1, 4, 2], [4, 1, 5, 3]]


def test_coco_takes_a_list_of_file_names_in_its_order(coco):
    listed = coco / "names.txt"
    listed.write_text("train2014/x_7.jpg\n\ntrain2014/x_3.jpg\n")
    assert [Path(s.name).name for s in Coco(coco, "train2014", listed)] == ["x_7.jpg", "x_3.jpg"]
    assert len(Coco(coco, "train2014", ["x_3.jpg"])) == 1
    with pytest.raises(ConfigError, match=r"names = x_9\.jpg"):
        Coco(coco, "train2014", ["x_9.jpg"])


def test_coco_masks_from_polygons_and_run_lengths(coco):
    data = Coco(coco, "train2014", annotation="masks")
    assert data.mask_classes == ("background", "person", "dog")
    seven = data[1].mask
    assert (seven[:, 5] == 255).all()  # the crowd is the last column
    assert seven[0, 0] == 2 and seven[3, 4] == 0
    three = data[0].mask
    assert (three[1:3, 4] == 255).all()  # where two classes overlap
    assert three[1, 2] == 1 and three[0, 0] == 0


def segmented(root: Path, shape: object) -> Coco:
    """One image of 6 x 4 pixels with one object of this segmentation."""
    one = {"image_id": 3, "category_id": 18, "iscrowd": 0, "segmentation": shape}
    (root / "annotations").mkdir(exist_ok=True)
    text = json.dumps(COCO | {"annotations": [one]})
    (root / "annotations" / "instances_train2014.json").write_text(text)
    save_image(root / "train2014" / "x_3.jpg")
    return Coco(root, "train2014", ["x_3.jpg"], annotation="masks")


@pytest.mark.parametrize("compressed", [True, False])
def test_coco_run_lengths_cover_the_image(tmp_path, compressed):
    inside = np.random.default_rng(0).random((4, 6)) < 0.5
    runs = [len(list(group)) for _, group in itertools.groupby(inside.T.ravel())]
    runs = [0, *runs] if inside[0, 0] else runs
    shape = {"size": [4, 6], "counts": runs}
    if compressed:
        shape = pycocotools.mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        shape["counts"] = shape["counts"].decode()
    assert (segmented(tmp_path, shape)[0].mask == 2 * inside).all()


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [4, 6], "counts": [20, 3]},
        {"size": [4, 6], "counts": [20, 5]},
        {"size": [4, 6], "counts": [20, -4, 8]},
        {"size": [4, 6], "counts": "35"},  # pixels after its last run would be uninitialised
        {"size": [4, 6], "counts": "\x7f" * 1000},
        {"size": [6, 4], "counts": [20, 4]},
        {"size": [4, 6]},
        [[0, 0, 1, 1, "x", 2]],
        [[0, 0, float("nan"), 0, 2, 3]],  # pycocotools would never end
        [[0, 0, 1e9, 0, 1e9, 1e9]],  # it would take 16 GB
        [[0, 0, 2, 0, 2, 3, 0]],
        [[[0, 0], [1, 1], [2, 2], [0, 1], [0, 2], [0, 3]]],
        None,
        7,
    ],
)
def test_coco_segmentations_that_cannot_be_drawn_are_one_line(tmp_path, shape):
    with pytest.raises(ValueError, match=r"x_3\.jpg: not a readable COCO segmentation") as error:
        segmented(tmp_path, shape)[0]
    assert "\n" not in str(error.value)


def test_semantic_masks_with_class_names(tmp_path):
    for name in "ab":
        save_image(tmp_path / "images" / f"{name}.jpg", (3, 1))
    png(tmp_path / "masks" / "a.png", np.array([[0, 7, 200]], np.uint8))
    (tmp_path / "classes.yaml").write_text("classes: {0: unlabeled, 7: cat, 9: dog, 200: sky}\n")
    data = SemanticMasks(tmp_path / "images", tmp_path / "masks", tmp_path / "classes.yaml")
    assert (
        len(data) == 1
        and data.mask_classes == ("cat", "dog", "sky")
        and data[0].mask.tolist() == [[255, 0, 2]]
    )
    png(tmp_path / "masks" / "a.png", np.array([[0, 7, 8]], np.uint8))
    with pytest.raises(
        ValueError, match=r"masks/a\.png: class id 8 is out of range; must be 0, 7, 9, 200, 255"
    ):
        data[0]


@pytest.fixture
def ade(tmp_path):
    names = [
        "Idx\tRatio\tTrain\tVal\tName",
        "1\t0.2\t1\t1\twall",
        "2\t0.1\t1\t1\tbuilding, edifice",
        "3\t0.1\t1\t1\tsky",
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(names))
    save_image(tmp_path / "images" / "validation" / "ADE_val_1.jpg", (4, 1))
    png(
        tmp_path / "annotations" / "validation" / "ADE_val_1.png",
        np.array([[0, 1, 2, 3]], np.uint8),
    )
    return tmp_path


def test_ade20k_reduces_the_zero_label(ade):
    data = Ade20k(ade, "val")
    assert data.mask_classes == ("wall", "building, edifice", "sky") and data[0].mask.tolist() == [
        [255, 0, 1, 2]
    ]
    png(ade / "annotations" / "validation" / "ADE_val_1.png", np.array([[0, 1, 2, 4]], np.uint8))
    with pytest.raises(ValueError, match=r"ADE_val_1\.png: class id 4 is out of range"):
        data[0]


def test_ade20k_full_release_by_names(ade):
    folder = ade / "images" / "ADE" / "training" / "urban"
    save_image(folder / "ADE_train_1.jpg", (4, 1))
    numbers = np.array([312, 2978, 5, 0])  # building, sky, one that does not count, nothing
    colours = np.stack([numbers // 256 * 10, numbers % 256, np.zeros(4)], axis=-1).astype(np.uint8)[
        None
    ]
    png(folder / "ADE_train_1_seg.png", colours)
    objects = [
        {"name": "building", "name_ndx": 312},
        {"name": "sky", "name_ndx": 2978},
        {"name": "ghost", "name_ndx": 5},
    ]
    (folder / "ADE_train_1.json").write_text(json.dumps({"annotation": {"object": objects}}))
    data = Ade20kFull(ade, "train", object_names(ade))
    assert data[0].mask.tolist() == [[1, 2, 255, 255]]
    with pytest.raises(
        ConfigError, match="no images of split val"
    ):  # names say the split, also where all files lie in one folder
        Ade20kFull(folder, "val", object_names(ade))
    (folder / "ADE_train_1.json").write_text("{")
    with pytest.raises(ValueError, match=r"ADE_train_1\.json: not a readable ADE20K annotation"):
        data[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Voc(p),
        lambda p: Coco(p),
        lambda p: Ade20k(p),
        lambda p: Nyud(p),
        lambda p: SemanticMasks(p, p),
    ],
)
def test_an_empty_folder_is_one_clear_line(tmp_path, make):
    with pytest.raises(ConfigError) as error:
        make(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.skipif(
    "REGISTERS_FORMATS" not in os.environ,
    reason="REGISTERS_FORMATS: a folder with voc2007_boxes and LOST's predictions",
)
def test_corloc_of_the_published_boxes_of_lost():
    """The authors' boxes for VOC 2007 trainval (61.9, their Table 1), on half of the true boxes."""
    import pickle

    from registers.evals.boxes import overlaps_any

    root = Path(os.environ["REGISTERS_FORMATS"]) / "voc2007_boxes"
    boxes = pickle.loads((root / "LOST_predictions" / "LOST_VOC07.pkl").read_bytes())
    data = Voc(root, "all")
    hits = [overlaps_any(boxes[p.name], data.boxes(i)) for i, p in enumerate(data.images)]
    assert abs(np.mean(hits) - 0.619) < 0.02  # two standard errors of 2501 images
