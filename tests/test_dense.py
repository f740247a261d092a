"""Segmentation and depth: planted truths, metrics against torchmetrics and by hand, the published head and losses in closed form."""

import numpy as np
import pytest
import torch
from fakes import MEAN, STD, fake_backbone
from PIL import Image
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.regression import MeanSquaredError

from registers.data.sample import Sample
from registers.evals.dense import Maps, feature_maps, picture_arrays, resampled, warmed
from registers.evals.dense_transforms import (
    centre,
    depth_example,
    photometric,
    resized,
    segmentation_example,
)
from registers.evals.depth import (
    BINS,
    DepthHead,
    errors,
    estimate_depth,
    gradient_loss,
    schedule,
    sig_loss,
)
from registers.evals.feature_cache import Held
from registers.evals.segmentation import (
    LinearHead,
    intersections,
    loss,
    mean_iou,
    predict,
    segment,
    windows,
)
from registers.readers.splits import open_set
from registers.settings.questions import DepthSettings, SegmentationSettings

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

COLOURS = [(230, 40, 40), (40, 230, 40), (40, 40, 230)]
DEPTHS = [2.0, 4.0, 7.0]  # of each colour
SEG = SegmentationSettings(
    train_images=64,
    val_images=64,
    iterations=50,
    batch=16,
    lr=0.05,
    warmup=5,
    size=16,
    crop=16,
    stride=16,
    augment=False,
    pictures=2,
)
DEEP = DepthSettings(
    train_images=64,
    val_images=64,
    iterations=250,
    batch=8,
    lr=0.1,
    warmup=5,
    size=0,
    augment=False,
    log_mean_only=0,
    crop="none",
    pictures=1,
)


class Bands:
    """16 x 16 pixels in two bands of plain colour, each with its class and depth; where they meet nothing is known (that pixel is the
    interpolation's). bad: number of an image that cannot be read; wrong: one with a class id out of range."""

    classes, attributes, fingerprint = (), {}, "bands"
    mask_classes = ("red", "green", "blue")

    def __init__(self, images=32, seed=0, bad=None, wrong=None):
        self.pairs = np.random.default_rng(seed).integers(0, 3, (images, 2))
        self.bad, self.wrong = bad, wrong

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        if index == self.bad:
            raise ValueError(f"bands {index}: not a readable image")
        left, right = self.pairs[index]
        where = np.repeat([left, right], 8)[None].repeat(16, 0)
        mask, depth = where.astype(np.uint8), np.array(DEPTHS, np.float32)[where]
        if left != right:
            mask[:, 6:10], depth[:, 6:10] = 255, 0
        if index == self.wrong:
            mask[0, 0] = 3
        return Sample(
            Image.fromarray(np.array(COLOURS, np.uint8)[where]),
            name=f"bands {index}",
            mask=mask,
            depth=depth,
        )


@pytest.fixture(scope="module")
def backbone():
    return fake_backbone(registers=1)


def common():
    return dict(mean=MEAN, std=STD, progress=False)


def test_a_planted_class_is_segmented_perfectly(backbone):
    rows, arrays = segment(backbone, Bands(seed=1), Bands(24, seed=2), SEG, **common())
    found = {(row.metric, row.token): row for row in rows}
    assert found["miou", ""].value == 1 and found["miou", ""].low == 1 and found["miou", ""].n == 24
    assert found["pixel_accuracy", ""].value == 1 and {t for m, t in found if m == "iou"} == set(
        Bands.mask_classes
    )
    assert 0.05 < found["miou", ""].chance < 0.3
    known = arrays["0_truth"] != 255
    assert (arrays["0_predicted"] == arrays["0_truth"])[known].all() and arrays["1_rgb"].shape == (
        16,
        16,
        3,
    )


def test_shuffled_truths_are_not_found(backbone):
    class Shuffled(Bands):
        def __getitem__(self, index):
            sample, other = (
                super().__getitem__(index),
                super().__getitem__((index * 7 + 3) % len(self)),
            )
            return Sample(sample.image, sample.name, mask=other.mask, depth=other.depth)

    rows, _ = segment(backbone, Shuffled(seed=1), Shuffled(24, seed=2), SEG, **common())
    assert rows[0].value < 0.5
    deep, _ = estimate_depth(backbone, Shuffled(seed=1), Shuffled(24, seed=2), DEEP, **common())
    assert deep[0].value > 0.6 * deep[0].chance


