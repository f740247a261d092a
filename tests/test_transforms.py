"""The augmentations: each step equals torchvision's, each recipe its official definition."""

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
    return np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_to_tensor_equals_torchvision(photo):
    for normalization in (transforms.IMAGENET, transforms.OPENAI):
        expected = F.normalize(F.to_tensor(photo), *normalization)
        ours = transforms.to_tensor(photo, normalization)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_normalisations_are_those_of_timm_and_open_clip():
    import timm.data.constants as timm
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    assert transforms.IMAGENET == (timm.IMAGENET_DEFAULT_MEAN, timm.IMAGENET_DEFAULT_STD)
    assert transforms.OPENAI == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


@pytest.mark.parametrize("size, resize", [(32, 32), (32, 37), (24, 48)])
def test_evaluation_equals_torchvision(photo, size, resize):
    official = v2.Compose([v2.Resize(resize, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    expected = F.normalize(F.to_tensor(official(photo)), *transforms.IMAGENET)
    ours = transforms.evaluation(size, resize)(photo)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_evaluation_refuses_a_crop_larger_than_the_image():
    with pytest.raises(ValueError, match="resize = 16: must be at least the size of the crop, 32"):
        transforms.evaluation(32, 16)


def test_simple_random_crop_equals_resize_pad_crop(photo):
    resized = F.resize(photo, 32, F.InterpolationMode.BICUBIC)
    padded = F.pad(resized, 4, padding_mode="reflect")
    ours = transforms.resize_short(photo, 32)
    for left, top in ((-4, -4), (0, 0), (resized.width - 28, resized.height - 28), (-2, 3)):
        expected = F.crop(padded, top + 4, left + 4, 32, 32)
        assert same(transforms.reflected_crop(ours, left, top, 32), expected)


def test_simple_random_crop_reaches_every_offset_of_the_padded_image():
    ramp = np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    crop = transforms.SimpleRandomCrop(64)
    random.seed(0)
    rows = [np.asarray(crop(Image.fromarray(ramp)))[0, :, 0] for _ in range(300)]
    offsets = {int(row[8]) - 8 for row in rows}
    assert offsets == set(range(-4, 5))


def test_random_resized_crop_resizes_the_box_as_torchvision(photo):
    crop = transforms.RandomResizedCrop(24, (0.2, 1.0))
    for seed in range(20):
        random.seed(seed)
        left, top, right, bottom = crop.box(*photo.size)
        height, width = bottom - top, right - left
        expected = F.resized_crop(
            photo, top, left, height, width, [24, 24], F.InterpolationMode.BICUBIC
        )
        random.seed(seed)
        assert same(crop(photo), expected)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.32, 1.0), (0.05, 0.32), (0.9, 1.0)])
def test_random_resized_crop_draws_boxes_from_torchvisions_distribution(scale):
    random.seed(0)
    torch.manual_seed(0)
    width, height = 90, 60
    crop = transforms.RandomResizedCrop(8, scale)
    official = v2.RandomResizedCrop(8, scale)
    image = torch.zeros(3, height, width)
    left, top, right, bottom = np.array([crop.box(width, height) for _ in range(1500)]).T
    ours = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    theirs = [official.make_params([image]) for _ in range(1500)]
    for name, values in ours.items():
        p_value = stats.ks_2samp(values, [params[name] for params in theirs]).pvalue
        assert p_value > 1e-4


def test_grey_and_solarise_equal_torchvision(photo):
    assert same(transforms.grayscale(photo), F.to_grayscale(photo, 3))
    assert same(transforms.solarize(photo), F.solarize(photo, 128))


@pytest.mark.parametrize("factor", [0.6, 0.93, 1.0, 1.4])
def test_adjustments_equal_torchvision(photo, factor):
    assert same(transforms.adjust_brightness(photo, factor), F.adjust_brightness(photo, factor))
    assert same(transforms.adjust_contrast(photo, factor), F.adjust_contrast(photo, factor))
    assert same(transforms.adjust_saturation(photo, factor), F.adjust_saturation(photo, factor))
    assert same(transforms.adjust_hue(photo, factor), F.adjust_hue(photo, factor - 1))


JITTERS = [
    ({"brightness": 0.4}, F.adjust_brightness),
    ({"contrast": 0.4}, F.adjust_contrast),
    ({"saturation": 0.2}, F.adjust_saturation),
    ({"hue": 0.1}, lambda image, factor: F.adjust_hue(image, factor - 1)),
]


@pytest.mark.parametrize("strength, adjust", JITTERS)
def test_each_jitter_equals_torchvision_at_the_factor_drawn(photo, strength, adjust):
    (amount,) = strength.values()
    for seed in range(5):
        random.seed(seed)
        random.shuffle([0, 1, 2, 3])  # the order of the four
        factor = random.uniform(1 - amount, 1 + amount)
        random.seed(seed)
        assert same(transforms.ColorJitter(**strength)(photo), adjust(photo, factor))


def test_jitter_uses_every_order():
    photo = scene(0, 3, 32).image
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4)
    random.seed(0)
    results = {jitter(photo).tobytes() for _ in range(200)}
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
    """As trained: never on the first global crop, 0.9 on the second, 0.5 on local ones.

    Source: dinov2, pull request 411.
    """
    recorder = Recorder()
    counts = []
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
    crops = transforms.dino_crops(16, 8, 2)
    assert crops == transforms.dino_crops(16, 8, 2, blur=transforms.BLUR_AS_TRAINED)


def test_multi_crop_shapes_and_reproducibility():
    photo = scene(0, 1, 64).image
    crops = pickle.loads(pickle.dumps(transforms.dino_crops(32, 16, 4)))
    random.seed(7)
    first = crops(photo)
    random.seed(7)
    again = crops(photo)
    assert first["global"].shape == (2, 3, 32, 32)
    assert first["local"].shape == (4, 3, 16, 16)
    assert torch.equal(first["global"], again["global"])
    assert torch.equal(first["local"], again["local"])
    assert not torch.equal(first["global"], crops(photo)["global"])
    assert transforms.dino_crops(32, 16, 0)(photo)["local"].shape == (0, 3, 16, 16)


def test_three_augment_takes_exactly_one_of_three():
    photo = scene(0, 2, 64).image
    augment = transforms.three_augment(32, jitter=0.0)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in transforms.IMAGENET)
    counts = {"grey": 0, "solarised": 0, "blurred": 0}
    random.seed(0)
    for _ in range(300):
        before = random.getstate()
        pixels = augment(photo) * std + mean
        after = random.getstate()
        random.setstate(before)
        plain = transforms.flip(transforms.SimpleRandomCrop(32)(photo))
        random.setstate(after)
        solarised = F.to_tensor(transforms.solarize(plain))
        if torch.allclose(pixels, pixels[:1].expand(3, -1, -1), atol=1e-5):
            counts["grey"] += 1
        elif torch.allclose(pixels, solarised, atol=1e-5):
            counts["solarised"] += 1
        else:
            counts["blurred"] += 1
    assert all(70 < count < 130 for count in counts.values()), counts


def test_clip_and_mae_crops_as_their_recipes():
    assert transforms.clip_augment(32).steps == (transforms.RandomResizedCrop(32, (0.9, 1.0)),)
    assert transforms.clip_augment(32).normalization == transforms.OPENAI
    assert transforms.mae_augment(32).steps == (
        transforms.RandomResizedCrop(32, (0.2, 1.0)),
        transforms.flip,
    )
