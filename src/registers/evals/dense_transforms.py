"""From a sample to what the dense heads are trained on: resizing, augmentation, crops of one shape.

Truths: mask (H, W) uint8 with IGNORE, or depth (H, W) float32 with 0 = unknown. rng: a numpy
generator, the only source of chance; None for no augmentation.

What moves image and truth together is torchvision.transforms.v2's: flips and rotations, on a PIL
image and a tv_tensors.Mask. Its random classes are not used, for two reasons. They draw from
torch's global generator, which the loading threads share, so that no seed would repeat a training.
And RandomPhotometricDistort is SSD's, not mmseg's: brightness and contrast scale about other
points, saturation is a blend with grey, hue turns half as far, and channels are permuted.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2
from torchvision.tv_tensors import Mask

from registers.vocabulary import IGNORE

# left, upper, right, lower: NYUv2's frames of 640 x 480 without their white rim (BTS, NYUCrop)
NYU_BORDER = (43, 45, 608, 472)
NYU_CROP = (416, 544)  # height, width (dinov2 depth configs: RandomCrop)
# times the short side asked for: mmseg's img_scale (2048, 512) of the official segmentation configs
LONGEST = 4
MAX_CLASS_SHARE = 0.75  # mmseg's RandomCrop(cat_max_ratio=0.75), in the official config
CROP_TRIES = 10  # mmseg's RandomCrop

Normalise = Callable[[Image.Image], Tensor]  # (3, H, W) float32; `Backbone.normalised`


# --- sizes


def resized(image: Image.Image, short: float) -> Image.Image:
    """Bilinear, keeping the shape; the shorter side becomes `short` pixels (0: as it is).

    The longer one gets at most LONGEST times as many.
    """
    ratio = min(short / min(image.size), LONGEST * short / max(image.size))
    if not short or ratio == 1:
        return image
    sides = [max(1, round(side * ratio)) for side in image.size]
    return image.resize(sides, Image.Resampling.BILINEAR)


def resized_truth(truth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour; size: width, height."""
    if truth.shape == (size[1], size[0]):
        return truth
    return np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))


def window(
    image: Tensor, truth: np.ndarray, top: int, left: int, shape: tuple[int, int]
) -> tuple[Tensor, np.ndarray]:
    """A part of the given shape; beyond the image (right and below) it is zero and unknown."""
    height, width = shape
    part = image[:, top : top + height, left : left + width]
    truth_part = truth[top : top + height, left : left + width]
    below = height - part.shape[1]
    right = width - part.shape[2]
    part = torch.nn.functional.pad(part, (0, right, 0, below))
    unknown = IGNORE if truth.dtype == np.uint8 else 0
    return part, np.pad(truth_part, ((0, below), (0, right)), constant_values=unknown)