def test_a_planted_depth_is_measured(backbone):
    rows, arrays = estimate_depth(backbone, Bands(seed=1), Bands(24, seed=2), DEEP, **common())
    found = {row.metric: row for row in rows}
    for metric in ("rmse", "rmse_mean_image"):
        row = found[metric]
        assert row.value < 0.1 * row.chance and row.low <= row.value <= row.high and row.n == 24
    train, val = ([Bands(n, seed=s)[i].depth for i in range(n)] for n, s in ((32, 1), (24, 2)))
    known = np.concatenate([d[d > 0] for d in val])
    constant = np.concatenate([d[d > 0] for d in train]).mean()
    assert found["rmse"].chance == pytest.approx(
        np.sqrt(((known - constant) ** 2).mean()), rel=0.02
    )
    assert arrays["0_predicted"].shape == (16, 16)


@pytest.mark.parametrize("augment", [False, True])
def test_one_bad_file_is_counted_and_ends_nothing(backbone, augment):
    short = dict(iterations=3, augment=augment, batch=4)
    rows, _ = segment(
        backbone,
        Bands(8, bad=2),
        Bands(8, bad=1, wrong=3),
        SEG.model_copy(update=short),
        **common(),
    )
    assert (
        rows[0].n == 6
        and "1 of 8 training images left out, the first: bands 2: not a readable image"
        in rows[0].note
    )
    assert "2 of 8 images left out, the first: bands 1" in rows[0].note
    deep, _ = estimate_depth(
        backbone, Bands(8, bad=2), Bands(8, bad=1), DEEP.model_copy(update=short), **common()
    )
    assert deep[0].n == 7 and np.isfinite(deep[0].value)
    assert ("augmented crops" in rows[0].note) == augment


def test_classes_that_differ_are_one_clear_line(backbone):
    other = Bands(4)
    other.mask_classes = ("red", "green")
    with pytest.raises(ValueError, match="classes: 3 in train, 2 in val"):
        segment(backbone, Bands(4), other, SEG, **common())


def test_training_is_the_same_again_and_leaves_the_generators_alone(backbone):
    state = torch.get_rng_state()
    runs = [
        segment(
            backbone,
            Bands(8),
            Bands(8),
            SEG.model_copy(update={"iterations": 5, "augment": True, "batch": 4}),
            **common(),
        )[0][0].value
        for _ in range(2)
    ]
    assert runs[0] == runs[1] and torch.equal(state, torch.get_rng_state())


# --- metrics --------------------------------------------------------------------------------------------------------------


def test_mean_iou_equals_torchmetrics_and_hand():
    rng = np.random.default_rng(0)
    masks, predictions = rng.integers(0, 5, (6, 9, 7)), rng.integers(0, 5, (6, 9, 7))
    masks[rng.random(masks.shape) < 0.2] = 255
    counts = [intersections(p, m, 5) for p, m in zip(predictions, masks)]
    inter, union = (np.sum(x, axis=0) for x in zip(*counts))
    official = MulticlassJaccardIndex(num_classes=5, average="macro", ignore_index=255)
    assert float(mean_iou(inter, union)) == pytest.approx(
        float(official(torch.from_numpy(predictions), torch.from_numpy(masks))), abs=1e-6
    )
    inter, union = intersections(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 255]]), 4)
    assert inter.tolist() == [1, 1, 0, 0] and union.tolist() == [2, 2, 0, 0]
    assert float(mean_iou(inter, union)) == 0.5  # classes that occur nowhere do not count
    with pytest.raises(ValueError, match="class id 4: allowed are 0 to 3"):
        intersections(np.zeros((1, 1)), np.array([[4]]), 4)


def test_rare_classes_do_not_pull_the_interval_away():
    """Each class in two of 40 images: a draw that misses both says nothing of that class, so its value is inside its interval."""
    from registers.evals.segmentation import _rows

    rng, classes = np.random.default_rng(0), 20
    masks = np.repeat(np.arange(40) % classes, 100).reshape(40, 10, 10)
    guesses = np.where(rng.random(masks.shape) < 0.5, masks, rng.integers(0, classes, masks.shape))
    inter, union = (
        np.array(x) for x in zip(*(intersections(g, m, classes) for g, m in zip(guesses, masks)))
    )
    area = np.array([np.bincount(m.ravel(), minlength=classes) for m in masks])
    row = _rows("dinov2-r0-s0", [str(c) for c in range(classes)], inter, union, area, "")[0]
    assert row.low < row.value < row.high and abs((row.low + row.high) / 2 - row.value) < 0.25 * (
        row.high - row.low
    )


