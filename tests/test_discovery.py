"""Boxes, the baselines, and the whole of discovery against a slow path: one image, plain LOST."""

import numpy as np
import pytest
import torch
from PIL import Image
from plain_lost import plain_lost
from torchvision.ops import box_iou

from registers import lost_arrays
from registers.data.sample import Sample
from registers.evals import lost_search
from registers.evals.boxes import (
    attended,
    component_boxes,
    dino_seg,
    iou,
    largest_box,
    overlaps_any,
)
from registers.evals.discovery import discover, measure
from registers.evals.lost import lost
from registers.evals.lost_search import (
    Choice,
    ShortSide,
    choices,
    grid_of,
    observed,
    padded,
    published,
)
from registers.models.backbone import Architecture, build
from registers.models.sequence import split_tokens
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.load import load_settings
from registers.settings.questions import DiscoverySettings
from registers.tokens import attention, capture

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

MEAN = (0.4, 0.5, 0.6)
STD = (0.2, 0.25, 0.3)
SETTINGS = DiscoverySettings(
    images=100, tune_images=100, batch=2, layers=(-1, -2), biases=(0.0, -0.2), pictures=2
)


class Scenes:
    """Noise with a brighter rectangle, of several sizes.

    Image 2 cannot be read, image 4 has no true box, image 6 is 1 x 1.
    """

    classes = ()
    attributes = {}
    fingerprint = "scenes"
    split = "val"
    SIZES = ((20, 16), (17, 30), (20, 16), (9, 9), (24, 16), (19, 14), (1, 1), (20, 16))
    USABLE = (0, 1, 3, 5, 6, 7)

    def __len__(self) -> int:
        return len(self.SIZES)

    def __getitem__(self, index: int) -> Sample:
        if index == 2:
            raise ValueError("scene 2: not a readable image")
        width, height = self.SIZES[index]
        x, y, side = width // 4, height // 3, max(1, min(width, height) // 2)
        pixels = np.random.default_rng(index).integers(0, 90, (height, width, 3), dtype=np.uint8)
        pixels[y : y + side, x : x + side] += 120
        box = np.array([[x, y, x + side, y + side]], np.float32)
        boxes = box[:0] if index == 4 else box
        return Sample(Image.fromarray(pixels), name=f"scene {index}", boxes=boxes)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(3)
    architecture = Architecture(width=24, depth=2, heads=2, patch=4, image=16, registers=2)
    backbone = build(architecture, "openclip-r2-s0", (MEAN, STD)).eval()
    for block in backbone.vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return backbone


@pytest.fixture(scope="module")
def measured(backbone):
    return discover(backbone, Scenes(), SETTINGS, tune_on=Scenes(), progress=False)


# --- boxes


def test_iou_equals_torchvision():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 50, (30, 2, 2)).astype(float)
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], axis=1)
    expected = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    assert np.allclose([iou(box, boxes) for box in boxes], expected, atol=1e-12)


def test_iou_by_hand():
    others = np.array([[1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 0, 0]])
    assert iou([0, 0, 2, 2], others).tolist() == [1 / 7, 0, 0]
    assert iou([0, 0, 0, 0], np.array([[0, 0, 0, 0]])).tolist() == [0]


def test_a_half_overlaps_and_any_true_box_will_do():
    assert overlaps_any([0, 0, 2, 1], np.array([[0, 0, 1, 1]]))  # exactly 0.5
    assert not overlaps_any([0, 0, 201, 1], np.array([[0, 0, 100, 1]]))
    assert overlaps_any([0, 0, 4, 4], np.array([[5, 5, 6, 6], [0, 0, 4, 4]]))
    assert not overlaps_any([0, 0, 4, 4], np.zeros((0, 4)))


def test_attended_is_the_fewest_patches_with_the_mass():
    rng = np.random.default_rng(1)
    for row in rng.dirichlet(np.ones(20), 10):
        order = np.argsort(-row)
        needed = 1 + np.flatnonzero(row[order].cumsum() >= 0.6)[0]
        assert set(np.flatnonzero(attended(torch.from_numpy(row)))) == set(order[:needed])


