"""Boxes, CorLoc, the baselines, and the whole of discovery against a slow path of its own: one image at a time, plain LOST."""

import numpy as np
import pytest
import torch
from PIL import Image
from plain_lost import plain_lost
from torchvision.ops import box_iou

from registers.data.sample import Sample
from registers.evals.boxes import (
    attended,
    component_boxes,
    corloc,
    dino_seg,
    found,
    iou,
    largest_box,
)
from registers.evals.discovery import Choice, choices, discover, look, lost, padded, untuned
from registers.models.backbone import Architecture, build, split_tokens
from registers.settings.questions import DiscoverySettings
from registers.tokens import attention, capture

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def test_iou_equals_torchvision_and_hand():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 50, (30, 2, 2)).astype(float)
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], axis=1)
    expected = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    assert np.allclose([iou(b, boxes) for b in boxes], expected, atol=1e-12)
    assert iou([0, 0, 2, 2], np.array([[1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 0, 0]])).tolist() == [
        1 / 7,
        0,
        0,
    ]
    assert iou([0, 0, 0, 0], np.array([[0, 0, 0, 0]])).tolist() == [0]


def test_corloc_counts_a_half_as_found_and_any_true_box():
    assert found([0, 0, 2, 1], np.array([[0, 0, 1, 1]]))  # exactly 0.5
    assert not found([0, 0, 201, 1], np.array([[0, 0, 100, 1]]))
    truths = [
        np.array([[5, 5, 6, 6], [0, 0, 4, 4]]),
        np.array([[0, 0, 1, 1]]),
        np.array([[0, 0, 4, 4]]),
    ]
    assert corloc([[0, 0, 4, 4]] * 3, truths) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="image 1: has no true box"):
        corloc([[0, 0, 4, 4]] * 2, [truths[0], np.zeros((0, 4))])


def test_attended_is_the_fewest_patches_with_the_mass():
    rng = np.random.default_rng(1)
    for row in rng.dirichlet(np.ones(20), 10):
        mask, kept = attended(torch.from_numpy(row)), 0.0
        fewest = set()
        for place in np.argsort(-row):
            fewest.add(place)
            kept += row[place]
            if kept >= 0.6:
                break
        assert set(np.flatnonzero(mask)) == fewest


def test_baselines_choose_by_patches_or_by_box():
    mask = np.zeros((1, 6, 8), bool)
    mask[0, 0:2, 0:3] = True  # six patches in a box of six
    mask[0, 5, 3:8] = True
    mask[0, 3, 3], mask[0, 4, 3] = True, True  # seven patches, box of 15
    mask[0, 0, 5:8] = True
    mask[0, 0:3, 7] = True  # five patches, box of 9
    assert component_boxes(mask, "patches").tolist() == [[3, 3, 8, 6]]
    mask[0, 4, 3] = False  # cut: the row of five and a single one
    assert component_boxes(mask, "patches").tolist() == [[0, 0, 3, 2]]
    assert component_boxes(mask, "box").tolist() == [[5, 0, 8, 3]]
    assert component_boxes(np.zeros((1, 2, 3), bool), "box").tolist() == [[0, 0, 3, 2]]
    rows = torch.from_numpy(mask.reshape(1, -1).astype(np.float32))
    assert dino_seg(rows, (6, 8), mass=0.999).tolist() == [[0, 0, 3, 2]] and largest_box(
        rows, (6, 8)
    ).tolist() == [[5, 0, 8, 3]]


