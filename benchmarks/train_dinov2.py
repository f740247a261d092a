"""DINOv2: our training step against lightly's example, as a user would write it.

`python benchmarks/train_dinov2.py`. Theirs: lightly's MaskedVisionTransformerTIMM around the same
timm ViT, DINOv2ProjectionHead (separate heads), random_block_mask, DINOLoss, IBOTPatchLoss,
KoLeoLoss, DINOTransform on PIL images, update_momentum and torch's AdamW, in the order of its
examples/pytorch/dinov2.py; the same sizes, samples, crops, prototypes, batch and registers. Its
losses centre by a mean where the recipe asks for Sinkhorn-Knopp, and it clips no gradients: ours
does more per step.
"""

import itertools
import time

import timm
import torch
from alternate import Step, main
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.models.modules import DINOv2ProjectionHead, MaskedVisionTransformerTIMM
from lightly.models.utils import random_block_mask, update_momentum
from lightly.transforms.dino_transform import DINOTransform
from lightly.utils.scheduler import cosine_schedule

from registers.methods.dinov2 import Dinov2
from registers.world.dataset import World


def their_loop(ours: Dinov2, samples: World) -> Step:
    settings = ours.settings
    recipe = ours.recipe
    name, arguments = ours.backbone.architecture.timm()

    def parts() -> list[torch.nn.Module]:
        vit = timm.create_model(name, **arguments)
        return [
            MaskedVisionTransformerTIMM(
                vit, weight_initialization="skip", pos_embed_initialization="skip"
            ),
            DINOv2ProjectionHead(
                vit.embed_dim, recipe.head_hidden, recipe.dino_bottleneck, recipe.prototypes
            ),
            DINOv2ProjectionHead(
                vit.embed_dim, recipe.head_hidden, recipe.ibot_bottleneck, recipe.prototypes
            ),
        ]

    pairs = list(zip(parts(), parts()))
    for part, copied in pairs:
        copied.load_state_dict(part.state_dict())
        copied.requires_grad_(False).eval()
    (student, teacher), (dino_head, teacher_dino), (ibot_head, teacher_ibot) = pairs
    prefix = student.vit.num_prefix_tokens
    grid = student.vit.patch_embed.grid_size
    dino = DINOLoss(recipe.prototypes)
    ibot = IBOTPatchLoss(recipe.prototypes)
    koleo = KoLeoLoss()
    optimizer = torch.optim.AdamW([p for part, _ in pairs for p in part.parameters()], lr=recipe.lr)
    crops = DINOTransform(
        global_crop_size=settings.image_size,
        global_crop_scale=(0.32, 1.0),
        local_crop_size=recipe.local_size,
        local_crop_scale=(0.05, 0.32),
        n_local_views=recipe.local_crops,
        gaussian_blur=(0.0, 0.9, 0.5),  # as ours: dinov2's effective probabilities
        cj_bright=0.8,  # times cj_strength 0.5: the recipe's 0.4, 0.4, 0.2, 0.1
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            return crops(samples[index].image)

    def forever():
        while True:
            yield from torch.utils.data.DataLoader(
                Images(), batch_size=recipe.batch, shuffle=True, drop_last=True
            )

    loader = forever()
    for step in itertools.count():
        at = [time.perf_counter()]
        views = next(loader)
        at.append(time.perf_counter())
        whole = torch.cat(views[:2])
        local = torch.cat(views[2:])
        blocks = random_block_mask(size=(len(whole), *grid))
        mask = torch.zeros(len(whole), student.sequence_length, dtype=torch.bool)
        mask[:, prefix:] = blocks.flatten(start_dim=1)
        with torch.no_grad():
            features = teacher.encode(whole)
            teacher_cls = teacher_dino(features[:, 0])
            teacher_masked = teacher_ibot(features[mask])
        features = student.encode(whole, mask=mask)
        cls = features[:, 0]
        masked = ibot_head(features[mask])
        student_cls = torch.cat([dino_head(cls), dino_head(student.encode(local)[:, 0])])
        loss = dino(teacher_cls.chunk(2), student_cls.chunk(len(views)), teacher_temp=0.05)
        loss = loss + ibot(teacher_masked, masked, mask=blocks, teacher_temp=0.05)
        loss = loss + 0.1 * sum(koleo(view) for view in cls.chunk(2))
        loss.item()
        loss.backward()
        at.append(time.perf_counter())
        for group in optimizer.param_groups:
            group["weight_decay"] = cosine_schedule(
                step=step, max_steps=recipe.steps, start_value=0.04, end_value=0.2
            )
        optimizer.step()
        optimizer.zero_grad()
        momentum = cosine_schedule(
            step=step, max_steps=recipe.steps, start_value=recipe.momentum, end_value=1.0
        )
        for part, copied in pairs:
            update_momentum(part, copied, m=momentum)
        at.append(time.perf_counter())
        yield tuple(b - a for a, b in itertools.pairwise(at))


if __name__ == "__main__":
    main("dinov2", __doc__.splitlines()[0], their_loop)