def test_pictures_keep_their_shape_and_their_values():
    """A large photo is shrunk to 512 pixels; its truth and prediction hold no value that was not there, and lie as before."""
    mask = np.repeat(np.array([0, 7, 255], np.uint8), 400)[None].repeat(600, 0)
    big = Sample(Image.new("RGB", (1200, 600)), name="big", mask=mask)
    small = Sample(Image.new("RGB", (30, 50)), name="small", mask=np.zeros((50, 30), np.uint8))
    depth = np.linspace(0, 9, mask.size, dtype=np.float32).reshape(mask.shape)
    arrays = picture_arrays(
        [(big, mask, depth), (small, small.mask, small.mask)], "dinov2-r0-s0", data="x"
    )
    assert (
        arrays["0_rgb"].shape == (256, 512, 3)
        and arrays["1_rgb"].shape == (50, 30, 3)
        and arrays["data"] == "x"
    )
    assert arrays["0_truth"].shape == arrays["0_predicted"].shape == (256, 512) and set(
        np.unique(arrays["0_truth"])
    ) == {0, 7, 255}
    assert (
        arrays["0_truth"][128, [80, 256, 430]].tolist() == [0, 7, 255]
        and np.isin(arrays["0_predicted"], depth).all()
    )


def test_rmse_by_both_definitions(backbone):
    from registers.evals.depth import _rows

    rng = np.random.default_rng(0)
    depths, guesses = (
        rng.uniform(0.5, 9, (5, 6, 8)).astype(np.float32),
        rng.uniform(0.5, 9, (5, 6, 8)).astype(np.float32),
    )
    depths[rng.random(depths.shape) < 0.3] = 0
    sums = np.array([errors(g, d, 10.0) for g, d in zip(guesses, depths)])
    pooled, by_image = _rows("dinov2-r0-s0", sums, sums, "", "")
    official = MeanSquaredError(squared=False)
    each = [
        float(official(torch.from_numpy(g[d > 0]), torch.from_numpy(d[d > 0])))
        for g, d in zip(guesses, depths)
    ]
    known = depths > 0
    assert pooled.value == pytest.approx(
        float(official(torch.from_numpy(guesses[known]), torch.from_numpy(depths[known]))), rel=1e-6
    )
    assert by_image.value == pytest.approx(
        np.mean(each), rel=1e-6
    ) and by_image.value != pytest.approx(pooled.value, rel=1e-4)


def test_depth_counts_known_pixels_in_range_and_in_eigens_crop():
    depth = np.full((480, 640), 2.0, np.float32)
    assert errors(depth + 1, depth, 10.0, "eigen") == (426 * 560, 426 * 560)
    assert errors(depth + 1, depth, 10.0) == (480 * 640, 480 * 640)
    depth[100, :] = 0
    depth[101, :] = 10.5
    assert errors(depth, depth, 10.0, "eigen") == (0, 424 * 560)
    with pytest.raises(
        ValueError, match="allowed with depth.crop eigen are 640 x 480".replace(".", r"\.")
    ):
        errors(depth.T, depth.T, 10.0, "eigen")


def test_the_interval_covers_what_resampling_gives():
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = resampled(lambda weights: weights @ values / weights.sum(1), 400)
    assert low < values.mean() < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


# --- heads and losses -----------------------------------------------------------------------------------------------------


def test_depth_head_is_the_published_one():
    """Written out as decode_head.py and linear_head.py have it: concatenate, upsample, convolve, relu + 0.1, normalise, expectation."""
    torch.manual_seed(0)
    head, patches, cls = DepthHead(5, 10.0), torch.randn(2, 5, 3, 4), torch.randn(2, 5)
    x = F.interpolate(
        torch.cat([patches, cls[..., None, None].expand(-1, -1, 3, 4)], 1),
        scale_factor=4,
        mode="bilinear",
        align_corners=False,
    )
    share = head.conv(x).relu() + 0.1
    share = share / share.sum(1, keepdim=True)
    expected = torch.einsum("bkhw,k->bhw", share, torch.linspace(1e-3, 10.0, BINS))[:, None]
    assert torch.allclose(head(Maps(patches, cls, (0, 0), 4)), expected, atol=1e-5)


