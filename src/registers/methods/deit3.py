"""DeiT-III: supervised training with a linear head on [CLS] (paper, 3.1: ViT-B on ImageNet-22k).

Reproduces "Training on ImageNet-21k" of facebookresearch/deit, README_revenge.md, with main.py,
engine.py, augment.py and models_v2.py: 3-Augment after a simple random crop, CutMix, label
smoothing, soft-target cross-entropy, LAMB, LayerScale, constant drop path, cosine.

Departures, and why:
- timm's LAMB instead of apex' FusedLAMB, which needs CUDA; both clip the gradient's global norm to
  1 inside the optimizer.
- The rate changes with every step, not every epoch: a small run has few epochs. Warm-up and length
  are counted in steps.
- Registers are exempt from weight decay, as [CLS] is (deit exempts pos_embed and cls_token, and has
  no registers).
- Position embedding on patches only, as in models_v2.py; [CLS] starts at N(0, 1e-6) (timm) instead
  of trunc_normal 0.02.
- No EMA copy: main.py keeps one but evaluates the raw model.
- bf16 or fp32 instead of fp16 with loss scaling.
- Sizes, lr and lengths come from the scale; at a small batch and length the rate is not the
  official 1e-3.
"""

import torch
from timm.data import Mixup
from timm.optim import Lamb
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.sample import Dataset, Sample
from registers.data.transforms import IMAGENET, three_augment
from registers.methods.method import Method, Progress, decay_groups
from registers.models.schedules import cosine
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

WARMUP_LR = 1e-6  # README_revenge.md, --warmup-lr
MIN_LR = 1e-5  # main.py, --min-lr
WEIGHT_DECAY = 0.02  # README_revenge.md, --weight-decay
SMOOTHING = 0.1  # main.py, --smoothing
CUTMIX = 1.0  # README_revenge.md, --cutmix
MAX_NORM = 1.0  # of the gradient, in LAMB
EXEMPT = ("pos_embed", "cls_token", "reg_token")  # models_v2.py no_weight_decay, and the registers


class Deit3(Method):
    normalization = IMAGENET

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__(settings, id, dataset)
        self.backbone = self.build_backbone(
            layer_scale=self.recipe.layer_scale or None,
            drop_path=self.recipe.drop_path.get(self.size, 0.0),
        )
        self.head = nn.Linear(self.backbone.architecture.width, len(dataset.classes))
        nn.init.trunc_normal_(self.head.weight, std=0.02)  # models_v2.py _init_weights
        nn.init.zeros_(self.head.bias)
        self.pixels = three_augment(settings.image_size)
        # main.py: one lambda and one box per batch
        self.mix = Mixup(
            mixup_alpha=0.0,
            cutmix_alpha=CUTMIX,
            label_smoothing=SMOOTHING,
            num_classes=len(dataset.classes),
        )

    def augment(self, sample: Sample) -> dict[str, Tensor]:
        if sample.label is None:
            raise ValueError(f"sample {sample.name}: no label; deit3 trains on data with labels")
        return {"image": self.pixels(sample.image), "label": torch.tensor(sample.label)}

    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        # Image i is mixed with B-1-i; lambda and box come from numpy's global generator, so all
        # processes draw the same.
        images, targets_BC = self.mix(batch["image"], batch["label"])
        logits_BC = self.head(self.backbone.summary(images)).float()
        return {"loss": F.cross_entropy(logits_BC, targets_BC)}

    def optimizer(self) -> torch.optim.Optimizer:
        groups = decay_groups(self, WEIGHT_DECAY, EXEMPT)
        # foreach: same numbers, fewer calls
        return Lamb(groups, lr=self.recipe.lr, max_grad_norm=MAX_NORM, foreach=True)

    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        lr = learning_rate(progress.step, progress.steps, self.recipe.warmup, self.recipe.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return {"lr": lr}


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear from 1e-6 to the peak, then the cosine that began at step 0, towards 1e-5.

    The same numbers as timm.scheduler.CosineLRScheduler.
    """
    if step < warmup:
        return WARMUP_LR + (peak - WARMUP_LR) * step / warmup
    return cosine(step, steps, peak, MIN_LR)
