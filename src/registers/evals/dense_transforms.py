"""From a sample to what the dense heads are trained on: resizing, the official recipes' augmentations, crops of one shape.

Truths: mask (H, W) uint8 with IGNORE, or depth (H, W) float32 with 0 = unknown. rng: numpy generator, the only source of chance.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registers.readers.annotated import IGNORE

NYU_BORDER = (
    43,
    45,
    608,
    472,
)  # left, upper, right, lower: NYUv2's frames without their white rim (BTS, DINOv2's NYUCrop), of 640 x 480
NYU_CROP = (416, 544)  # height, width (dinov2 depth configs: RandomCrop)
LONGEST = 4  # times the short side asked for: mmseg's img_scale (2048, 512) of the official segmentation configs


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(3, H, W) float32."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def resized(image: Image.Image, short: float) -> Image.Image:
    """Bilinear, keeping the shape; the shorter side becomes `short` pixels (0: as it is), or the longer one LONGEST times as many."""
    ratio = min(short / min(image.size), LONGEST * short / max(image.size))
    if not short or ratio == 1:
        return image
    return image.resize(
        [max(1, round(side * ratio)) for side in image.size], Image.Resampling.BILINEAR
    )


def resized_truth(truth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour; size: width, height."""
    if truth.shape == (size[1], size[0]):
        return truth
    return np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))


def fill_of(truth: np.ndarray) -> int:
    """What an unknown pixel is: IGNORE in a mask, 0 in a depth map."""
    return IGNORE if truth.dtype == np.uint8 else 0


def window(
    image: Tensor, truth: np.ndarray, top: int, left: int, shape: tuple[int, int]
) -> tuple[Tensor, np.ndarray]:
    """A part of the given shape, zeros and unknown where it reaches beyond the image (right and below)."""
    part, truth_part = (
        image[:, top : top + shape[0], left : left + shape[1]],
        truth[top : top + shape[0], left : left + shape[1]],
    )
    below, right = shape[0] - part.shape[1], shape[1] - part.shape[2]
    part = torch.nn.functional.pad(part, (0, right, 0, below))
    return part, np.pad(truth_part, ((0, below), (0, right)), constant_values=fill_of(truth))


def centre(image: Tensor, truth: np.ndarray, shape: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
    """The middle of an image in a given shape."""
    top, left = (max(0, (have - want) // 2) for have, want in zip(truth.shape, shape))
    return window(image, truth, top, left, shape)


def photometric(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """mmseg's PhotoMetricDistortion: brightness +-32, contrast and saturation 0.5 to 1.5, hue +-18 of 180, each with probability 0.5."""
    x = np.asarray(image).astype(np.float32)

    def contrast(x):
        return np.clip(x * rng.uniform(0.5, 1.5), 0, 255) if rng.random() < 0.5 else x

    if rng.random() < 0.5:
        x = np.clip(x + rng.uniform(-32, 32), 0, 255)
    contrast_first = rng.random() < 0.5
    x = contrast(x) if contrast_first else x
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-18, 18) / 180 * 256 if rng.random() < 0.5 else 0.0
    if saturation != 1 or hue:
        hsv = np.array(Image.fromarray((x + 0.5).astype(np.uint8)).convert("HSV")).astype(
            np.float32
        )
        hsv[..., 0] = (hsv[..., 0] + hue) % 256
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
        x = np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")).astype(
            np.float32
        )
    x = x if contrast_first else contrast(x)
    return Image.fromarray((np.clip(x, 0, 255) + 0.5).clip(0, 255).astype(np.uint8))


def segmentation_example(
    image: Image.Image,
    mask: np.ndarray,
    size: int,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
    rng: np.random.Generator | None,
) -> tuple[Tensor, np.ndarray]:
    """(3, crop, crop) and (crop, crop). rng None: short side `size`, centre crop. Else the official training pipeline: short side
    0.5 to 2 times `size`, a random crop no class of which has more than 75 % (ten tries), flip, photometric distortion.

    Source: Denoising-ViT evaluation/configs/vitb_ade20k_linear_config.py, mmseg's RandomCrop(cat_max_ratio=0.75).
    """
    image = resized(image, size * (1.0 if rng is None else rng.uniform(0.5, 2.0)))
    mask = resized_truth(mask, image.size)
    if rng is None:
        return centre(normalised(image, mean, std), mask, (crop, crop))
    for _ in range(10):
        top, left = (int(rng.integers(0, max(0, have - crop) + 1)) for have in mask.shape)
        counts = np.bincount(mask[top : top + crop, left : left + crop].ravel(), minlength=256)[
            :IGNORE
        ]
        if (counts > 0).sum() > 1 and counts.max() < 0.75 * counts.sum():
            break
    image = image.crop((left, top, min(left + crop, image.width), min(top + crop, image.height)))
    mask = mask[top : top + crop, left : left + crop]
    if rng.random() < 0.5:
        image, mask = (
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            np.ascontiguousarray(mask[:, ::-1]),
        )
    return window(normalised(photometric(image, rng), mean, std), mask, 0, 0, (crop, crop))


def depth_example(
    image: Image.Image,
    depth: np.ndarray,
    shape: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    rng: np.random.Generator | None,
) -> tuple[Tensor, np.ndarray]:
    """(3, *shape) and (*shape). rng None: the centre. Else the official pipeline: NYUv2's rim off (for 640 x 480 images), rotation up to
    2.5 degrees with probability 0.5, flip, random crop, and with probability 0.5 gamma 0.9 to 1.1, brightness 0.75 to 1.25 and
    colour 0.9 to 1.1.

    Source: dinov2's depth config for NYUd (protocols: NYUCrop, RandomRotate, RandomFlip, RandomCrop, ColorAug).
    """
    if rng is None:
        return centre(normalised(image, mean, std), depth, shape)
    if image.size == (640, 480):
        left, upper, right, lower = NYU_BORDER
        image, depth = image.crop(NYU_BORDER), depth[upper:lower, left:right]
    if rng.random() < 0.5:
        turn = rng.uniform(-2.5, 2.5)
        image = image.rotate(turn, Image.Resampling.BILINEAR)
        depth = np.asarray(
            Image.fromarray(depth).rotate(turn, Image.Resampling.NEAREST, fillcolor=0)
        )
    if rng.random() < 0.5:
        image, depth = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), depth[:, ::-1]
    top, left = (
        int(rng.integers(0, max(0, have - want) + 1)) for have, want in zip(depth.shape, shape)
    )
    if rng.random() < 0.5:
        x = np.asarray(image).astype(np.float32) / 255
        x = (
            x ** rng.uniform(0.9, 1.1)
            * rng.uniform(0.75, 1.25)
            * rng.uniform(0.9, 1.1, 3).astype(np.float32)
        )
        image = Image.fromarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))
    return window(normalised(image, mean, std), np.ascontiguousarray(depth), top, left, shape)
