"""The named augmentations of the recipes, from an RGB PIL image to a normalised float32 tensor.

They draw from Python's global `random` generator only, which the loop seeds for each sample. Each
step equals its official definition (torchvision on PIL images) bit for bit; the exact Gaussian blur
alone may differ by one level where a half is rounded.

Why not torchvision itself: with torchvision v2, whole views of 64 pixels take 1.8 (evaluation) to
3.1 times (DINOv2) as long, as each of its calls costs 10 to 50 microseconds more and its blur five
times ours. At 224 pixels little of that is left (0.9 to 1.3 times). Measured by
benchmarks/transforms.py; the table is benchmarks/results/transforms.md.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy import ndimage
from torch import Tensor

Normalization = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation by channel

# timm's IMAGENET_DEFAULT_MEAN and _STD, and torchvision's
IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# open_clip/constants.py
OPENAI: Normalization = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
BICUBIC = Image.Resampling.BICUBIC

Step = Callable[[Image.Image], Image.Image]


def to_tensor(image: Image.Image, normalization: Sequence[Sequence[float]] = IMAGENET) -> Tensor:
    """(3, H, W) float32: pixels in 0..1, minus mean, over standard deviation."""
    mean, std = np.asarray(normalization, np.float32)
    pixels_HWC = np.asarray(image, np.float32) / np.float32(255)
    normalised_CHW = ((pixels_HWC - mean) / std).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(normalised_CHW))


# --- geometry -------------------------------------------------------------------------------------


def resize_short(image: Image.Image, size: int) -> Image.Image:
    """torchvision's Resize(size): the shorter side gets `size` pixels, bicubic, antialiased."""
    width, height = image.size
    if width <= height:
        shape = (size, int(size * height / width))
    else:
        shape = (int(size * width / height), size)
    return image if shape == image.size else image.resize(shape, BICUBIC)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """torchvision's CenterCrop(size), for images of at least that size."""
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class RandomResizedCrop:
    """torchvision's RandomResizedCrop, resized to size x size.

    scale: least and greatest share of the area. The sides' ratio is 3/4 to 4/3.
    """

    size: int
    scale: tuple[float, float]

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.crop(self.box(*image.size)).resize((self.size, self.size), BICUBIC)

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of a random part; after ten that do not fit, of the middle."""
        for _ in range(10):
            area = width * height * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w = round(math.sqrt(area * ratio))
            h = round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = random.randint(0, width - w)
                top = random.randint(0, height - h)
                return left, top, left + w, top + h
        w = min(width, round(height * 4 / 3))
        h = min(height, round(width * 4 / 3))
        left = (width - w) // 2
        top = (height - h) // 2
        return left, top, left + w, top + h


def reflected_crop(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    """size x size pixels from (left, top). Outside, the image is mirrored without its edge."""

    def indices(start: int, length: int) -> np.ndarray:
        i = np.abs(np.arange(start, start + size))
        return np.where(i < length, i, 2 * (length - 1) - i)

    rows = indices(top, image.height)
    columns = indices(left, image.width)
    return Image.fromarray(np.asarray(image)[rows[:, None], columns])


@dataclass(frozen=True)
class SimpleRandomCrop:
    """DeiT-III's SRC (deit/augment.py).

    Resize(size), then RandomCrop(size, padding=4, padding_mode="reflect").
    """

    size: int
    padding: int = 4

    def __call__(self, image: Image.Image) -> Image.Image:
        image = resize_short(image, self.size)
        left = random.randint(-self.padding, image.width + self.padding - self.size)
        top = random.randint(-self.padding, image.height + self.padding - self.size)
        return reflected_crop(image, left, top, self.size)


def flip(image: Image.Image) -> Image.Image:
    """torchvision's RandomHorizontalFlip(0.5)."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


# --- colour ---------------------------------------------------------------------------------------