def test_baselines_choose_by_patches_or_by_box():
    mask = np.zeros((1, 6, 8), bool)
    mask[0, 0:2, 0:3] = True  # six patches in a box of six
    mask[0, 5, 3:8] = True
    mask[0, 3:5, 3] = True  # with these seven patches, in a box of 15
    mask[0, 0, 5:8] = True
    mask[0, 0:3, 7] = True  # five patches in a box of 9
    assert component_boxes(mask, "patches").tolist() == [[3, 3, 8, 6]]
    mask[0, 4, 3] = False  # cut: the row of five and a single one
    assert component_boxes(mask, "patches").tolist() == [[0, 0, 3, 2]]
    assert component_boxes(mask, "box").tolist() == [[5, 0, 8, 3]]
    assert component_boxes(np.zeros((1, 2, 3), bool), "box").tolist() == [[0, 0, 3, 2]]
    rows = torch.from_numpy(mask.reshape(1, -1).astype(np.float32))
    assert dino_seg(rows, (6, 8), mass=0.999).tolist() == [[0, 0, 3, 2]]
    assert largest_box(rows, (6, 8)).tolist() == [[5, 0, 8, 3]]


# --- the whole against a slow path


def slow_hits(backbone, choice: Choice) -> list[bool]:
    """Of the usable images whether LOST on raw features of the last layer finds the rectangle."""
    hits = []
    for index in Scenes.USABLE:
        sample = Scenes()[index]
        pixels = (np.asarray(sample.image) / 255.0 - MEAN) / STD
        height, width = (-(-side // 4) for side in pixels.shape[:2])
        image = np.zeros((1, 3, height * 4, width * 4), np.float32)
        image[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
        heads_HNd = getattr(capture(backbone, torch.from_numpy(image)), choice.facet)[0]
        patches = torch.cat([*split_tokens(heads_HNd, backbone.registers).patches], dim=-1)
        x0, y0, x1, y1 = plain_lost(patches.numpy(), (height, width), bias=choice.bias).box
        box = [x0 * 4, y0 * 4, min(x1 * 4, sample.image.width), min(y1 * 4, sample.image.height)]
        overlaps = box_iou(torch.tensor([box]).double(), torch.from_numpy(sample.boxes).double())
        hits.append(float(overlaps.max()) >= 0.5)
    return hits


def test_discover_equals_the_slow_path(backbone, measured):
    row = next(row for row in measured.rows if row.metric == "corloc")
    assert row.value == np.mean(slow_hits(backbone, published(backbone)))
    assert (row.n, row.variant, row.layer) == (6, "v", 2)
    assert 0 < row.low < row.value < row.high < 1
    assert "2 of 8 images left out, the first: scene 2: not a readable image" in row.note
    samples = [Scenes()[index] for index in Scenes.USABLE]
    whole = [overlaps_any((0, 0, *sample.image.size), sample.boxes) for sample in samples]
    assert row.chance == np.mean(whole)


@pytest.mark.parametrize("facet", lost_arrays.FACETS)
def test_every_facet_equals_the_slow_path(backbone, measured, facet):
    (raw,) = (
        row
        for row in measured.rows
        if (row.metric, row.variant, row.layer, row.at) == ("corloc_choice", facet, 2, 0)
        and "normalisation none" in row.note
    )
    assert raw.coordinate == "bias"
    assert raw.value == np.mean(slow_hits(backbone, Choice(facet)))


# --- large images


def test_images_of_too_many_patches_are_made_smaller_and_the_rows_say_so(
    backbone, monkeypatch, caplog
):
    """Photos at native size in patches of 4 took minutes each, without a word."""
    monkeypatch.setattr(lost_search, "MOST_PATCHES", 20)  # of 20 x 16 pixels: as it is
    dataset = ShortSide(Scenes(), 0, patch=4)
    for index in Scenes.USABLE:
        own, sample = Scenes()[index], dataset[index]
        width, height = own.image.size
        assert np.prod(grid_of(sample.image, 4)) <= 24 and min(sample.image.size) >= 1
        if np.prod(grid_of(own.image, 4)) <= 20:
            assert sample.image.size == own.image.size
            continue
        assert sample.image.size[0] < width and sample.image.size[1] < height
        assert np.allclose(sample.boxes / own.boxes, sample.image.width / width, rtol=0.1)
    caplog.clear()
    rows = discover(backbone, Scenes(), SETTINGS, progress=False).rows
    assert rows[0].n == 6 and "; images: 2 made smaller, to 20 patches" in rows[0].note
    (line,) = [m for m in caplog.messages if "made smaller" in m]
    assert "scene 1: 5 x 8 patches of 4 pixels" in line and "discovery.size" in line


def test_the_bar_is_full_when_the_last_image_is_done(backbone, monkeypatch):
    """Not when it is read: a window of batches is read ahead."""

    class Bar(lost_search.tqdm):
        at = []

    bars = []
    monkeypatch.setattr(lost_search, "tqdm", lambda **more: bars.append(Bar(**more)) or bars[-1])
    hits = lost_search._lost_hits

    def recorded(batch, *arguments):
        Bar.at.append(bars[-1].n)
        return hits(batch, *arguments)

    monkeypatch.setattr(lost_search, "_lost_hits", recorded)
    discover(backbone, Scenes(), SETTINGS.model_copy(update={"pictures": 0}), progress=True)
    assert Bar.at == sorted(set(Bar.at)) and Bar.at[0] == 0 and Bar.at[-1] < 6
    assert bars[-1].n == len(Scenes())


# --- tuning


def test_tuning_tries_the_grid_and_takes_the_best(measured):
    tried = [row for row in measured.rows if row.metric == "corloc_choice"]
    assert len(tried) == 3 * 2 * 3 * 2  # facets, layers, normalisations, biases
    tuned = next(row for row in measured.rows if row.metric == "corloc_tuned")
    assert tuned.value == max(row.value for row in tried)  # tuned on the same images here
    assert "tuned on 6 images of scenes val, best of 36" in tuned.note
    # a bias on raw features is in units of their own squared norm
    raw = {row.at for row in tried if "normalisation none" in row.note}
    assert len(raw) == 7
    assert min(raw) < 0


def test_the_grid_is_what_the_settings_say(backbone):
    grid = dict(facets=("v", "q"), normalisations=("l2",), layers=(-2,), biases=(0.1,))
    settings = SETTINGS.model_copy(update=grid | {"pictures": 0})
    assert choices(settings) == [Choice("v", -2, "l2", 0.1), Choice("q", -2, "l2", 0.1)]
    rows = discover(backbone, Scenes(), settings, tune_on=Scenes(), progress=False).rows
    tried = {(r.variant, r.layer, r.at) for r in rows if r.metric == "corloc_choice"}
    assert tried == {("v", 1, 0.1), ("q", 1, 0.1)}
    # untuned is the published setting whatever the grid
    assert next(row for row in rows if row.metric == "corloc").variant == "v"


def test_without_a_tuning_split_nothing_is_tuned(backbone):
    settings = DiscoverySettings(images=2, pictures=0)
    measured = discover(backbone, Scenes(), settings, progress=False)
    metrics = [row.metric for row in measured.rows]
    assert metrics == ["corloc", "corloc_dino_seg", "corloc_largest_box"]
    assert measured.arrays == {}
    assert all(row.n == 2 for row in measured.rows)
    assert "chosen on these images" in measured.rows[1].note


def test_the_published_setting_comes_first():
    names = {
        "deit3-r0-s0": "v",
        "openclip-r4-s0": "v",
        "dinov2-giant-r0-s0": "k",
        "timm/some_vit": "k",
    }
    for name, facet in names.items():
        named = type("Named", (), {"name": name})
        assert published(named) == Choice(facet, -1, "none", 0.0)
    settings = DiscoverySettings()
    grid = choices(settings, {("k", -1): 4.0})
    assert grid[0] == Choice()  # so that it wins ties
    assert len(set(grid)) == len(grid)
    raw = {c.bias for c in grid if (c.facet, c.layer, c.normalisation) == ("k", -1, "none")}
    assert raw == {4 * bias for bias in settings.biases}


def test_rows_are_of_all_sets_and_steps_of_the_first(backbone):
    """Table 3 has three sets."""
    settings = load_settings({"scale": "smoke"})
    settings = settings.model_copy(update={"discovery": SETTINGS})
    sets = [EvaluationSet.of("one", None, Scenes()), EvaluationSet.of("two", None, Scenes())]
    measured = measure(backbone, sets, settings)
    shares = [row for row in measured.rows if row.coordinate != "image"]
    assert [row.data for row in shares] == ["one"] * 3 + ["two"] * 3
    steps = [row for row in measured.rows if row.coordinate == "image"]
    assert {row.metric for row in steps} == {"score_roughness", "expansion_roughness"}
    assert {row.variant for row in steps} <= {"k", "q", "v", "published"}
    assert {row.data for row in steps} == {"one", "two"}
    assert measured.arrays["data"] == "one"


# --- arrays for figures


@pytest.mark.parametrize(("image", "grid"), [(0, (4, 5)), (1, (8, 5))])
def test_arrays_hold_every_step(measured, image, grid):
    arrays = measured.arrays
    assert arrays["names"].tolist() == ["scene 0", "scene 1"]
    assert lost_arrays.published_facet(arrays) == "v"
    width, height = Scenes.SIZES[image]
    assert lost_arrays.photo(arrays, image).shape == (height, width, 3)
    for facet in lost_arrays.FACETS:
        steps = {s: lost_arrays.step(arrays, image, s, facet) for s in lost_arrays.STEPS}
        assert all(step.shape == grid for step in steps.values())
        seed = tuple(lost_arrays.step(arrays, image, "seed", facet))
        assert steps["score"][seed] == steps["score"].max()
        assert (steps["mask"] == (steps["expansion"] > 0)).all()
        assert steps["component"][seed]


@pytest.mark.parametrize(("image", "grid"), [(0, (4, 5)), (1, (8, 5))])
def test_arrays_hold_the_boxes_that_were_counted(backbone, measured, image, grid):
    """LOST's tuned box and DINO-seg's at its best head, in pixels and inside the photo."""
    rows = {row.metric: row for row in measured.rows}
    arrays = measured.arrays
    assert arrays["patch"] == 4
    assert arrays["data"] == rows["corloc"].data
    sample = Scenes()[image]
    size = np.array([sample.image.size])
    image_13HW = padded(backbone.normalised(sample.image), 4)[None]
    facets, attention_BHP = observed(backbone, image_13HW, SETTINGS.layers)

    tuned = rows["corloc_tuned"]
    name = tuned.note.split("normalisation ")[1].split(",")[0]
    steps = lost(facets[tuned.variant, tuned.layer - 3], grid, SETTINGS.k, tuned.at, name)
    expected = steps.pixels(4, size)[0].tolist()
    assert lost_arrays.box(arrays, image, lost_arrays.TUNED).tolist() == expected

    head = int(rows["corloc_dino_seg"].at)
    around = dino_seg(attention_BHP[:, head], grid)[0] * 4
    expected = np.minimum(around, np.tile(size[0], 2)).tolist()
    assert lost_arrays.box(arrays, image, lost_arrays.DINO_SEG).tolist() == expected


# --- features


def test_facets_and_attention_are_those_of_the_bank(backbone):
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    facets, attention_BHP = observed(backbone, images, [-1, -2])
    bank = capture(backbone, images)
    for name in lost_arrays.FACETS:
        assert facets[name, -1].shape == facets[name, -2].shape == (2, 6, 24)
        side_by_side = getattr(bank, name).transpose(1, 2).flatten(2)
        assert torch.equal(facets[name, -1], split_tokens(side_by_side, 2).patches)
    rows_BHN = attention(bank.q, bank.k, [0])[:, :, 0]
    assert attention_BHP.shape == (2, 2, 6)
    assert torch.allclose(attention_BHP, rows_BHN[..., 3:])
    with pytest.raises(ValueError, match="must be from -2 to -1"):
        observed(backbone, images, [-3])


def test_no_usable_image_is_one_clear_line(backbone):
    class Empty(Scenes):
        SIZES = ((8, 8),)

        def __getitem__(self, index):
            boxes = np.zeros((0, 4), np.float32)
            return Sample(Image.new("RGB", (8, 8)), name="x.jpg", boxes=boxes)

    reason = r"the first: x\.jpg: has no boxes"
    with pytest.raises(ValueError, match=f"none of 1 images can be used; {reason}"):
        discover(backbone, Empty(), SETTINGS, progress=False)
