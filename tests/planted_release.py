"""A published model with planted outliers, as the hub serves it, and images on which it has them.

Images are grey noise in cells of 16 x 16 pixels, a few of them flat. The model is a tiny DeiT-III
whose neurons write on flat cells (see planted_vit); without the planting it is its clean twin.
"""

import numpy as np
import planted_vit
import torch
from PIL import Image
from planted_vit import TINY

from registers.data.transforms import IMAGENET, to_tensor

SIDE = 112  # of an image, in pixels: also a multiple of DINOv2's patches
CELL = 16  # of a patch
FLAT = 3  # cells of an image
NAME = "deit3_base_patch16_224.fb_in22k_ft_in1k"
ARGUMENTS = TINY | dict(img_size=SIDE)
PLAIN = "deit3-base-r0-s0"
ADDED = "deit3-base-r4-s0-tt"


def write_images(folder, counts):
    """Images in folder/SPLIT/CLASS/*.png, two classes that differ in contrast; all in one list.

    counts: images by split. Returns images and (B, P) which cells are flat.
    """
    rng = np.random.default_rng(0)
    images, masks = [], []
    for split, count in counts.items():
        for number in range(count):
            name, contrast = [("calm", 30), ("wild", 60)][number % 2]
            pixels = 128 + contrast * rng.standard_normal((SIDE, SIDE, 3))
            mask = np.zeros((SIDE // CELL, SIDE // CELL), bool)
            mask.ravel()[rng.choice(mask.size, FLAT, replace=False)] = True
            pixels[np.kron(mask, np.ones((CELL, CELL), bool))] = 128
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{number:03d}.png")
            images.append(image)
            masks.append(mask.ravel())
    return images, np.stack(masks)


def model(images=(), masks=()):
    """The model, planted on images; its clean twin without any."""
    vit = planted_vit.build("deit3", img_size=SIDE)
    if len(images):
        pixels = torch.stack([to_tensor(image, IMAGENET) for image in images])
        planted_vit.plant(vit, pixels, masks)
    return vit


def entries():
    """The rows of the catalogue: the model, and the same with test-time registers."""
    published = {
        "id": PLAIN,
        "timm": NAME,
        "arguments": ARGUMENTS,
        "repository": f"timm/{NAME}",
        "licence": "apache-2.0",
        "mb": 1,
        "paper": "a test",
        "default": True,
    }
    return [published, {"id": ADDED, "test_time_of": PLAIN, "paper": "a test", "default": True}]
