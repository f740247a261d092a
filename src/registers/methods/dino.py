"""DINO (v1): self-distillation of [CLS] without labels (paper, Figs. 2 and 3; Caron et al. 2021).

Reproduces facebookresearch/dino, main_dino.py and utils.py: multi-crop, an EMA teacher on the two
global crops, teacher outputs centred by a running mean and sharpened, cross-entropy between
different views, AdamW with schedules of rate, weight decay and momentum, gradients clipped
parameter by parameter, the last layer frozen at first. No masks, no iBOT, no KoLeo. The teacher
temperature rises from 0.04 to 0.07 over `temperature_warmup` steps, as README.md recommends for
long runs (main_dino.py's own default stays at 0.04).

Departures, and why:
- In the last block only what feeds [CLS] is computed (Backbone.summary): the same function.
- [CLS] gets no position of its own, positions are interpolated with antialiasing, registers are
  added: as in the paper's other recipes.
- bf16 or fp32 instead of fp16 with loss scaling.
- `momentum` (official 0.996) is a setting: it belongs to a run of 100,000 steps and more.
- Sizes, drop path (official 0.1; 0 in the scales of few steps), lr and lengths come from the
  scale.
"""

import torch
from torch import Tensor

from registers.data.sample import Dataset, Sample
from registers.data.transforms import BLUR_AS_DOCUMENTED, IMAGENET, dino_crops
from registers.losses import all_reduce_sum_, dino_loss
from registers.methods.method import Method, Progress, decay_groups
from registers.models.heads import DinoHead
from registers.models.schedules import cosine
from registers.models.teacher import follow, frozen_copy
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

# main_dino.py, get_args_parser and DINOLoss
GLOBAL_SCALE = (0.4, 1.0)
LOCAL_SCALE = (0.05, 0.4)
TEMPERATURES = (0.04, 0.07)
WEIGHT_DECAYS = (0.04, 0.4)
MIN_LR = 1e-6
CLIP = 3.0
CENTER_MOMENTUM = 0.9


class Dino(Method):
    normalization = IMAGENET

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__(settings, id, dataset)
        recipe = self.recipe
        self.student = self.build_backbone(
            drop_path=recipe.drop_path.get(self.size, 0.0), drop_path_rises=True
        )
        self.head = DinoHead(
            self.student.architecture.width,
            recipe.head_hidden,
            recipe.bottleneck,
            recipe.prototypes,
            train_norm=False,
        )
        self.backbone = frozen_copy(self.student)
        self.teacher_head = frozen_copy(self.head)
        self.register_buffer("center", torch.zeros(recipe.prototypes))
        self.crops = dino_crops(
            settings.image_size,
            recipe.local_size,
            recipe.local_crops,
            GLOBAL_SCALE,
            LOCAL_SCALE,
            BLUR_AS_DOCUMENTED,
            False,
        )

    def train(self, mode: bool = True) -> "Dino":
        super().train(mode)
        self.backbone.eval()
        return self

    def augment(self, sample: Sample) -> dict[str, Tensor]:
        """global: (2, 3, S, S), local: (crops, 3, s, s)."""
        return self.crops(sample.image)

    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        # (2B, 3, S, S): all first views, then all second views
        images = batch["global"].transpose(0, 1).flatten(0, 1)
        local = batch["local"].transpose(0, 1).flatten(0, 1)  # (crops x B, 3, s, s)
        half = len(images) // 2
        targets_2BK = self.teach(images, self.temperature(progress))
        cls = self.student.summary(images)
        if len(local):
            cls = torch.cat([cls, self.student.summary(local)])
        logits = self.head(cls)
        return {"loss": dino_loss(logits.view(-1, half, logits.shape[-1]), targets_2BK)}

    @torch.no_grad()
    def teach(self, images: Tensor, temperature: float) -> Tensor:
        """Probabilities for both views, (2, B, K), by the centre so far; then the centre moves."""
        logits_BK = self.teacher_head(self.backbone.summary(images)).float()
        targets_BK = torch.softmax((logits_BK - self.center) / temperature, dim=-1)
        if self.training:
            count = all_reduce_sum_(torch.tensor(float(len(logits_BK)), device=logits_BK.device))
            self.center.lerp_(all_reduce_sum_(logits_BK.sum(dim=0)) / count, 1 - CENTER_MOMENTUM)
        return targets_BK.unflatten(0, (2, -1))

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            decay_groups(self, WEIGHT_DECAYS[0]),
            lr=self.recipe.lr,
            betas=(0.9, 0.999),
            fused=True,
        )

    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        lr = cosine(progress.step, progress.steps, self.recipe.lr, MIN_LR, self.recipe.warmup)
        decay = cosine(progress.step, progress.steps, *WEIGHT_DECAYS)
        decayed, exempt = optimizer.param_groups  # exempt: biases and norms
        decayed["lr"] = exempt["lr"] = lr
        decayed["weight_decay"] = decay
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

    @torch.no_grad()
    def before_update(self, progress: Progress) -> dict[str, float]:
        """Clip each parameter's gradient for itself; at first cancel the last layer's.

        As utils.py, clip_gradients and cancel_gradients_last_layer.
        """
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        torch._foreach_mul_(gradients, list((CLIP / (norms + 1e-6)).clamp(max=1).unbind()))
        if progress.step < self.recipe.freeze_last_layer:
            self.head.last_layer.direction.grad = None
        logs = progress.step % self.settings.log_every == 0  # reading a number waits for a GPU
        return {"gradient": float(norms.norm())} if logs else {}

    def after_step(self, progress: Progress) -> None:
        momentum = self.momentum(progress)
        follow(self.backbone, self.student, momentum)
        follow(self.teacher_head, self.head, momentum)
