import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from registers.data import transforms
from registers.world.dataset import scene


@pytest.fixture(params=[(64, 64), (50, 37), (33, 81)])
def photo(request) -> Image.Image:
    return scene(0, 3, 96).image.resize(request.param)


def same(ours: Image.Image, theirs: Image.Image) -> bool:
    return ours.size == theirs.size and bool((np.asarray(ours) == np.asarray(theirs)).all())


def test_to_tensor_equals_torchvision(photo):
    for normalization in (transforms.IMAGENET, transforms.OPENAI):
        expected = F.normalize(F.to_tensor(photo), *normalization)
        torch.testing.assert_close(
            transforms.to_tensor(photo, normalization), expected, rtol=0, atol=1e-6
        )


def test_normalisations_are_those_of_timm_and_open_clip():
    import timm.data.constants as timm
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    assert transforms.IMAGENET == (timm.IMAGENET_DEFAULT_MEAN, timm.IMAGENET_DEFAULT_STD)
    assert transforms.OPENAI == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


@pytest.mark.parametrize("size, resize", [(32, 32), (32, 37), (24, 48)])
def test_evaluation_equals_torchvision(photo, size, resize):
    official = v2.Compose([v2.Resize(resize, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    expected = F.normalize(F.to_tensor(official(photo)), *transforms.IMAGENET)
    torch.testing.assert_close(
        transforms.evaluation(size, resize)(photo), expected, rtol=0, atol=1e-6
    )


def test_evaluation_refuses_a_crop_larger_than_the_image():
    with pytest.raises(ValueError, match="resize = 16: allowed are numbers from size 32"):
        transforms.evaluation(32, 16)


def test_simple_random_crop_equals_resize_pad_crop(photo):
    resized = F.resize(photo, 32, F.InterpolationMode.BICUBIC)
    padded = F.pad(resized, 4, padding_mode="reflect")
    for left, top in ((-4, -4), (0, 0), (resized.width - 28, resized.height - 28), (-2, 3)):
        expected = F.crop(padded, top + 4, left + 4, 32, 32)
        assert same(
            transforms.reflected_crop(transforms.resize_short(photo, 32), left, top, 32), expected
        )


def test_simple_random_crop_reaches_every_offset_of_the_padded_image():
    ramp = Image.fromarray(np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2))
    crop, seen = transforms.SimpleRandomCrop(64), set()
    random.seed(0)
    for _ in range(300):
        row = np.asarray(crop(ramp))[0, :, 0]
        seen.add(int(row[8]) - 8)
    assert seen == set(range(-4, 5))


def test_random_resized_crop_resizes_the_box_as_torchvision(photo):
    crop = transforms.RandomResizedCrop(24, (0.2, 1.0))
    for seed in range(20):
        random.seed(seed)
        left, top, right, bottom = crop.box(*photo.size)
        random.seed(seed)
        expected = F.resized_crop(
            photo, top, left, bottom - top, right - left, [24, 24], F.InterpolationMode.BICUBIC
        )
        assert same(crop(photo), expected)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.32, 1.0), (0.05, 0.32), (0.9, 1.0)])
def test_random_resized_crop_draws_boxes_from_torchvisions_distribution(scale):
    random.seed(0)
    torch.manual_seed(0)
    width, height = 90, 60
    image = torch.zeros(3, height, width)
    boxes = np.array(
        [transforms.RandomResizedCrop(8, scale).box(width, height) for _ in range(1500)]
    )
    ours = np.stack(
        [boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]]
    )
    draw = v2.RandomResizedCrop(8, scale).make_params
    theirs = np.array(
        [
            [p["top"], p["left"], p["height"], p["width"]]
            for p in (draw([image]) for _ in range(1500))
        ]
    ).T
    for a, b in zip(ours, theirs):
        assert stats.ks_2samp(a, b).pvalue > 1e-4


def test_colour_steps_equal_torchvision(photo):
    for factor in (0.6, 0.93, 1.4):
        assert same(transforms.adjust_contrast(photo, factor), F.adjust_contrast(photo, factor))
        assert same(
            transforms.adjust_hue(photo, factor - 1), F.adjust_hue(photo, max(-0.5, factor - 1))
        )
    assert same(transforms.grayscale(photo), F.to_grayscale(photo, 3))
    assert same(transforms.solarize(photo), F.solarize(photo, 128))