def test_losses_in_closed_form():
    depth = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(0)) * 5 + 3
    assert float(sig_loss(depth * 2, depth, 10.0)) == pytest.approx(
        np.sqrt(0.15) * np.log(2), rel=1e-3
    )  # var 0, mean log 2
    assert float(sig_loss(depth * 2, depth, 10.0, mean_only=True)) == pytest.approx(
        np.sqrt(0.15) * np.log(2), rel=1e-3
    )
    assert (
        float(gradient_loss(depth * 2, depth, 10.0)) < 1e-2
    )  # a factor has no gradient (but for the eps of 0.001)
    # log p - log d = column: neighbours two apart differ by 2 times the stride
    flat = torch.full((1, 1, 1, 16), 2.0)
    ramp = flat * torch.exp(0.1 * torch.arange(16.0))
    expected = sum(0.2 * s * (n - 2) / n for s, n in ((1, 16), (2, 8), (4, 4), (6, 3)))
    assert float(gradient_loss(ramp, flat, 10.0)) == pytest.approx(expected, rel=5e-3)
    unknown = depth.clone()
    unknown[0, 0, 0, 0] = 0
    wild = depth.clone()
    wild[0, 0, 0, 0] = 9.9
    assert (
        float(sig_loss(wild, unknown, 10.0)) == 0 and float(gradient_loss(wild, unknown, 10.0)) == 0
    )


def test_cross_entropy_is_a_mean_over_all_pixels_at_full_resolution():
    torch.manual_seed(0)
    maps, scores = (
        Maps(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1), (0, 0), 4),
        torch.randn(1, 3, 2, 2),
    )
    mask = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    mask[0, :4] = 255
    full = F.interpolate(scores, (8, 8), mode="bilinear", align_corners=False).log_softmax(1)
    expected = (
        -sum(float(full[0, int(mask[0, y, x]), y, x]) for y in range(4, 8) for x in range(8)) / 64
    )
    assert float(loss(maps, scores, mask)) == pytest.approx(expected, rel=1e-5)


def test_depth_that_is_nearly_unknown_costs_nothing_and_spoils_nothing():
    predicted, depth = torch.ones(1, 1, 8, 8, requires_grad=True), torch.zeros(1, 1, 8, 8)
    for known in range(3):
        depth[0, 0, 0, :known] = 2.0 + torch.arange(known)
        for mean_only in (False, True):
            value = sig_loss(predicted, depth, 10.0, mean_only) + gradient_loss(
                predicted, depth, 10.0
            )
            (gradient,) = torch.autograd.grad(value, predicted)
            assert (
                torch.isfinite(value)
                and torch.isfinite(gradient).all()
                and (value > 0) == (known > 1)
            )


def test_one_odd_size_in_front_does_not_shape_the_training(backbone):
    class Odd(Bands):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return (
                sample
                if index
                else Sample(
                    sample.image.crop((0, 0, 1, 1)), sample.name, depth=sample.depth[:1, :1]
                )
            )

    rows, _ = estimate_depth(backbone, Odd(seed=1), Bands(24, seed=2), DEEP, **common())
    assert rows[0].value < 0.2 * rows[0].chance


def test_eigens_crop_leaves_other_sizes_out():
    class Two(Bands):
        def __getitem__(self, index):
            size = (640, 480) if index else (64, 48)
            depth = np.full(size[::-1], 2.0, np.float32)
            depth[0] = 3
            if index == 2:
                depth[:] = 0
                depth[0] = 3  # known outside the crop alone
            return Sample(Image.new("RGB", size), f"two {index}", depth=depth)

    settings = DEEP.model_copy(
        update={
            "iterations": 1,
            "batch": 1,
            "train_images": 2,
            "val_images": 3,
            "crop": "eigen",
            "size": 16,
        }
    )
    rows, _ = estimate_depth(fake_backbone(size=16), Two(3), Two(3), settings, **common())
    assert (
        rows[0].n == 1
        and "2 of 3 images left out, the first: two 0: depth of 64 x 48 pixels" in rows[0].note
    )