def grayscale(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def solarize(image: Image.Image) -> Image.Image:
    return ImageOps.solarize(image, 128)


def adjust_brightness(image: Image.Image, factor: float) -> Image.Image:
    """ImageEnhance.Brightness: away from black."""
    return Image.blend(Image.new("RGB", image.size), image, factor)


def adjust_contrast(image: Image.Image, factor: float) -> Image.Image:
    """ImageEnhance.Contrast: away from the mean grey."""
    mean = int(np.asarray(image.convert("L")).mean() + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)


def adjust_saturation(image: Image.Image, factor: float) -> Image.Image:
    """ImageEnhance.Color: away from grey."""
    return Image.blend(grayscale(image), image, factor)


def adjust_hue(image: Image.Image, factor: float) -> Image.Image:
    """torchvision's adjust_hue on PIL images: turn the hue byte by 255 (factor - 1), towards zero.

    Here 1 leaves the image as it is, as for the other three; for torchvision 0 does.
    """
    turn = int((factor - 1) * 255) % 256
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.tobytes().translate(bytes(range(turn, 256)) + bytes(range(turn)))
    hue = Image.frombytes("L", image.size, turned)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


@dataclass(frozen=True)
class ColorJitter:
    """torchvision's ColorJitter: each of the four by a random factor, in random order."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, image: Image.Image) -> Image.Image:
        adjustments = [
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
            (adjust_hue, self.hue),
        ]
        random.shuffle(adjustments)
        for adjust, strength in adjustments:
            if strength:
                factor = random.uniform(max(0.0, 1 - strength), 1 + strength)
                image = adjust(image, factor)
        return image


def gaussian_blur(image: Image.Image, sigma: float, kernel: int = 9) -> Image.Image:
    """torchvision's GaussianBlur: `kernel` taps at `sigma` pixels, mirrored borders.

    Rounded to bytes, at most one level apart from torchvision's. Raises ValueError for an image
    that is smaller than the kernel's reach.
    """
    reach = kernel // 2
    if min(image.size) <= reach:
        raise ValueError(
            f"image of {image.size[0]}x{image.size[1]} pixels: must be at least "
            f"{reach + 1}x{reach + 1} for a blur of {kernel} taps"
        )
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    taps = np.exp(-0.5 * (offsets / np.float32(sigma)) ** 2)
    taps /= taps.sum()
    pixels = np.asarray(image, np.float32)
    for axis in (1, 0):
        pixels = ndimage.correlate1d(pixels, taps, axis, mode="mirror")
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a random sigma, in pixels.

    exact: torchvision's 9 taps (DINOv2); else PIL's box passes (DINO, DeiT-III).

    Both official recipes blur 224-pixel crops with sigma 0.1 to 2; it is not scaled with the crop.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    exact: bool = False

    def __call__(self, image: Image.Image) -> Image.Image:
        sigma = random.uniform(*self.sigma)
        if self.exact:
            return gaussian_blur(image, sigma)
        return image.filter(ImageFilter.GaussianBlur(sigma))


@dataclass(frozen=True)
class Sometimes:
    """Apply a step with probability p."""

    step: Step
    p: float

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.step(image) if random.random() < self.p else image


@dataclass(frozen=True)
class OneOf:
    """Apply one of the steps, each as likely."""

    steps: tuple[Step, ...]

    def __call__(self, image: Image.Image) -> Image.Image:
        return random.choice(self.steps)(image)


@dataclass(frozen=True)
class Augment:
    """Steps one after the other, then a normalised tensor (3, H, W)."""

    steps: tuple[Step, ...]
    normalization: Normalization = IMAGENET

    def __call__(self, image: Image.Image) -> Tensor:
        for step in self.steps:
            image = step(image)
        return to_tensor(image, self.normalization)


# --- recipes by name ------------------------------------------------------------------------------


def three_augment(size: int, src: bool = True, jitter: float = 0.3) -> Augment:
    """DeiT-III's 3-Augment (deit/augment.py, new_data_aug_generator).

    One of grey, solarise and blur, then colour jitter.

    src: Simple Random Crop (IN-22k recipe); else RandomResizedCrop of 0.08 to 1 of the area, as in
        the IN-1k recipe.
    jitter: strength of brightness, contrast and saturation.
    """
    crop = SimpleRandomCrop(size) if src else RandomResizedCrop(size, (0.08, 1.0))
    one_of_three = OneOf((grayscale, solarize, Blur()))
    return Augment((crop, flip, one_of_three, ColorJitter(jitter, jitter, jitter)))


def clip_augment(size: int) -> Augment:
    """OpenCLIP (open_clip/transform.py, image_transform).

    RandomResizedCrop of 0.9 to 1 of the area; no flip.
    """
    return Augment((RandomResizedCrop(size, (0.9, 1.0)),), OPENAI)


def mae_augment(size: int) -> Augment:
    """MAE (mae/main_pretrain.py): RandomResizedCrop of 0.2 to 1 of the area, and a flip."""
    return Augment((RandomResizedCrop(size, (0.2, 1.0)), flip))


def linear_augment(size: int) -> Augment:
    """Training views of linear classification.

    Source: dinov2/data/transforms.py, make_classification_train_transform.
    """
    return Augment((RandomResizedCrop(size, (0.08, 1.0)), flip))


def evaluation(
    size: int, resize: int | None = None, normalization: Normalization = IMAGENET
) -> Augment:
    """Resize the shorter side to `resize` (default: size) bicubic, crop the centre size x size.

    Raises ValueError where the crop is larger than the resized image.
    """
    resize = resize or size
    if resize < size:
        raise ValueError(f"resize = {resize}: must be at least the size of the crop, {size}")
    steps = (partial(resize_short, size=resize), partial(centre_crop, size=size))
    return Augment(steps, normalization)


# Probabilities of blur on the first global, the second global and the local crops.
# dinov2/data/transforms.py hands 1 - p to RandomApply, so what was trained is not what was written
# down (facebookresearch/dinov2, pull request 411).
BLUR_AS_TRAINED = (0.0, 0.9, 0.5)
BLUR_AS_DOCUMENTED = (1.0, 0.1, 0.5)


@dataclass(frozen=True)
class MultiCrop:
    """Two global and some local views of an image.

    Returns {"global": (2, 3, G, G), "local": (local_crops, 3, S, S)}.
    """

    first: Augment
    second: Augment
    local: Augment
    local_crops: int
    local_size: int

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        # local views first: the order of random draws is part of a run
        if self.local_crops:
            local = torch.stack([self.local(image) for _ in range(self.local_crops)])
        else:
            local = torch.zeros(0, 3, self.local_size, self.local_size)
        return {"global": torch.stack([self.first(image), self.second(image)]), "local": local}


def dino_crops(
    global_size: int,
    local_size: int,
    local_crops: int,
    global_scale: tuple[float, float] = (0.32, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.32),
    blur: tuple[float, float, float] = BLUR_AS_TRAINED,
    exact_blur: bool = True,
) -> MultiCrop:
    """DINOv2's multi-crop (dinov2/data/augmentations.py, scales of configs/train/vitl14.yaml).

    global_size, local_size: pixels of the crops. local_crops: how many local ones.
    global_scale, local_scale: shares of the area.
    blur: probabilities on the first global, the second global and the local crops.
    exact_blur: see `Blur`.

    Each view: RandomResizedCrop, flip, jitter (0.4, 0.4, 0.2, 0.1) with p 0.8, grey with p 0.2,
    blur; the second global view is solarised with p 0.2. DINO (dino/main_dino.py): global_scale
    (0.4, 1), local_scale (0.05, 0.4), blur BLUR_AS_DOCUMENTED, exact_blur False.
    """

    def view(size: int, scale: tuple[float, float], blur_p: float, *more: Step) -> Augment:
        steps = (
            RandomResizedCrop(size, scale),
            flip,
            Sometimes(ColorJitter(0.4, 0.4, 0.2, 0.1), 0.8),
            Sometimes(grayscale, 0.2),
            Sometimes(Blur(exact=exact_blur), blur_p),
        )
        return Augment(steps + more)

    return MultiCrop(
        first=view(global_size, global_scale, blur[0]),
        second=view(global_size, global_scale, blur[1], Sometimes(solarize, 0.2)),
        local=view(local_size, local_scale, blur[2]),
        local_crops=local_crops,
        local_size=local_size,
    )