@pytest.mark.parametrize(
    "strengths", [(0.4, 0, 0, 0), (0, 0.4, 0, 0), (0, 0, 0.2, 0), (0, 0, 0, 0.1)]
)
def test_each_jitter_equals_torchvision_at_the_factor_drawn(photo, strengths):
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    kind = next(i for i, s in enumerate(strengths) if s)
    for seed in range(5):
        random.seed(seed)
        random.shuffle([0, 1, 2, 3])
        factor = random.uniform(1 - strengths[kind], 1 + strengths[kind])
        random.seed(seed)
        assert same(
            transforms.ColorJitter(*strengths)(photo), adjust[kind](photo, factor - (kind == 3))
        )


def test_jitter_uses_every_order():
    photo, results = scene(0, 3, 32).image, set()
    random.seed(0)
    for _ in range(200):
        results.add(transforms.ColorJitter(0.4, 0.4, 0.4)(photo).tobytes())
    assert len(results) == 200


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_equals_torchvision(photo, sigma):
    ours = np.asarray(transforms.gaussian_blur(photo, sigma), int)
    theirs = np.asarray(F.gaussian_blur(photo, 9, sigma), int)
    assert np.abs(ours - theirs).max() <= 1  # rounding of a half
    assert (ours != theirs).mean() < 1e-3


def test_blur_refuses_a_crop_smaller_than_its_kernel():
    with pytest.raises(ValueError, match="4x4"):
        transforms.gaussian_blur(Image.new("RGB", (4, 4)), 1.0)


class Recorder:
    """Stands in for a blur and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return image


@pytest.mark.parametrize("blur", [transforms.BLUR_AS_TRAINED, transforms.BLUR_AS_DOCUMENTED])
def test_dinov2_blur_probabilities(monkeypatch, blur):
    """As trained: never on the first global crop, 0.9 on the second, 0.5 on local ones (dinov2 pull request 411)."""
    recorder, counts = Recorder(), []
    monkeypatch.setattr(transforms, "Blur", lambda exact: recorder)
    crops = transforms.dino_crops(16, 8, 1, blur=blur)
    photo = scene(0, 0, 32).image
    random.seed(0)
    for view in (crops.first, crops.second, crops.local):
        recorder.calls = 0
        for _ in range(300):
            view(photo)
        counts.append(recorder.calls / 300)
    assert counts == pytest.approx(blur, abs=0.1)
    assert (counts[0] == 0) == (blur[0] == 0)


def test_dinov2_defaults_are_as_trained():
    assert transforms.BLUR_AS_TRAINED == (0.0, 0.9, 0.5)
    assert transforms.dino_crops(16, 8, 2) == transforms.dino_crops(
        16, 8, 2, blur=transforms.BLUR_AS_TRAINED
    )


def test_multi_crop_shapes_and_reproducibility():
    photo = scene(0, 1, 64).image
    crops = pickle.loads(pickle.dumps(transforms.dino_crops(32, 16, 4)))
    random.seed(7)
    first = crops(photo)
    random.seed(7)
    again = crops(photo)
    assert first["global"].shape == (2, 3, 32, 32) and first["local"].shape == (4, 3, 16, 16)
    assert torch.equal(first["global"], again["global"]) and torch.equal(
        first["local"], again["local"]
    )
    assert not torch.equal(first["global"], crops(photo)["global"])
    assert transforms.dino_crops(32, 16, 0)(photo)["local"].shape == (0, 3, 16, 16)


def test_three_augment_takes_exactly_one_of_three():
    photo = scene(0, 2, 64).image
    named = transforms.three_augment(32, jitter=0.0)
    random.seed(0)
    kinds = {"grey": 0, "solarized": 0, "blurred": 0}
    for _ in range(300):
        state = random.getstate()
        pixels = (
            named(photo) * torch.tensor(transforms.IMAGENET[1])[:, None, None]
            + torch.tensor(transforms.IMAGENET[0])[:, None, None]
        )
        after = random.getstate()
        random.setstate(state)
        plain = transforms.flip(transforms.SimpleRandomCrop(32)(photo))
        random.setstate(after)
        if torch.allclose(pixels[0], pixels[1], atol=1e-5) and torch.allclose(
            pixels[1], pixels[2], atol=1e-5
        ):
            kinds["grey"] += 1
        elif torch.allclose(pixels, F.to_tensor(transforms.solarize(plain)), atol=1e-5):
            kinds["solarized"] += 1
        else:
            kinds["blurred"] += 1
    assert all(70 < count < 130 for count in kinds.values()), kinds


def test_clip_and_mae_crops_as_their_recipes():
    assert transforms.clip_augment(32).steps == (transforms.RandomResizedCrop(32, (0.9, 1.0)),)
    assert transforms.clip_augment(32).normalization == transforms.OPENAI
    assert transforms.mae_augment(32).steps == (
        transforms.RandomResizedCrop(32, (0.2, 1.0)),
        transforms.flip,
    )