def test_held_rows_come_back_and_vanish():
    held = Held()
    patches, truths = torch.randn(5, 3, 2, 2).half(), torch.randint(0, 9, (5, 4), dtype=torch.uint8)
    for part in (slice(0, 2), slice(2, 5)):
        held.append(patches[part], truths[part])
    chosen = [4, 0, 0, 2]
    back = held[chosen]
    assert (
        len(held) == 5
        and torch.equal(back[0], patches[chosen])
        and torch.equal(back[1], truths[chosen])
    )
    with pytest.raises(ValueError, match="allowed are such as the first"):
        held.append(patches[:, :1], truths)


def test_schedules():
    assert (
        warmed(0, 10, 1e-3) == pytest.approx(1e-3)
        and warmed(5, 10, 0.0) == 0.5
        and warmed(10, 10, 0.1) == 1
        and warmed(0, 0, 0.1) == 1
    )
    settings = DepthSettings(iterations=100, warmup=0, lr=1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    seen = {}
    for step in (0, 15, 30, 50, 65, 100):
        schedule(optimizer, step, settings)
        seen[step] = optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]
    assert (
        seen[0] == pytest.approx((1.0, 0.95))
        and seen[50][0] == pytest.approx(0.5)
        and seen[100] == pytest.approx((1e-8, 0.95))
    )
    assert (
        seen[30][1] == pytest.approx(0.85)
        and seen[15][1] == pytest.approx(0.9)
        and seen[65][1] == pytest.approx(0.9)
    )


# --- pixels ---------------------------------------------------------------------------------------------------------------


def test_windows_are_mmsegs():
    assert windows(512, 512, 341) == [0] and windows(300, 512, 341) == [0]
    assert windows(683, 512, 341) == [0, 171] and windows(1024, 512, 341) == [0, 341, 512]


def test_sliding_windows_cover_every_pixel_once_in_the_mean(backbone):
    """A head that looks at nothing gives the same score everywhere, however often a pixel is covered; a colour keeps its place."""
    head = LinearHead(backbone.architecture.width, 2).eval()
    settings = SegmentationSettings(crop=16, stride=6)
    with torch.no_grad():
        head.conv.weight.zero_()
        head.conv.bias.copy_(torch.tensor([1.0, -2.0]))
    scores = predict(backbone, head, torch.randn(1, 3, 27, 16), settings)
    assert (
        scores.shape == (1, 2, 27, 16)
        and torch.allclose(scores[0, 0], torch.ones(27, 16))
        and torch.allclose(scores[0, 1], -2 * torch.ones(27, 16))
    )


def test_padding_is_on_all_sides_and_taken_off_again(backbone):
    image = torch.zeros(1, 3, 10, 14)
    image[..., :5, :] = 1
    maps = feature_maps(backbone, image, normed=True)
    assert maps.patches.shape[2:] == (3, 4) and maps.pad == (1, 1)
    rows = torch.arange(3.0).view(1, 1, 3, 1).expand(-1, -1, -1, 4)
    pixels = maps.to_pixels(rows, (10, 14))
    whole = F.interpolate(rows, (12, 16), mode="bilinear", align_corners=False)
    assert torch.equal(pixels, whole[..., 1:11, 1:15])


def test_normed_and_raw_features_differ_by_the_final_norm(backbone):
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    normed, raw = feature_maps(backbone, image, True), feature_maps(backbone, image, False)
    assert torch.allclose(
        backbone.vit.norm(raw.patches.permute(0, 2, 3, 1)),
        normed.patches.permute(0, 2, 3, 1),
        atol=1e-5,
    )
    assert torch.allclose(backbone.vit.norm(raw.cls), normed.cls, atol=1e-5)


