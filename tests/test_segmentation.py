"""Segmentation: planted truths, and mean IoU against torchmetrics and by hand."""

import numpy as np
import pytest
import torch
from bands import COLOURS, SEGMENTATION, Bands, ShuffledBands
from fakes import fake_backbone
from PIL import Image
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from registers.evals.dense import FeatureMaps
from registers.evals.segmentation import (
    LinearHead,
    _rows,
    intersections,
    loss,
    mean_iou,
    measure,
    predict,
    segment,
    windows,
)
from registers.readers.evaluation_set import EvaluationSet
from registers.readers.splits import open_set
from registers.settings.load import load_settings
from registers.settings.questions import SegmentationSettings

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="module")
def backbone():
    return fake_backbone(registers=1)


# --- the whole


def test_a_planted_class_is_segmented_perfectly(backbone):
    measured = segment(backbone, Bands(seed=1), Bands(24, seed=2), SEGMENTATION, progress=False)
    rows = {(row.metric, row.variant): row for row in measured.rows}
    miou = rows["miou", ""]
    assert (miou.value, miou.low, miou.n) == (1, 1, 24)
    assert 0.05 < miou.chance < 0.3
    assert rows["pixel_accuracy", ""].value == 1
    assert {name for metric, name in rows if metric == "iou"} == set(Bands.mask_classes)
    arrays = measured.arrays
    known = arrays["0_truth"] != 255
    assert (arrays["0_predicted"] == arrays["0_truth"])[known].all()
    assert arrays["1_rgb"].shape == (16, 16, 3)


def test_shuffled_truths_cannot_be_learnt(backbone):
    train = ShuffledBands(seed=1)
    measured = segment(backbone, train, ShuffledBands(24, seed=2), SEGMENTATION, progress=False)
    assert measured.rows[0].value < 0.5


@pytest.mark.parametrize("augment", [False, True])
def test_a_bad_file_is_counted_and_ends_nothing(backbone, augment):
    settings = SEGMENTATION.model_copy(update=dict(iterations=3, batch=4, augment=augment))
    measured = segment(
        backbone, Bands(8, bad=2), Bands(8, bad=1, wrong=3), settings, progress=False
    )
    row = measured.rows[0]
    assert row.n == 6
    reason = "bands 2: not a readable image"
    assert f"1 of 8 training images left out, the first: {reason}" in row.note
    assert "2 of 8 images left out, the first: bands 1" in row.note
    assert ("augmented crops" in row.note) == augment


def test_classes_that_differ_are_one_clear_line(backbone):
    other = Bands(4)
    other.mask_classes = ("red", "green")
    with pytest.raises(ValueError, match="classes: 3 in train, 2 in val; must be the same"):
        segment(backbone, Bands(4), other, SEGMENTATION, progress=False)


def test_training_repeats_and_leaves_the_generators_alone(backbone):
    settings = SEGMENTATION.model_copy(update=dict(iterations=5, batch=4, augment=True))
    state = torch.get_rng_state()
    first, second = (
        segment(backbone, Bands(8), Bands(8), settings, progress=False).rows for _ in range(2)
    )
    assert first == second
    assert torch.equal(state, torch.get_rng_state())


def test_rows_are_of_all_sets_and_pictures_of_the_first(backbone):
    settings = load_settings({"scale": "smoke"})
    settings = settings.model_copy(
        update={"segmentation": SEGMENTATION.model_copy(update={"iterations": 2})}
    )
    sets = [EvaluationSet.of(name, Bands(8), Bands(n)) for name, n in (("one", 8), ("two", 5))]
    measured = measure(backbone, sets, settings)
    assert {(row.data, row.n) for row in measured.rows} == {("one", 8), ("two", 5)}
    assert measured.arrays["data"] == "one"


