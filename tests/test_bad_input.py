"""Faulty data sets through the command line: jobs end, and rows count what was measured.

`faulty_sets` writes the sets; a fault is in an image's name, so that rows and log can be asked.
"""

from pathlib import Path

import faulty_sets as faulty
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from faulty_sets import BROKEN, DEPTHS, GOOD, MASKS, UNUSUAL

from registers import cli
from registers.layout import Layout

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

OPENCLIP = "openclip-r0-s0"
USABLE = len(GOOD) + len(UNUSUAL)
DENSE = ("segmentation", "depth")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with all sets and a trained OpenCLIP of scale smoke."""
    folder = tmp_path_factory.mktemp("bad")
    sets = {
        "ade": faulty.ade20k,
        "seg": faulty.voc2012_masks,
        "nyu": faulty.nyud,
        "frames": faulty.recording,
        "photos": faulty.image_folder,
        "coco": faulty.coco,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, write in sets.items():
            write(folder / "data" / name)
        faulty.voc_boxes(folder / "data" / "boxes7", "2007")
        faulty.voc_boxes(folder / "data" / "boxes12", "2012")
        assert run("data text", f"train {OPENCLIP}") == [0, 0]
    return folder


def run(*commands: str, use: dict | None = None, **overrides) -> list[int]:
    """Exit codes of `registers` commands, with these data sets and overrides."""
    settings = {
        "scale": "smoke",
        "mlflow_uri": "sqlite:///m.db",
        "data": {"root": "data", "use": use},
        "overrides": overrides,
    }
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    return [cli.main(command.split()) for command in commands]


def ask(*questions: str) -> list[str]:
    return [f"measure {question} {OPENCLIP}" for question in questions]


def whole(*sections: str, **others) -> dict:
    """Overrides by which sections read their data sets to the end."""
    values = {"train_images": 100, "val_images": 100, **others}
    return {f"{section}.{key}": value for section in sections for key, value in values.items()}


def rows_of(question: str, folder: str = "smoke") -> pd.DataFrame:
    path = Layout(Path("results") / folder).measurement(question, OPENCLIP)
    return pd.read_csv(path, keep_default_na=False)


def names_of_discovery() -> list[str]:
    """The images whose steps discovery keeps."""
    path = Layout(Path("results/smoke")).arrays("discovery", OPENCLIP)
    return [Path(name).stem for name in np.load(path)["names"]]


def counts(frame: pd.DataFrame) -> set[int]:
    return {int(n) for n in frame["n"]}


def test_linear_and_zero_shot_count_each_readable_image_once(work, monkeypatch, caplog):
    monkeypatch.chdir(work)
    smoke = Layout(work / "results" / "smoke").training(OPENCLIP)
    photos = Layout(work / "results" / "smoke-photos").training(OPENCLIP)
    photos.parent.mkdir(parents=True, exist_ok=True)
    photos.symlink_to(smoke)
    use = {"eval": "folder:photos"}
    assert run("data eval", *ask("linear", "zeroshot"), use=use, **whole("linear")) == [0, 0, 0]
    for question in ("linear", "zeroshot"):
        rows = rows_of(question, "smoke-photos")
        assert counts(rows) == {2 * USABLE}
        assert all("; 6 of 26 images left out, the first: " in note for note in rows["note"])
    notes = rows_of("linear", "smoke-photos")["note"]
    assert all("training images left out" in note for note in notes)
    for kind in ("cat", "dog"):
        for name in BROKEN:
            assert f"val/{kind}/{name}.jpg: not a readable image" in caplog.text


@pytest.mark.parametrize("augment", [False, True])
def test_segmentation_and_depth_leave_faults_out(work, monkeypatch, caplog, augment):
    monkeypatch.chdir(work)
    use = {"segmentation": "ade20k:ade", "depth": "nyud:nyu"}
    overrides = whole(*DENSE, augment=augment, iterations=6)
    commands = ["data segmentation", "data depth", *ask(*DENSE)]
    assert run(*commands, use=use, **overrides) == [0, 0, 0, 0]
    for question, faults in (("segmentation", MASKS), ("depth", DEPTHS)):
        rows = rows_of(question)
        assert counts(rows) == {USABLE} and np.isfinite(rows["value"]).all()
        left = len(BROKEN) + len(faults)
        for note in rows["note"]:
            assert f"; {left} of 18 images left out" in note
            assert f"{left} of 18 training images left out" in note
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
    use = {"segmentation": "voc2012:seg", "depth": "nyud:frames"}
    commands = ["data segmentation", *ask(*DENSE)]
    assert run(*commands, use=use, **whole(*DENSE)) == [0, 0, 0]
    masks = rows_of("segmentation")
    depth = rows_of("depth")
    assert counts(masks) == {USABLE} and set(masks["data"]) == {"VOC 2012"}
    assert counts(depth) == {len(GOOD)}
    for note in [*masks["note"], *depth["note"]]:
        assert "every second image from the first on (the set has no other split)" in note
        assert "training images: " in note and "every second image from the second on" in note
    assert "9 of 19 images left out" in masks["note"][0]
    assert "6 of 10 images left out" in depth["note"][0]


def test_polygons_that_cannot_be_drawn_cost_their_image(work, monkeypatch, caplog):
    monkeypatch.chdir(work)
    use = {"segmentation": "coco:coco"}
    assert run(*ask("segmentation"), use=use, **whole("segmentation")) == [0]
    rows = rows_of("segmentation")
    assert counts(rows) == {5}
    assert "4 of 9 images left out" in rows["note"][0]
    assert "3 of 9 training images left out" in rows["note"][0]
    assert "null.jpg: not a readable COCO segmentation in instances_train2014.json" in caplog.text
    assert "three_numbers.jpg: not a readable COCO segmentation" in caplog.text


def test_discovery_leaves_faults_out_on_all_sets(work, monkeypatch, caplog):
    monkeypatch.chdir(work)
    use = {"discovery": ["voc2007:boxes7", "voc2012:boxes12", "coco20k:coco"]}
    overrides = {"images": 100, "tune_images": 100, "pictures": 2}
    assert run("data discovery", *ask("discovery"), use=use, discovery=overrides) == [0, 0]
    rows = rows_of("discovery")
    rows = rows[~rows["metric"].str.endswith("_roughness")]  # of the pictures, patch by patch
    assert counts(rows) == {USABLE}
    assert set(rows["data"]) == {"VOC 2007", "VOC 2007 (tuning)", "VOC 2012", "COCO 20k"}
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
    assert len(names_of_discovery()) == 2


def test_faults_in_front_do_not_cost_the_pictures(work, monkeypatch):
    """The images whose steps are kept, and those that scale the bias, are the first usable ones."""
    monkeypatch.chdir(work)
    main = work / "data" / "boxes7" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    before = (main / "trainval.txt").read_text()
    names = ["no_picture"] * 9 + ["truncated", "good_0", "1x1"]
    faulty.lines(main / "trainval.txt", names)
    use = {"discovery": "voc2007:boxes7"}
    try:
        assert run(*ask("discovery"), use=use, discovery={"images": 100, "pictures": 1}) == [0]
    finally:
        (main / "trainval.txt").write_text(before)
    assert names_of_discovery() == ["good_0"]
    assert counts(rows_of("discovery")[:1]) == {2}


@pytest.mark.parametrize(
    "question, spec, named",
    [
        ("depth", "nyud:no_depth", "b.color.jpg: not a readable image"),
        ("discovery", "coco:no_boxes", "b.jpg: has no boxes"),
    ],
)
def test_a_set_of_faults_alone_is_one_line_with_a_file_in_it(
    work, monkeypatch, capsys, question, spec, named
):
    monkeypatch.chdir(work)
    faulty.faults_alone(question, work / "data" / spec.partition(":")[2])
    capsys.readouterr()
    assert run(*ask(question), use={question: spec}) == [1]
    errors = capsys.readouterr().err.splitlines()
    (line,) = [line for line in errors if line.startswith("registers: ")]
    assert "can be used; the first: " in line and named in line