def centre(image: Tensor, truth: np.ndarray, shape: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
    """The middle of an image in a given shape."""
    top, left = (max(0, (have - want) // 2) for have, want in zip(truth.shape, shape))
    return window(image, truth, top, left, shape)


# --- examples


def segmentation_example(
    image: Image.Image,
    mask: np.ndarray,
    size: int,
    crop: int,
    normalise: Normalise,
    rng: np.random.Generator | None,
) -> tuple[Tensor, np.ndarray]:
    """(3, crop, crop) and (crop, crop). rng None: short side `size`, centre crop.

    Otherwise the official training pipeline: short side 0.5 to 2 times `size`, a random crop no
    class of which has more than 75 % (ten tries), flip, photometric distortion. Source:
    Denoising-ViT evaluation/configs/vitb_ade20k_linear_config.py, mmseg's transforms.
    """
    image = resized(image, size * (1.0 if rng is None else rng.uniform(0.5, 2.0)))
    mask = resized_truth(mask, image.size)
    if rng is None:
        return centre(normalise(image), mask, (crop, crop))
    top, left = _varied_crop(mask, crop, rng)
    image = image.crop((left, top, min(left + crop, image.width), min(top + crop, image.height)))
    mask = mask[top : top + crop, left : left + crop]
    if rng.random() < 0.5:
        image, mask = _flipped(image, mask)
    return window(normalise(photometric(image, rng)), mask, 0, 0, (crop, crop))


def depth_example(
    image: Image.Image,
    depth: np.ndarray,
    shape: tuple[int, int],
    normalise: Normalise,
    rng: np.random.Generator | None,
) -> tuple[Tensor, np.ndarray]:
    """(3, *shape) and (*shape). rng None: the centre.

    Otherwise the official pipeline: NYUv2's rim off (for 640 x 480 images), rotation up to 2.5
    degrees with probability 0.5, flip, random crop, colour jitter with probability 0.5. Source:
    dinov2's depth config for NYUd (NYUCrop, RandomRotate, RandomFlip, RandomCrop, ColorAug).
    """
    if rng is None:
        return centre(normalise(image), depth, shape)
    if image.size == (640, 480):
        left, upper, right, lower = NYU_BORDER
        image = image.crop(NYU_BORDER)
        depth = depth[upper:lower, left:right]
    if rng.random() < 0.5:
        image, depth = _rotated(image, depth, rng.uniform(-2.5, 2.5))
    if rng.random() < 0.5:
        image, depth = _flipped(image, depth)
    top, left = (
        int(rng.integers(0, max(0, have - want) + 1)) for have, want in zip(depth.shape, shape)
    )
    if rng.random() < 0.5:
        image = colour_jitter(image, rng)
    return window(normalise(image), np.ascontiguousarray(depth), top, left, shape)


def _varied_crop(mask: np.ndarray, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a crop that no class fills, or the last try's."""
    for _ in range(CROP_TRIES):
        top, left = (int(rng.integers(0, max(0, side - crop) + 1)) for side in mask.shape)
        part = mask[top : top + crop, left : left + crop]
        counts = np.bincount(part.ravel(), minlength=256)[:IGNORE]
        if (counts > 0).sum() > 1 and counts.max() < MAX_CLASS_SHARE * counts.sum():
            break
    return top, left


def _flipped(image: Image.Image, truth: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    return v2.horizontal_flip(image), v2.horizontal_flip(_as_mask(truth)).numpy()


def _rotated(
    image: Image.Image, truth: np.ndarray, degrees: float
) -> tuple[Image.Image, np.ndarray]:
    """Bilinear and, for the truth, nearest neighbour; 0 where nothing was."""
    turned = v2.rotate(image, degrees, interpolation=InterpolationMode.BILINEAR)
    return turned, v2.rotate(_as_mask(truth), degrees).numpy()


def _as_mask(truth: np.ndarray) -> Mask:
    return Mask(torch.from_numpy(np.array(truth)))  # a copy: readers' arrays may be read-only


# --- colours


def photometric(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """mmseg's PhotoMetricDistortion, each part with probability 0.5.

    Brightness +-32, contrast and saturation 0.5 to 1.5, hue +-18 of 180; contrast comes before or
    after saturation and hue.
    """
    x = np.asarray(image).astype(np.float32)

    def contrast(x: np.ndarray) -> np.ndarray:
        return np.clip(x * rng.uniform(0.5, 1.5), 0, 255) if rng.random() < 0.5 else x

    if rng.random() < 0.5:
        x = np.clip(x + rng.uniform(-32, 32), 0, 255)
    contrast_first = rng.random() < 0.5
    x = contrast(x) if contrast_first else x
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-18, 18) / 180 * 256 if rng.random() < 0.5 else 0.0
    if saturation != 1 or hue:
        x = _in_hsv(x, saturation, hue)
    x = x if contrast_first else contrast(x)
    return Image.fromarray((np.clip(x, 0, 255) + 0.5).clip(0, 255).astype(np.uint8))


def _in_hsv(x: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """Saturation scaled and hue turned, in PIL's HSV of 0 to 255; x (H, W, 3) in 0..255."""
    image = Image.fromarray((x + 0.5).astype(np.uint8))
    hsv = np.array(image.convert("HSV")).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue) % 256
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    return np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")).astype(
        np.float32
    )


def colour_jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """BTS's and DINOv2's ColorAug: gamma 0.9 to 1.1, brightness 0.75 to 1.25, colour 0.9 to 1.1."""
    x = np.asarray(image).astype(np.float32) / 255
    gamma = rng.uniform(0.9, 1.1)
    brightness = rng.uniform(0.75, 1.25)
    colour = rng.uniform(0.9, 1.1, 3).astype(np.float32)
    x = x**gamma * brightness * colour
    return Image.fromarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))