def test_crops_move_pixels_and_truth_together():
    """The truth of each pixel is written in its colour; after any crop and flip the two still agree."""
    ys, xs = np.mgrid[0:60, 0:80]
    truth = (ys // 20 * 4 + xs // 20).astype(np.uint8)  # 12 fields
    image = Image.fromarray(np.repeat((truth * 20 + 10)[..., None], 3, axis=2))
    depth = truth.astype(np.float32) + 1
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pixels, cropped = depth_example(image, depth, (30, 40), (0.0,) * 3, (1.0,) * 3, rng)
        assert (
            pixels.shape == (3, 30, 40)
            and cropped.shape == (30, 40)
            and cropped.dtype == np.float32
        )
        level = pixels.mean(0).numpy().ravel()
        assert np.corrcoef(level, cropped.ravel())[0, 1] > 0.97
        pixels, mask = segmentation_example(image, truth, 60, 48, (0.0,) * 3, (1.0,) * 3, rng)
        assert pixels.shape == (3, 48, 48) and mask.shape == (48, 48)
        known = mask != 255
        level = pixels.mean(0).numpy()
        inside = np.unique(mask[known])
        means = [level[mask == c].mean() for c in inside]
        assert np.corrcoef(means, inside)[0, 1] > 0.9
        assert (level[~known] == 0).all()


def test_photometric_distortion_stays_in_range_and_changes_colours():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    results = [np.asarray(photometric(image, np.random.default_rng(seed))) for seed in range(12)]
    assert all(r.shape == (16, 16, 3) and r.dtype == np.uint8 for r in results)
    assert sum((r != np.asarray(image)).any() for r in results) >= 8


def test_a_slim_picture_stays_small():
    """mmseg's img_scale: the long side is at most 4 times the short side asked for; ordinary shapes keep the short side."""
    assert resized(Image.new("RGB", (1, 5000)), 512).size == (1, 2048)
    assert resized(Image.new("RGB", (100, 400)), 16).size == (16, 64) and resized(
        Image.new("RGB", (100, 401)), 16
    ).size == (16, 64)
    assert resized(Image.new("RGB", (30, 20)), 40).size == (60, 40) and resized(
        Image.new("RGB", (7, 900)), 0
    ).size == (7, 900)


def test_small_pictures_are_padded_with_unknown():
    pixels, mask = centre(torch.ones(3, 1, 1), np.zeros((1, 1), np.uint8), (2, 3))
    assert mask.tolist() == [[0, 255, 255], [255, 255, 255]] and pixels.sum() == 3
    assert centre(torch.ones(3, 1, 1), np.ones((1, 1), np.float32), (1, 2))[1].tolist() == [[1, 0]]
    assert resized(Image.new("RGB", (1, 1)), 8).size == (8, 8) and resized(
        Image.new("RGB", (3, 6)), 0
    ).size == (3, 6)


def test_masks_in_files_with_sparse_ids_are_segmented_as_planted(backbone, tmp_path):
    """From PNG masks to mIoU: ids 3, 7 and 200 stand for classes 0, 1 and 2, 0 is unlabelled; photos of 24 x 16 in sliding windows."""
    for folder in ("train2017", "semantic/train2017"):
        (tmp_path / folder).mkdir(parents=True)
    ids, table = np.array([3, 7, 200], np.uint8), np.array(COLOURS, np.uint8)
    for i, bands in enumerate(np.random.default_rng(0).integers(0, 3, (40, 3))):
        where = np.repeat(bands, 8)[None].repeat(16, 0)
        mask = ids[where]
        for x in (8, 16):
            mask[:, x - 2 : x + 2] = 0 if bands[x // 8 - 1] != bands[x // 8] else ids[bands[x // 8]]
        Image.fromarray(table[where]).save(tmp_path / f"train2017/{i:02}.png")
        Image.fromarray(mask).save(tmp_path / f"semantic/train2017/{i:02}.png")
    (tmp_path / "semantic/classes.yaml").write_text(
        "classes: {0: unlabeled, 3: sky, 7: sea, 200: sand}\n"
    )
    train, val = (
        open_set("semantic", tmp_path, "segmentation", split) for split in ("train", "val")
    )
    rows, arrays = segment(
        backbone, train, val, SEG.model_copy(update={"stride": 8, "iterations": 100}), **common()
    )
    found = {(row.metric, row.token): row.value for row in rows}
    assert found == {
        ("miou", ""): 1,
        ("pixel_accuracy", ""): 1,
        ("iou", "sky"): 1,
        ("iou", "sea"): 1,
        ("iou", "sand"): 1,
    }
    assert arrays["0_truth"].shape == (16, 24) and rows[0].n == 20
