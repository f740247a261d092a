"""Data sets with every fault we can think of, in their native layouts, through the command line: jobs end, rows count what was measured.

Each set holds good pictures, unusual ones that are handled as the field does (grey, 16 bits, CMYK, palette, 1 x 1) and ones that cannot
be used. A fault is in a picture's name, so that rows and log can be asked for it.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import savemat

from registers import cli

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

SIZE = (24, 16)
GOOD = ("good_0", "good_1", "good_2", "good_3")
UNUSUAL = ("grey", "grey16", "cmyk", "palette", "1x1", "slim")  # all can be used
BROKEN = ("truncated", "empty", "text")
OPENCLIP = "openclip-r0-s0"


def side(name: str) -> tuple[int, int]:
    """Width and height of a picture of that name."""
    return {"1x1": (1, 1), "slim": (90, 1)}.get(name, SIZE)


def draw(path: Path, name: str | None = None) -> None:
    """A picture of random colours with the property that its name says."""
    name = name or path.stem
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = side(name)
    pixels = np.random.default_rng(sum(name.encode())).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    image, kind = Image.fromarray(pixels), "PNG"
    if name == "grey":
        image = image.convert("L")
    elif name == "grey16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif name == "cmyk":
        image, kind = image.convert("CMYK"), "JPEG"
    elif name == "palette":
        image = image.quantize(16)
    file = io.BytesIO()
    image.save(file, kind)
    data = file.getvalue()
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "empty": b"", "text": b"<html>404</html>"}.get(
            name, data
        )
    )


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def lines(path: Path, names) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


# --- the sets: `names` is what a split lists, in this order ------------------------------------------------------------------

MASKS = (
    "other_size",
    "range",
    "colour",
    "ignored",
    "no_mask",
)  # faults of a mask; its picture is good


def mask_of(name: str, top: int, nothing: int) -> np.ndarray | None:
    """Values 1 to top over the picture, `nothing` for ignored ones; or what its fault says."""
    width, height = side(name)
    mask = (np.arange(width * height).reshape(height, width) % top + 1).astype(np.uint8)
    if name == "other_size":
        mask = mask[:, :-1]
    elif name == "range":
        mask[0, 0] = top + 1
    elif name == "colour":
        mask = np.stack([mask] * 3, -1)
    elif name == "ignored":
        mask[:] = nothing
    return None if name == "no_mask" else mask


def ade20k(root: Path) -> None:
    lines(
        root / "objectInfo150.txt",
        ["Idx\tRatio\tTrain\tVal\tName", "1\t0.2\t1\t1\twall", "2\t0.1\t1\t1\tsky"],
    )
    for split in ("training", "validation"):
        for name in GOOD + UNUSUAL + BROKEN + MASKS:
            draw(root / "images" / split / f"{name}.jpg")
            if (mask := mask_of(name, top=2, nothing=0)) is not None:
                png(root / "annotations" / split / f"{name}.png", mask)


def voc2012_masks(root: Path) -> None:
    """Only a list of validation images."""
    names = [*GOOD, *UNUSUAL, *BROKEN, *MASKS, "no_picture"]
    lines(
        root / "ImageSets" / "Segmentation" / "val.txt",
        [twin for name in names for twin in (name, name)],
    )  # twice: half is one of each
    for name in names:
        if name != "no_picture":
            draw(root / "JPEGImages" / f"{name}.jpg")
        if (mask := mask_of(name, top=20, nothing=255)) is not None:
            png(root / "SegmentationClass" / f"{name}.png", mask)


DEPTHS = ("other_size", "eight_bits", "unknown", "no_depth", "cut_depth")


def depth_of(name: str) -> np.ndarray | None:
    width, height = side(name)
    depth = np.full((height, width), 2500, np.uint16)
    depth[0, 0] = 4000
    if name == "other_size":
        depth = depth.T.copy()
    elif name == "eight_bits":
        depth = (depth // 20).astype(np.uint8)
    elif name == "unknown":
        depth[:] = 65535
    return None if name == "no_depth" else depth


def nyud(root: Path) -> None:
    """N_image.png with N_depth.png; the same files, linked under other numbers, serve as training and as test images."""
    names = GOOD + UNUSUAL + BROKEN + DEPTHS
    for number, name in enumerate(names + names, start=1):
        draw(root / f"{number}_image.png", name)
        if (depth := depth_of(name)) is not None:
            path = root / f"{number}_depth.png"
            png(path, depth)
            if name == "cut_depth":
                path.write_bytes(path.read_bytes()[:60])
    numbers = np.arange(1, len(names) + 1)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers, "testNdxs": numbers + len(names)})


def recording(root: Path) -> None:
    """Frames of colour and depth, each of them twice, so that half is one of each; no split."""
    for place in range(2 * len(names := GOOD + BROKEN + DEPTHS[:3])):
        name = names[place // 2]
        draw(root / f"frame-{place:03d}.color.jpg", name)
        png(root / f"frame-{place:03d}.depth.png", depth_of(name))


BOXES = ("no_boxes", "bad_xml", "no_xml", "endless")


def voc_boxes(root: Path, year: str) -> None:
    place = root / "VOCdevkit" / f"VOC{year}"
    names = [*GOOD, *UNUSUAL, *BROKEN, *BOXES, "no_picture"]
    box = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    (place / "Annotations").mkdir(parents=True)
    for split in ("trainval", "test"):
        lines(place / "ImageSets" / "Main" / f"{split}.txt", names)
    for name in names:
        if name != "no_picture":
            draw(place / "JPEGImages" / f"{name}.jpg")
        found = {"no_boxes": "", "endless": box.format("1e999", 4), "bad_xml": "<object>"}.get(
            name, box.format(*side(name))
        )
        if name != "no_xml":
            (place / "Annotations" / f"{name}.xml").write_text(f"<annotation>{found}</annotation>")


def coco(root: Path, split: str = "train2014") -> None:
    names = [*GOOD, *UNUSUAL, *BROKEN, "no_boxes", "crowd", "three_numbers", "null", "no_picture"]
    annotations = []
    for number, name in enumerate(names):
        if name != "no_picture":
            draw(root / split / f"{name}.jpg")
        width, height = side(name)
        one = {
            "image_id": number,
            "category_id": 1,
            "iscrowd": int(name == "crowd"),
            "bbox": [0, 0, width, height],
        }
        one["segmentation"] = [[0, 0, width, 0, width, height, 0, height]]
        if name in ("three_numbers", "null"):
            one["bbox"] = [1, 2, 3] if name == "three_numbers" else None
            one["segmentation"] = [[0, 0, 1, 1, "x", 2]] if name == "three_numbers" else None
        if name != "no_boxes":
            annotations.append(one)
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(names)]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    lines(root / "coco_20k_filenames.txt", [f"{split}/{name}.jpg" for name in names])


def image_folder(root: Path) -> None:
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            for name in GOOD + UNUSUAL + BROKEN:
                draw(root / split / kind / f"{name}.jpg")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with all sets and a trained OpenCLIP of scale smoke."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for make, name in (
            (ade20k, "ade"),
            (voc2012_masks, "seg"),
            (nyud, "nyu"),
            (recording, "frames"),
            (image_folder, "photos"),
            (coco, "coco"),
        ):
            make(folder / "data" / name)
        voc_boxes(folder / "data" / "boxes7", "2007")
        voc_boxes(folder / "data" / "boxes12", "2012")
        run(["data", "text"], ["train", OPENCLIP])
    return folder


def run(*verbs, use=None, **overrides) -> list[int]:
    settings = {
        "scale": "smoke",
        "mlflow_uri": "sqlite:///m.db",
        "data": {"root": "data", "use": use},
        "overrides": overrides,
    }
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    return [cli.main(list(verb)) for verb in verbs]


def rows_of(question: str, folder: str = "smoke") -> pd.DataFrame:
    return pd.read_csv(
        Path("results") / folder / "measurements" / question / f"{OPENCLIP}.csv",
        keep_default_na=False,
    )


def counts(frame: pd.DataFrame) -> set[int]:
    return {int(n) for n in frame["n"]}


MANY = {"train_images": 100, "val_images": 100}


def test_linear_and_zero_shot_count_each_readable_picture_once(work, monkeypatch, caplog):
    monkeypatch.chdir(work)
    (work / "results" / "smoke-photos" / "checkpoints").mkdir(parents=True, exist_ok=True)
    link = work / "results" / "smoke-photos" / "checkpoints" / OPENCLIP
    link.symlink_to(work / "results" / "smoke" / "checkpoints" / OPENCLIP)
    more = {"linear.train_images": 100, "linear.val_images": 100}
    assert run(
        ["data", "eval"],
        ["linear", OPENCLIP],
        ["zeroshot", OPENCLIP],
        use={"eval": "folder:photos"},
        **more,
    ) == [0, 0, 0]
    usable = 2 * (len(GOOD) + len(UNUSUAL))
    for question in ("linear", "zeroshot"):
        rows = rows_of(question, "smoke-photos")
        assert counts(rows) == {usable}
        assert all("; 6 of 26 images left out, the first: " in note for note in rows["note"])
    assert all(
        "training images left out" in note for note in rows_of("linear", "smoke-photos")["note"]
    )
    for kind in ("cat", "dog"):
        for name in BROKEN:
            assert f"val/{kind}/{name}.jpg: not a readable image" in caplog.text


@pytest.mark.parametrize("augment", [False, True])
def test_segmentation_and_depth_leave_faults_out(work, monkeypatch, caplog, augment):
    monkeypatch.chdir(work)
    more = {
        f"{q}.{key}": value
        for q in ("segmentation", "depth")
        for key, value in (MANY | {"augment": augment, "iterations": 6}).items()
    }
    use = {"segmentation": "ade20k:ade", "depth": "nyud:nyu"}
    assert run(
        ["data", "segmentation"], ["data", "depth"], ["dense", OPENCLIP], use=use, **more
    ) == [0, 0, 0]
    usable = len(GOOD) + len(UNUSUAL)
    for question, faults, listed in (("segmentation", MASKS, 18), ("depth", DEPTHS, 18)):
        rows = rows_of(question)
        assert counts(rows) == {usable} and np.isfinite(rows["value"]).all()
        left = len(BROKEN) + len(faults)
        assert all(
            f"; {left} of {listed} images left out" in note
            and f"{left} of {listed} training images left out" in note
            for note in rows["note"]
        )
    for words in (
        "training/truncated.jpg: not a readable image",
        "annotations/validation/other_size.png: 23 x 16 pixels, but its image has 24 x 16",
        "annotations/validation/range.png: class id 3 is out of range; must be 0 to 2",
        "annotations/validation/colour.png: a mask of shape (16, 24, 3)",
        "images/validation/ignored.jpg: every pixel of its mask is ignored",
        "annotations/validation/no_mask.png: no such file",
        "_depth.png: 16 x 24 pixels, but its image has 24 x 16",
        "_depth.png: depth of shape (16, 24) and type uint8",
        "_image.png: no depth between 0.001 and 11",
        "_depth.png: no such file",
        "_depth.png: not a readable image",
    ):
        assert words in caplog.text


def test_sets_of_one_split_are_halved_and_the_rows_say_so(work, monkeypatch):
    monkeypatch.chdir(work)
    more = {f"{q}.{key}": value for q in ("segmentation", "depth") for key, value in MANY.items()}
    assert run(
        ["data", "segmentation"],
        ["dense", OPENCLIP],
        use={"segmentation": "voc2012:seg", "depth": "nyud:frames"},
        **more,
    ) == [0, 0]
    rows, deep = rows_of("segmentation"), rows_of("depth")
    assert counts(rows) == {len(GOOD) + len(UNUSUAL)} and set(rows["data"]) == {"VOC 2012"}
    assert counts(deep) == {len(GOOD)}
    for note in [*rows["note"], *deep["note"]]:
        assert "every second image from the first on (the set has no other split)" in note
        assert "training images: " in note and "every second image from the second on" in note
    assert (
        "9 of 19 images left out" in rows["note"][0]
        and "6 of 10 images left out" in deep["note"][0]
    )


def test_polygons_that_cannot_be_drawn_cost_their_image(work, monkeypatch, caplog):
    monkeypatch.chdir(work)
    more = {f"segmentation.{key}": value for key, value in MANY.items()}
    assert run(["dense", OPENCLIP], use={"segmentation": "coco:coco"}, **more) == [0]
    rows = rows_of("segmentation")
    assert (
        counts(rows) == {5}
        and "4 of 9 images left out" in rows["note"][0]
        and "3 of 9 training images left out" in rows["note"][0]
    )
    assert "null.jpg: not a readable COCO segmentation in instances_train2014.json" in caplog.text
    assert "three_numbers.jpg: not a readable COCO segmentation" in caplog.text


def test_discovery_leaves_faults_out_on_all_sets(work, monkeypatch, caplog):
    monkeypatch.chdir(work)
    more = {"discovery.images": 100, "discovery.tune_images": 100, "discovery.pictures": 2}
    use = {"discovery": ["voc2007:boxes7", "voc2012:boxes12", "coco20k:coco"]}
    assert run(["data", "discovery"], ["discovery", OPENCLIP], use=use, **more) == [0, 0]
    rows = rows_of("discovery")
    usable = len(GOOD) + len(UNUSUAL)
    assert counts(rows) == {usable} and set(rows["data"]) == {
        "VOC 2007",
        "VOC 2007 (tuning)",
        "VOC 2012",
        "COCO 20k",
    }
    assert all("; 8 of 18 images left out, the first: " in note for note in rows["note"])
    for words in (
        "no_boxes.jpg: has no boxes",
        "bad_xml.xml: not a readable VOC annotation",
        "no_xml.xml: no such file",
        "endless.xml: not a readable VOC annotation",
        "no_picture.jpg: no such file",
        "crowd.jpg: has no boxes",
        "three_numbers.jpg: a box in instances_train2014.json is not four numbers",
        "null.jpg: a box in instances_train2014.json is not four numbers",
    ):
        assert words in caplog.text
    assert len(np.load(f"results/smoke/pictures/discovery/{OPENCLIP}.npz")["names"]) == 2


def test_faults_in_front_do_not_cost_the_pictures(work, monkeypatch):
    """The images whose steps are kept, and those that scale the bias, are the first usable ones."""
    monkeypatch.chdir(work)
    listed = (
        work / "data" / "boxes7" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "trainval.txt"
    )
    before = listed.read_text()
    listed.write_text(
        "".join(f"{name}\n" for name in ["no_picture"] * 9 + ["truncated", "good_0", "1x1"])
    )
    try:
        assert run(
            ["discovery", OPENCLIP],
            use={"discovery": "voc2007:boxes7"},
            **{"discovery.images": 100, "discovery.pictures": 1},
        ) == [0]
    finally:
        listed.write_text(before)
    names = np.load(f"results/smoke/pictures/discovery/{OPENCLIP}.npz")["names"]
    assert [Path(name).stem for name in names] == ["good_0"] and counts(
        rows_of("discovery")[:1]
    ) == {2}


@pytest.mark.parametrize(
    ("question", "verb", "use", "named"),
    [
        ("depth", "dense", {"depth": "nyud:none"}, "b.color.jpg: not a readable image"),
        ("discovery", "discovery", {"discovery": "coco:nothing"}, "b.jpg: has no boxes"),
    ],
)
def test_a_set_of_faults_alone_is_one_line_with_a_file_in_it(
    work, monkeypatch, capsys, question, verb, use, named
):
    monkeypatch.chdir(work)
    if question == "depth":
        for name in ("a", "b"):
            draw(work / "data" / "none" / f"{name}.color.jpg", "truncated")
    else:
        for name in ("a", "b"):
            draw(work / "data" / "nothing" / "train2017" / f"{name}.jpg", "good_0")
        (work / "data" / "nothing" / "annotations").mkdir()
        content = {
            "images": [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate("ab")],
            "annotations": [],
            "categories": [],
        }
        (work / "data" / "nothing" / "annotations" / "instances_train2017.json").write_text(
            json.dumps(
                content | {"annotations": [{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}]}
            )
        )
    capsys.readouterr()
    assert run([verb, OPENCLIP], use=use) == [1]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("registers: ")]
    assert len(said) == 1 and "can be used; the first: " in said[0] and named in said[0]
