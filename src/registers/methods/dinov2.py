"""DINOv2: self-distillation of [CLS] and masked patches (paper, 3.1: ViT-L/14 on ImageNet-22k).

Reproduces facebookresearch/dinov2, configs/train/vitl14.yaml over ssl_default_config.yaml, with
train/train.py, train/ssl_meta_arch.py, data/{augmentations,masking,collate}.py, loss/ and
utils/param_groups.py: an EMA teacher sees two whole global crops; the student sees them, half of
them with blocks masked, and local crops. Loss: DINO on [CLS] + iBOT on masked patches + 0.1 KoLeo,
Sinkhorn-Knopp on the teacher, separate heads. The paper's changes: registers, and antialiased
interpolation of positions. What is saved and analysed is the teacher. Registers are neither masked,
nor counted as patches, nor seen by any loss.

Departures, and why:
- Of the two global crops of an image exactly one is masked, at a ratio uniform in 0.1 to 0.5. The
  official collate masks any half of the crops of a batch, with one ratio from each bin of that
  range: the same share of crops, the same expected spread of ratios; but drawn per image, so a
  batch does not depend on how it is shared between processes and loader workers.
- KoLeo looks for neighbours in the global batch, not in each GPU's part (32 images there): the loss
  is the same for any number of processes. With more images the nearest neighbour is nearer, so the
  term is larger than in the official run.
- In the last block of local crops only what feeds [CLS] is computed (Backbone.summary): the same
  function.
- [CLS] gets no position of its own: a sum of two free vectors is one free vector.
- bf16 or fp32 with plain data parallelism instead of fp16 with FSDP and loss scaling; losses are in
  fp32.
- `layer_scale` (official 1e-5) and `momentum` (official 0.994) are settings: they belong to a run
  of 625,000 steps. In a few hundred steps a branch that starts at 1e-5 stays shut, and a teacher
  with a half-life of 115 steps never moves.
- Drop path draws for each image (timm); above a rate of 0.1 the official code drops a fixed share
  of the batch instead (dinov2/layers/block.py): the same share on average, with less spread.
- Sizes, lr and lengths come from the scale.
"""

import math
import random

import numpy as np
import torch
from torch import Tensor, nn

from registers.data.sample import Dataset, Sample
from registers.data.transforms import IMAGENET, dino_crops
from registers.losses import dino_loss, gather, ibot_loss, koleo, sinkhorn_knopp
from registers.methods.method import Method, Progress
from registers.models.heads import DinoHead
from registers.models.schedules import cosine
from registers.models.teacher import follow, frozen_copy
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.run import Settings

MASK_RATIO = (0.1, 0.5)  # ssl_default_config.yaml, ibot.mask_ratio_min_max
MIN_BLOCK = 4  # patches; masking.py
MIN_ASPECT = 0.3  # masking.py
MAX_BLOCK_SHARE = 0.5  # of the patches; train.py (128 of 16 x 16)
TEMPERATURES = (0.04, 0.07)  # teacher, from and to
WEIGHT_DECAYS = (0.04, 0.2)  # from and to
MIN_LR = 1e-6
PATCH_EMBED_LR = 0.2  # times the rate of all else
KOLEO_WEIGHT = 0.1
CLIP = 3.0
# param_groups.py exempts only these from weight decay: [CLS], registers, positions and the mask
# token do decay. Add "cls_token", "reg_token", "pos_embed" for the other convention (DeiT-III's).
EXEMPT = (".bias", "norm", "gamma")


