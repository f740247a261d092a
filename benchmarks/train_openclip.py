"""OpenCLIP: our training step against open_clip's towers and loss in a plain loop.

`python benchmarks/train_openclip.py`. Theirs: open_clip.model.CLIP of the same sizes (full
vocabulary; it has no registers, so ours is measured with none), its image_transform and tokenizer,
ClipLoss and torch's AdamW as open_clip_train/main.py makes them.
"""

import itertools
import math
import sys
import time

import torch
from alternate import Step, main
from open_clip import ClipLoss, SimpleTokenizer, image_transform
from open_clip.model import CLIP

from registers.data.transforms import OPENAI
from registers.methods.openclip import OpenClip
from registers.world.dataset import World


def their_loop(clip: OpenClip, samples: World) -> Step:
    recipe = clip.recipe
    architecture = clip.backbone.architecture
    image = dict(
        layers=architecture.depth,
        width=architecture.width,
        head_width=architecture.width // architecture.heads,
    )
    image |= dict(patch_size=architecture.patch, image_size=architecture.image)
    text = dict(
        context_length=recipe.context,
        vocab_size=49408,
        width=recipe.text_width,
        heads=recipe.text_heads,
        layers=recipe.text_depth,
    )
    model = CLIP(recipe.embed, image, text).train()
    pixels = image_transform(architecture.image, is_train=True, mean=OPENAI[0], std=OPENAI[1])
    tokenizer = SimpleTokenizer(context_length=recipe.context)
    criterion = ClipLoss()
    groups = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": 0.2}]
    for name, parameter in model.named_parameters():
        is_spared = parameter.ndim < 2 or "ln" in name or "bias" in name
        groups[0 if is_spared else 1]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6)

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            sample = samples[index]
            return pixels(sample.image), tokenizer([sample.caption])[0]

    def forever():
        while True:
            yield from torch.utils.data.DataLoader(
                Pairs(), batch_size=recipe.batch, shuffle=True, drop_last=True
            )

    loader = forever()
    while True:
        at = [time.perf_counter()]
        images, tokens = next(loader)
        at.append(time.perf_counter())
        optimizer.zero_grad()
        loss = criterion(*model(images, tokens))
        loss.item()
        loss.backward()
        at.append(time.perf_counter())
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        at.append(time.perf_counter())
        yield tuple(b - a for a, b in itertools.pairwise(at))


if __name__ == "__main__":
    main(
        "openclip",
        __doc__.splitlines()[0],
        their_loop,
        ["--registers", "0", *sys.argv[1:]],
    )