def test_masks_in_files_with_sparse_ids_are_segmented_as_planted(backbone, tmp_path):
    """Ids 3, 7 and 200 stand for three classes, 0 is unlabelled; 24 x 16 in sliding windows."""
    for folder in ("train2017", "semantic/train2017"):
        (tmp_path / folder).mkdir(parents=True)
    ids = np.array([3, 7, 200], np.uint8)
    for i, bands in enumerate(np.random.default_rng(0).integers(0, 3, (40, 3))):
        colour = np.repeat(bands, 8)[None].repeat(16, 0)
        mask = ids[colour]
        for border in (1, 2):  # between bands of different colours nothing is known
            if bands[border - 1] != bands[border]:
                mask[:, 8 * border - 2 : 8 * border + 2] = 0
        Image.fromarray(COLOURS[colour]).save(tmp_path / f"train2017/{i:02}.png")
        Image.fromarray(mask).save(tmp_path / f"semantic/train2017/{i:02}.png")
    names = "classes: {0: unlabeled, 3: sky, 7: sea, 200: sand}\n"
    (tmp_path / "semantic/classes.yaml").write_text(names)
    train = open_set("semantic", tmp_path, "segmentation", "train")
    val = open_set("semantic", tmp_path, "segmentation", "val")
    settings = SEGMENTATION.model_copy(update={"stride": 8, "iterations": 100})
    measured = segment(backbone, train, val, settings, progress=False)
    values = {(row.metric, row.variant): row.value for row in measured.rows}
    assert values == {
        ("miou", ""): 1,
        ("pixel_accuracy", ""): 1,
        ("iou", "sky"): 1,
        ("iou", "sea"): 1,
        ("iou", "sand"): 1,
    }
    assert measured.arrays["0_truth"].shape == (16, 24)
    assert measured.rows[0].n == 20


# --- metrics


def test_mean_iou_equals_torchmetrics():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 5, (6, 9, 7))
    predictions = rng.integers(0, 5, (6, 9, 7))
    masks[rng.random(masks.shape) < 0.2] = 255
    counts = [intersections(p, m, 5) for p, m in zip(predictions, masks)]
    inter, union = np.sum(counts, axis=0)
    official = MulticlassJaccardIndex(num_classes=5, average="macro", ignore_index=255)
    expected = float(official(torch.from_numpy(predictions), torch.from_numpy(masks)))
    assert float(mean_iou(inter, union)) == pytest.approx(expected, abs=1e-6)


def test_mean_iou_by_hand():
    inter, union = intersections(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 255]]), 4)
    assert inter.tolist() == [1, 1, 0, 0]
    assert union.tolist() == [2, 2, 0, 0]
    assert float(mean_iou(inter, union)) == 0.5  # classes that occur nowhere do not count
    with pytest.raises(ValueError, match="class id 4: must be 0 to 3"):
        intersections(np.zeros((1, 1)), np.array([[4]]), 4)


def test_rare_classes_do_not_pull_the_interval_away():
    """Each class in two of 40 images: a draw that misses both tells nothing about that class."""
    rng = np.random.default_rng(0)
    classes = 20
    masks = np.repeat(np.arange(40) % classes, 100).reshape(40, 10, 10)
    guesses = np.where(rng.random(masks.shape) < 0.5, masks, rng.integers(0, classes, masks.shape))
    counts = np.array([intersections(g, m, classes) for g, m in zip(guesses, masks)])
    area = np.array([np.bincount(m.ravel(), minlength=classes) for m in masks])
    names = [str(c) for c in range(classes)]
    row = _rows("dinov2-r0-s0", names, counts[:, 0], counts[:, 1], area, "", "")[0]
    assert row.low < row.value < row.high
    assert abs((row.low + row.high) / 2 - row.value) < 0.25 * (row.high - row.low)


# --- head, loss and windows


def test_cross_entropy_is_a_mean_over_all_pixels_at_full_resolution():
    torch.manual_seed(0)
    maps = FeatureMaps(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1), (0, 0), 4)
    scores = torch.randn(1, 3, 2, 2)
    mask = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    mask[0, :4] = 255
    pixels = F.interpolate(scores, (8, 8), mode="bilinear", align_corners=False).log_softmax(1)
    known = [pixels[0, int(mask[0, y, x]), y, x] for y in range(4, 8) for x in range(8)]
    expected = -float(sum(known)) / 64
    assert float(loss(maps, scores, mask)) == pytest.approx(expected, rel=1e-5)


def test_windows_are_mmsegs():
    assert windows(512, 512, 341) == [0]
    assert windows(300, 512, 341) == [0]
    assert windows(683, 512, 341) == [0, 171]
    assert windows(1024, 512, 341) == [0, 341, 512]


def test_a_mean_over_windows_does_not_depend_on_how_often_a_pixel_is_covered(backbone):
    """A head that ignores its input gives the same score everywhere."""
    head = LinearHead(backbone.architecture.width, 2).eval()
    with torch.no_grad():
        head.conv.weight.zero_()
        head.conv.bias.copy_(torch.tensor([1.0, -2.0]))
    settings = SegmentationSettings(crop=16, stride=6)
    scores = predict(backbone, head, torch.randn(1, 3, 27, 16), settings)
    assert scores.shape == (1, 2, 27, 16)
    assert torch.allclose(scores[0, 0], torch.ones(27, 16))
    assert torch.allclose(scores[0, 1], -2 * torch.ones(27, 16))