class Scenes:
    """Noise with a brighter rectangle, of several sizes; one file cannot be read, one image has no true box, one is 1 x 1."""

    classes, attributes, fingerprint, split = (), {}, "scenes", "val"
    SIZES = [(20, 16), (17, 30), (20, 16), (9, 9), (24, 16), (19, 14), (1, 1), (20, 16)]

    def __len__(self) -> int:
        return len(self.SIZES)

    def __getitem__(self, index: int) -> Sample:
        if index == 2:
            raise ValueError("scene 2: not a readable image")
        width, height = self.SIZES[index]
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        x, y, side = (0, 0, 1) if width == 1 else (width // 4, height // 3, min(width, height) // 2)
        pixels[y : y + side, x : x + side] += 120
        boxes = np.array([[x, y, x + side, y + side]] * (index != 4), np.float32).reshape(-1, 4)
        return Sample(Image.fromarray(pixels), name=f"scene {index}", boxes=boxes)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(3)
    built = build(
        Architecture(width=24, depth=2, heads=2, patch=4, image=16, registers=2),
        name="openclip-r2-s0",
    ).eval()
    for block in built.vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return built


SETTINGS = DiscoverySettings(
    images=100, tune_images=100, batch=2, layers=(-1, -2), biases=(0.0, -0.2), pictures=2
)


@pytest.fixture(scope="module")
def result(backbone):
    return discover(
        backbone, Scenes(), SETTINGS, mean=MEAN, std=STD, tune_on=Scenes(), progress=False
    )


def slow(backbone, choice: Choice) -> list[bool]:
    hits = []
    for index in (0, 1, 3, 5, 6, 7):
        sample = Scenes()[index]
        pixels = (np.asarray(sample.image) / 255.0 - MEAN) / STD
        height, width = (-(-side // 4) for side in pixels.shape[:2])
        image = np.zeros((1, 3, height * 4, width * 4), np.float32)
        image[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
        seen = capture(backbone, torch.from_numpy(image))
        heads = getattr(seen, choice.facet)[0]  # (H, N, d)
        patches = torch.cat(list(split_tokens(heads, backbone.registers).patches), dim=-1).numpy()
        x0, y0, x1, y1 = plain_lost(patches, (height, width), bias=choice.bias).box
        box = [x0 * 4, y0 * 4, min(x1 * 4, sample.image.width), min(y1 * 4, sample.image.height)]
        hits.append(
            bool(
                np.max(
                    box_iou(
                        torch.tensor([box]).double(), torch.from_numpy(sample.boxes).double()
                    ).numpy()
                )
                >= 0.5
            )
        )
    return hits


def test_discover_equals_the_slow_path_image_by_image(backbone, result):
    rows = {row.metric: row for row in result[0]}
    row, hits = rows["corloc"], slow(backbone, untuned(backbone))
    assert row.value == np.mean(hits) and row.n == 6 and row.token == "v" and row.layer == 2
    assert (
        "2 of 8 images left out, the first: scene 2: not a readable image" in row.note
        and 0 < row.low < row.value < row.high < 1
    )
    assert row.chance == np.mean(
        [found((0, 0, *Scenes()[i].image.size), Scenes()[i].boxes) for i in (0, 1, 3, 5, 6, 7)]
    )
    for facet in "kqv":
        raw = [
            r
            for r in result[0]
            if r.metric == "corloc_choice"
            and (r.token, r.layer, r.x) == (facet, 2, 0)
            and "normalisation none" in r.note
        ]
        assert len(raw) == 1 and raw[0].value == np.mean(slow(backbone, Choice(facet)))


def test_tuning_tries_the_grid_and_takes_the_best(backbone, result):
    tried = [row for row in result[0] if row.metric == "corloc_choice"]
    assert len(tried) == 3 * 2 * 3 * 2  # facets, layers, normalisations, biases
    tuned = next(row for row in result[0] if row.metric == "corloc_tuned")
    assert tuned.value == max(row.value for row in tried)  # tuned on the same images here
    assert "tuned on 6 images of scenes val, best of 36" in tuned.note
    raw = {row.x for row in tried if "normalisation none" in row.note}
    assert len(raw) == 7 and min(raw) < 0, (
        "a bias on raw features is in units of their own squared norm"
    )


def test_the_grid_is_what_the_settings_say(backbone):
    small = SETTINGS.model_copy(
        update={
            "facets": ("v", "q"),
            "normalisations": ("l2",),
            "layers": (-2,),
            "biases": (0.1,),
        }
    )
    assert choices(small) == [Choice("v", -2, "l2", 0.1), Choice("q", -2, "l2", 0.1)]
    rows, _ = discover(
        backbone,
        Scenes(),
        small.model_copy(update={"pictures": 0}),
        mean=MEAN,
        std=STD,
        tune_on=Scenes(),
        progress=False,
    )
    assert {(r.token, r.layer, r.x) for r in rows if r.metric == "corloc_choice"} == {
        ("v", 1, 0.1),
        ("q", 1, 0.1),
    }
    assert (
        next(r for r in rows if r.metric == "corloc").token == "v"
    )  # untuned is the published setting whatever the grid


def test_without_a_tuning_split_nothing_is_tuned(backbone):
    rows, arrays = discover(
        backbone,
        Scenes(),
        DiscoverySettings(images=2, pictures=0),
        mean=MEAN,
        std=STD,
        progress=False,
    )
    assert [row.metric for row in rows] == [
        "corloc",
        "corloc_dino_seg",
        "corloc_largest_box",
    ] and not arrays
    assert all(row.n == 2 for row in rows) and "chosen on these images" in rows[1].note


def test_pictures_hold_every_step(backbone, result):
    arrays = result[1]
    assert arrays["names"].tolist() == ["scene 0", "scene 1"] and arrays["facet"] == "v"
    for image, grid in ((0, (4, 5)), (1, (8, 5))):
        assert arrays[f"{image}_rgb"].shape == (Scenes.SIZES[image][1], Scenes.SIZES[image][0], 3)
        for facet in "kqv":
            score, seed = arrays[f"{image}_{facet}_score"], arrays[f"{image}_{facet}_seed"]
            assert score.shape == grid and score[tuple(seed)] == score.max()
            assert (
                arrays[f"{image}_{facet}_mask"] == (arrays[f"{image}_{facet}_expansion"] > 0)
            ).all()
            assert arrays[f"{image}_{facet}_component"][tuple(seed)]


def test_pictures_hold_the_boxes_that_were_counted(backbone, result):
    """Image by image: LOST's untuned and tuned box and DINO-seg's at its chosen head, in pixels and inside the photo."""
    rows, arrays = {row.metric: row for row in result[0]}, result[1]
    assert arrays["patch"] == 4 and arrays["data"] == rows["corloc"].data
    head, best = int(rows["corloc_dino_seg"].x), rows["corloc_tuned"]
    name = best.note.split("normalisation ")[1].split(",")[0]
    for image, grid in ((0, (4, 5)), (1, (8, 5))):
        sample = Scenes()[image]
        facets, attended_BHP = look(backbone, padded(sample, 4, MEAN, STD)[None], SETTINGS.layers)
        steps = lost(facets[best.token, best.layer - 3], grid, SETTINGS.k, best.x, name)
        size = np.array([sample.image.size])
        assert arrays[f"{image}_tuned_box"].tolist() == steps.pixels(4, size)[0].tolist()
        around = dino_seg(attended_BHP[:, head], grid)[0] * 4
        assert (
            arrays[f"{image}_dino_seg_box"].tolist()
            == np.minimum(around, np.tile(size[0], 2)).tolist()
        )


def test_look_sees_what_the_bank_sees(backbone):
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    facets, rows = look(backbone, images, [-1, -2])
    seen = capture(backbone, images)
    for name in "qkv":
        assert facets[name, -1].shape == (2, 6, 24) and facets[name, -2].shape == (2, 6, 24)
        heads = split_tokens(getattr(seen, name).transpose(1, 2).flatten(2), 2).patches
        assert torch.equal(facets[name, -1], heads)
    full = attention(seen.q, seen.k, [0])[:, :, 0]  # (B, H, N)
    assert torch.allclose(rows, full[..., 3:]) and rows.shape == (2, 2, 6)
    with pytest.raises(ValueError, match="allowed are -2 to -1"):
        look(backbone, images, [-3])


def test_the_published_setting_and_the_order_of_choices():
    names = {
        "deit3-r0-s0": "v",
        "openclip-r4-s0": "v",
        "dinov2-giant-r0-s0": "k",
        "timm/some_vit": "k",
    }
    for name, facet in names.items():
        backbone = type("Named", (), {"name": name})
        assert untuned(backbone) == Choice(facet, -1, "none", 0.0)
    grid = choices(DiscoverySettings(), {("k", -1): 4.0})
    assert grid[0] == Choice() and len(set(grid)) == len(
        grid
    )  # the published one first, so that it wins ties
    assert {
        c.bias for c in grid if c.facet == "k" and c.layer == -1 and c.normalisation == "none"
    } == {4 * b for b in DiscoverySettings().biases}


def test_no_usable_image_is_one_clear_line(backbone):
    class Empty(Scenes):
        SIZES = [(8, 8)]

        def __getitem__(self, index):
            return Sample(
                Image.new("RGB", (8, 8)), name="x.jpg", boxes=np.zeros((0, 4), np.float32)
            )

    with pytest.raises(
        ValueError, match=r"none of 1 images can be used; the first: x\.jpg: has no boxes"
    ):
        discover(backbone, Empty(), SETTINGS, mean=MEAN, std=STD, progress=False)
