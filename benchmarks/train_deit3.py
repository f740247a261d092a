"""DeiT-III: our training step against timm's, as a user would write it.

`python benchmarks/train_deit3.py`. Theirs: timm.create_model, torchvision's 3-Augment on PIL
images, timm's Mixup, SoftTargetCrossEntropy and Lamb; the same sizes, samples, batch and registers.
"""

import itertools
import time

import timm
import torch
from alternate import Step, main
from PIL import ImageFilter, ImageOps
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from torchvision import transforms

from registers.data.transforms import IMAGENET
from registers.methods.deit3 import Deit3
from registers.world.dataset import World


class Blur:
    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(0.1, 2.0))))


def their_loop(deit: Deit3, samples: World) -> Step:
    size = deit.settings.image_size
    recipe = deit.recipe
    pixels = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomCrop(size, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.RandomChoice([transforms.Grayscale(3), ImageOps.solarize, Blur()]),
            transforms.ColorJitter(0.3, 0.3, 0.3),
            transforms.ToTensor(),
            transforms.Normalize(*IMAGENET),
        ]
    )
    name, arguments = deit.backbone.architecture.timm()
    model = timm.create_model(
        name, **{**arguments, "num_classes": len(samples.classes), "dynamic_img_size": False}
    ).train()
    mix = Mixup(
        mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=len(samples.classes)
    )
    criterion = SoftTargetCrossEntropy()
    optimizer = create_optimizer_v2(model, opt="lamb", lr=recipe.lr, weight_decay=0.02)

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            sample = samples[index]
            return pixels(sample.image), sample.label

    def forever():
        while True:
            yield from torch.utils.data.DataLoader(
                Images(), batch_size=recipe.batch, shuffle=True, drop_last=True
            )

    loader = forever()
    while True:
        at = [time.perf_counter()]
        images, labels = next(loader)
        at.append(time.perf_counter())
        images, targets = mix(images, labels)
        loss = criterion(model(images), targets)
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        at.append(time.perf_counter())
        optimizer.step()
        at.append(time.perf_counter())
        yield tuple(b - a for a, b in itertools.pairwise(at))


if __name__ == "__main__":
    main("deit3", __doc__.splitlines()[0], their_loop)
