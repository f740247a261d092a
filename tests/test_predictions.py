"""Further pictures: what they show is what was planted, in the photo's own shape."""

import numpy as np
import planted_arrays
import pytest
from bands import DEPTH, SEGMENTATION, Bands
from fakes import fake_backbone
from matplotlib.colors import to_rgb

from registers import artifacts
from registers.evals.depth import estimate_depth
from registers.evals.segmentation import segment
from registers.figures.paint import palette, predictions, style
from registers.settings.load import load_settings


def cells(figure, columns):
    """Axes with an image, in rows of `columns`."""
    axes = [ax for ax in figure.axes if ax.images]
    assert len(axes) % columns == 0
    return [axes[i : i + columns] for i in range(0, len(axes), columns)]


def test_what_a_planted_backbone_predicts_is_painted_as_the_truth():
    """From tokens that carry class and depth to the colours on the page."""
    backbone = fake_backbone(registers=1, name="dinov2-r1-s0")
    common = dict(progress=False, data="bands")
    train = Bands(seed=1)
    val = Bands(24, seed=2)

    # --- segmentation
    arrays = segment(backbone, train, val, SEGMENTATION, **common).arrays
    rows = cells(predictions.draw("segmentation", arrays), 3)
    assert len(rows) == SEGMENTATION.pictures == 2
    for i, axes in enumerate(rows):
        photo, truth, predicted = (ax.images[0].get_array() for ax in axes)
        np.testing.assert_array_equal(photo, arrays[f"{i}_rgb"])
        classes = arrays[f"{i}_truth"]
        counted = classes != 255
        np.testing.assert_array_equal(truth[counted], predicted[counted])
        assert np.allclose(truth[~counted], to_rgb(style.PALE))
        colours = np.unique(truth[counted], axis=0)
        assert len(colours) == len(np.unique(classes[counted]))  # a colour per class
    text = predictions.caption("segmentation", arrays)
    assert "by DINOv2 with 1 register on 2 photos of bands: 100.0 % of the counted pixels" in text

    # --- depth
    arrays = estimate_depth(backbone, train, val, DEPTH, **common).arrays
    ((_, *pair),) = cells(predictions.draw("depth", arrays), 3)
    truth, predicted = (ax.images[0] for ax in pair)
    assert truth.get_clim() == predicted.get_clim()
    unknown = np.ma.getmaskarray(truth.get_array())
    assert unknown.sum() == (arrays["0_truth"] == 0).sum()
    assert float(np.abs(truth.get_array() - predicted.get_array()).max()) < 0.5


def test_wrong_predictions_are_counted_and_drawn():
    segmentation, depth = planted_arrays.predictions("openclip-r4-s0", wrong=5)
    text = predictions.caption("segmentation", segmentation)
    assert "73.7 % of the counted pixels are given their true class, of 3" in text
    _, truth, predicted = cells(predictions.draw("segmentation", segmentation), 3)[0]
    differs = (truth.images[0].get_array() != predicted.images[0].get_array()).any(axis=2)
    assert differs[:, 1:].sum(axis=1).tolist() == [5] * 12
    assert [t.get_text() for t in predicted.get_legend().get_texts()][-1] == "not counted"
    rmse = np.sqrt(4 * 5 / 19)
    assert f"error {rmse:.2f} and {rmse:.2f}, in the unit" in predictions.caption("depth", depth)


def test_boxes_lie_where_they_were_planted():
    arrays = planted_arrays.lost("deit3-r4-s0", side=8, across=12)
    for row in cells(predictions.draw("discovery", arrays), 4):
        boxes = [ax.patches[0].get_bbox().extents.tolist() for ax in row]
        assert boxes == [[0, 0, 24, 16]] * 3 + [[0, 0, 46, 30]]
    text = predictions.caption("discovery", arrays)
    assert "LOST as published 1.00 (2 of 2 localised), LOST, tuned 1.00 (2 of 2 loc" in text
    assert f"DINO-seg, best head {24 * 16 / 46 / 30:.2f} (0 of 2 localised)" in text

    untuned = {name: values for name, values in arrays.items() if "tuned" not in name}
    assert len(cells(predictions.draw("discovery", untuned), 3)) == 2
    assert "tuned" not in predictions.caption("discovery", untuned)


@pytest.mark.parametrize("question", ["segmentation", "depth", "discovery"])
def test_photos_keep_their_shape(question):
    segmentation, depth = planted_arrays.predictions("dinov2-r0-s0", shape=(30, 46))
    lost = planted_arrays.lost("dinov2-r0-s0", side=8, across=12)
    arrays = {"segmentation": segmentation, "depth": depth, "discovery": lost}[question]
    figure = predictions.draw(question, arrays)
    width, height = figure.get_size_inches()
    for ax in (ax for ax in figure.axes if ax.images):
        place = ax.get_position()
        assert place.height * height / (place.width * width) == pytest.approx(30 / 46)


def test_without_pictures_the_setting_is_named():
    with pytest.raises(ValueError, match=r"depth\.pictures: 0 keeps no photo .* at least 1"):
        predictions.draw("depth", {"names": np.array([])})
    with pytest.raises(ValueError, match="'colour' must be one of segmentation, depth, discovery"):
        predictions.caption("colour", {})


def test_classes_are_easy_to_tell_apart():
    """The nearest two of 12 colours lie farther apart than a difference that is seen at a glance.

    Distances are in CIELAB, where about 2 can just be told.
    """
    places = palette._lab(palette.distinct(12))
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 35
    assert np.array_equal(palette.distinct(150)[:12], palette.distinct(12))
    assert len(np.unique(palette.distinct(150), axis=0)) == 150  # ADE20k


def test_lab_is_that_of_the_standard():
    """Red, grey and white of sRGB (values as printed by colour science tools)."""
    lab = palette._lab(np.array([[1.0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]]))
    expected = [[53.24, 80.09, 67.20], [53.39, 0, 0], [100, 0, 0]]
    np.testing.assert_allclose(lab, expected, atol=0.05)


def test_the_report_shows_the_focus_of_one_seed():
    settings = load_settings({"scale": "laptop", "seeds": [3, 4]})
    questions = ("segmentation", "depth", "discovery")
    ids = [picture.id for picture in artifacts.pictures(settings)]
    assert ids == [f"{question}-dinov2-r{r}-s3" for question in questions for r in (0, 4)]
    overrides = {"segmentation.pictures": 0, "depth.pictures": 0}
    few = load_settings({"scale": "laptop", "overrides": overrides})
    assert [picture.question for picture in artifacts.pictures(few)] == ["discovery"] * 2
