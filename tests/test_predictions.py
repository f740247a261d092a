"""Further pictures: what they show is what was planted, in the photo's own shape; the truth predicted is the truth drawn."""

import numpy as np
import planted_arrays
import pytest
from bands import DEPTH, SEGMENTATION, Bands
from fakes import fake_backbone
from matplotlib.colors import to_rgb

from registers import artifacts
from registers.evals.depth import estimate_depth
from registers.evals.segmentation import segment
from registers.figures.paint import predictions, style
from registers.settings.load import load_settings


def cells(figure, columns):
    """Axes with an image, in rows of `columns`."""
    found = [ax for ax in figure.axes if ax.images]
    assert len(found) % columns == 0
    return [found[i : i + columns] for i in range(0, len(found), columns)]


def test_what_a_planted_backbone_predicts_is_painted_as_the_truth():
    """From tokens that carry class and depth to the colours on the page."""
    backbone = fake_backbone(registers=1, name="dinov2-r1-s0")
    common = dict(progress=False, data="bands")
    train = Bands(seed=1)
    val = Bands(24, seed=2)
    arrays = segment(backbone, train, val, SEGMENTATION, **common).arrays
    shown = cells(predictions.draw("segmentation", arrays), 3)
    assert len(shown) == SEGMENTATION.pictures == 2
    for i, (photo, truth, predicted) in enumerate(shown):
        np.testing.assert_array_equal(photo.images[0].get_array(), arrays[f"{i}_rgb"])
        counted = arrays[f"{i}_truth"] != 255
        truth, predicted = (ax.images[0].get_array() for ax in (truth, predicted))
        np.testing.assert_array_equal(truth[counted], predicted[counted])
        assert np.allclose(truth[~counted], to_rgb(style.PALE))
        assert len(np.unique(truth[counted], axis=0)) == len(
            set(arrays[f"{i}_truth"][counted].tolist())
        )  # a colour a class
    assert (
        "with DINOv2 with 1 register, 2 photos of bands: 100.0 % of the pixels"
        in predictions.caption("segmentation", arrays)
    )
    arrays = estimate_depth(backbone, train, val, DEPTH, **common).arrays
    ((_, truth, predicted),) = cells(predictions.draw("depth", arrays), 3)
    truth, predicted = (ax.images[0] for ax in (truth, predicted))
    assert (
        truth.get_clim() == predicted.get_clim()
        and np.ma.getmaskarray(truth.get_array()).sum() == (arrays["0_truth"] == 0).sum()
    )
    assert float(np.abs(truth.get_array() - predicted.get_array()).max()) < 0.5


def test_wrong_predictions_are_counted_and_seen():
    seg, deep = planted_arrays.predictions("openclip-r4-s0", wrong=5)
    assert (
        "73.7 % of the pixels that count have their true one of 3 classes"
        in predictions.caption("segmentation", seg)
    )
    _, truth, predicted = cells(predictions.draw("segmentation", seg), 3)[0]
    differs = (truth.images[0].get_array() != predicted.images[0].get_array()).any(axis=2)
    assert differs[:, 1:].sum(axis=1).tolist() == [5] * 12
    assert [t.get_text() for t in predicted.get_legend().get_texts()][-1] == "not counted"
    rmse = np.sqrt(4 * 5 / 19)
    assert f"error {rmse:.2f} and {rmse:.2f}, in the unit" in predictions.caption("depth", deep)


def test_boxes_lie_where_they_were_found():
    arrays = planted_arrays.lost("deit3-r4-s0", side=8, across=12)
    figure = predictions.draw("discovery", arrays)
    for row in cells(figure, 4):
        boxes = [ax.patches[0].get_bbox().extents.tolist() for ax in row]
        assert boxes == [[0, 0, 24, 16]] * 3 + [[0, 0, 46, 30]]
    text = predictions.caption("discovery", arrays)
    assert (
        f"LOST as published 1.00 (2 found), LOST, tuned 1.00 (2 found) and DINO-seg, best head {24 * 16 / 46 / 30:.2f} (0 found)"
        in text
    )
    untuned = {name: values for name, values in arrays.items() if "tuned" not in name}
    assert len(
        cells(predictions.draw("discovery", untuned), 3)
    ) == 2 and "tuned" not in predictions.caption("discovery", untuned)


@pytest.mark.parametrize("question", ["segmentation", "depth", "discovery"])
def test_photos_keep_their_shape(question):
    seg, deep = planted_arrays.predictions("dinov2-r0-s0", shape=(30, 46))
    arrays = {
        "segmentation": seg,
        "depth": deep,
        "discovery": planted_arrays.lost("dinov2-r0-s0", side=8, across=12),
    }[question]
    figure = predictions.draw(question, arrays)
    width, height = figure.get_size_inches()
    for ax in (ax for ax in figure.axes if ax.images):
        place = ax.get_position()
        assert place.height * height / (place.width * width) == pytest.approx(30 / 46)


def test_without_pictures_the_setting_is_named():
    with pytest.raises(ValueError, match=r"depth\.pictures = 0"):
        predictions.draw("depth", {"names": np.array([])})
    with pytest.raises(
        ValueError, match="question = 'colour': allowed are segmentation, depth, discovery"
    ):
        predictions.caption("colour", {})


def test_the_report_shows_the_focus_of_one_seed():
    settings = load_settings({"scale": "laptop", "seeds": [3, 4]})
    shown = [p.id for p in artifacts.pictures(settings)]
    assert shown == [
        f"{q}-dinov2-r{r}-s3" for q in ("segmentation", "depth", "discovery") for r in (0, 4)
    ]
    few = load_settings(
        {"scale": "laptop", "overrides": {"segmentation.pictures": 0, "depth.pictures": 0}}
    )
    assert [p.question for p in artifacts.pictures(few)] == ["discovery"] * 2