class Dinov2(Method):
    normalization = IMAGENET

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__(settings, id, dataset)
        recipe = self.recipe
        if recipe.batch < 2:
            raise ConfigError(
                f"recipes.dinov2.batch = {recipe.batch}: must be at least 2 (KoLeo compares images)"
            )
        self.student = self.build_backbone(
            ffn=recipe.ffn,
            layer_scale=recipe.layer_scale or None,
            drop_path=recipe.drop_path.get(self.size, 0.0),
        )
        width = self.student.architecture.width
        hidden = recipe.head_hidden
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.dino_head = DinoHead(width, hidden, recipe.dino_bottleneck, recipe.prototypes)
        self.ibot_head = DinoHead(width, hidden, recipe.ibot_bottleneck, recipe.prototypes)
        self.backbone = frozen_copy(self.student)
        self.teacher_dino_head = frozen_copy(self.dino_head)
        self.teacher_ibot_head = frozen_copy(self.ibot_head)
        self.crops = dino_crops(settings.image_size, recipe.local_size, recipe.local_crops)

    def train(self, mode: bool = True) -> "Dinov2":
        super().train(mode)
        for teacher in (self.backbone, self.teacher_dino_head, self.teacher_ibot_head):
            teacher.eval()
        return self

    def augment(self, sample: Sample) -> dict[str, Tensor]:
        """global: (2, 3, S, S), local: (crops, 3, s, s), mask: (2, P) bool, one row all False."""
        grid = self.student.architecture.grid
        masks = [
            block_mask(grid, int(grid[0] * grid[1] * random.uniform(*MASK_RATIO))),
            np.zeros(grid, bool),
        ]
        random.shuffle(masks)
        return {**self.crops(sample.image), "mask": torch.from_numpy(np.stack(masks)).flatten(1)}

    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        # (2B, 3, S, S): all first views, then all second views
        images = batch["global"].transpose(0, 1).flatten(0, 1)
        mask = batch["mask"].transpose(0, 1).flatten(0, 1)  # (2B, P)
        local = batch["local"].transpose(0, 1).flatten(0, 1)  # (crops x B, 3, s, s)
        masked = mask.flatten().nonzero().squeeze(1)
        half = len(images) // 2

        targets_2BK, patch_targets_MK = self.teach(images, masked, self.temperature(progress))
        tokens = self.student(images, mask, self.mask_token)
        cls = tokens.cls
        if len(local):
            cls = torch.cat([cls, self.student.summary(local)])
        logits = self.dino_head(cls)
        patch_logits = self.ibot_head(tokens.patches.flatten(0, 1)[masked])

        losses = {
            "dino": dino_loss(logits.view(-1, half, logits.shape[-1]), targets_2BK),
            "ibot": ibot_loss(patch_logits, patch_targets_MK, mask),
            # of each view apart: the two views of an image are no neighbours (ssl_meta_arch.py)
            "koleo": sum(koleo(gather(view)) for view in tokens.cls.chunk(2)),
        }
        return {"loss": losses["dino"] + losses["ibot"] + KOLEO_WEIGHT * losses["koleo"], **losses}

    @torch.no_grad()
    def teach(self, images: Tensor, masked: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Probabilities: for [CLS] of both views, (2, B, K), and for the masked patches, (M, K)."""
        tokens = self.backbone(images)
        cls_BK = sinkhorn_knopp(self.teacher_dino_head(tokens.cls), temperature)
        patch_logits = self.teacher_ibot_head(tokens.patches.flatten(0, 1)[masked])
        patches_MK = sinkhorn_knopp(patch_logits, temperature)
        return cls_BK.unflatten(0, (2, -1)), patches_MK

    def optimizer(self) -> torch.optim.Optimizer:
        groups: dict[tuple, dict] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            factors = dict(
                lr_factor=PATCH_EMBED_LR if "patch_embed" in name else 1.0,
                decay_factor=0.0 if any(part in name for part in EXEMPT) else 1.0,
                last_layer="last_layer" in name,
            )
            group = groups.setdefault(tuple(factors.values()), {**factors, "params": []})
            group["params"].append(parameter)
        return torch.optim.AdamW(groups.values(), lr=self.recipe.lr, betas=(0.9, 0.999), fused=True)

    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        lr = cosine(progress.step, progress.steps, self.recipe.lr, MIN_LR, self.recipe.warmup)
        decay = cosine(progress.step, progress.steps, *WEIGHT_DECAYS)
        for group in optimizer.param_groups:
            frozen = group["last_layer"] and progress.step < self.recipe.freeze_last_layer
            group["lr"] = 0.0 if frozen else lr * group["lr_factor"]
            group["weight_decay"] = decay * group["decay_factor"]
        return {
            "lr": lr,
            "weight_decay": decay,
            "momentum": self.momentum(progress),
            "temperature": self.temperature(progress),
        }

    def temperature(self, progress: Progress) -> float:
        """Of the teacher: linear over temperature_warmup steps, then constant."""
        start, end = TEMPERATURES
        warmup = self.recipe.temperature_warmup
        return cosine(progress.step, warmup, end, end, warmup, start)

    def momentum(self, progress: Progress) -> float:
        return cosine(progress.step, progress.steps, self.recipe.momentum, 1.0)

    def before_update(self, progress: Progress) -> dict[str, float]:
        """Clip the gradient of each sub-module for itself."""
        parts = {
            "backbone": [*self.student.parameters(), self.mask_token],
            "dino_head": list(self.dino_head.parameters()),
            "ibot_head": list(self.ibot_head.parameters()),
        }
        norms = {
            f"gradient/{name}": nn.utils.clip_grad_norm_(part, CLIP) for name, part in parts.items()
        }
        logs = progress.step % self.settings.log_every == 0  # reading a number waits for a GPU
        return {name: float(norm) for name, norm in norms.items()} if logs else {}

    def after_step(self, progress: Progress) -> None:
        momentum = self.momentum(progress)
        follow(self.backbone, self.student, momentum)
        follow(self.teacher_dino_head, self.dino_head, momentum)
        follow(self.teacher_ibot_head, self.ibot_head, momentum)


def block_mask(grid: tuple[int, int], count: int) -> np.ndarray:
    """(h, w) bool with at most `count` patches True, in random rectangles (BEiT's block masking).

    As dinov2/data/masking.py: a rectangle has 4 to half of all patches and an aspect of 0.3 to 3.3,
    may overlap earlier ones, and adds at most what is missing; after ten rectangles in a row that
    do not fit, the mask stays as it is.
    """
    height, width = grid
    mask = np.zeros(grid, bool)
    masked = 0
    tries = 0
    while masked < count and tries < 10:
        room = min(count - masked, MAX_BLOCK_SHARE * height * width)
        area = random.uniform(MIN_BLOCK, room)
        aspect = math.exp(random.uniform(math.log(MIN_ASPECT), -math.log(MIN_ASPECT)))
        h = round(math.sqrt(area * aspect))
        w = round(math.sqrt(area / aspect))
        tries += 1
        if 0 < h < height and 0 < w < width:
            top = random.randint(0, height - h)
            left = random.randint(0, width - w)
            block = mask[top : top + h, left : left + w]
            new = block.size - int(block.sum())
            if 0 < new <= room:
                block[:] = True
                masked += new
                tries = 0
    return mask
