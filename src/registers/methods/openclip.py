"""OpenCLIP: images and captions, matched by a symmetric InfoNCE loss (paper, 3.1: ViT-B/16).

Reproduces mlfoundations/open_clip, ViT-B-16 with the defaults of src/open_clip_train/params.py for
ViTs: text transformer and tokenizer are open_clip's own; AdamW (0.9, 0.98), eps 1e-6, weight decay
0.2, linear warm-up and cosine to 0, random resized crop of 90 to 100 %, learnt logit scale from
ln(1/0.07), clamped to [0, ln 100] after each step; no gradient clipping. Features are gathered from
all processes with their gradient (--gather-with-grad).

Departures, and why:
- The image tower is timm's ViT (pre_norm=True: ln_pre, no patch bias), as for all methods:
  registers, one fused qkv, timm's initialisation (trunc_normal 0.02 instead of open_clip's widths),
  LayerNorm eps 1e-6 instead of 1e-5, no position on [CLS].
- Weight decay also spares the 2-D position embeddings, [CLS] and registers. open_clip's
  model.no_weight_decay() names position and class embeddings, but main.py asks it only for timm
  optimizers: its own AdamW path decays the positions. Registers are treated as [CLS].
- `vocabulary: corpus` keeps embeddings of tokens that can occur only (captions, and prompts of the
  classes). The same training: a row without a gradient is only decayed, and never read.
- bf16 or fp32, whatever `precision` says; features are normalised and compared in fp32. The paper
  does not state its batch, length or corpus size: ours come from the scale.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.prompts import templates
from registers.data.sample import Dataset, Sample
from registers.data.transforms import OPENAI, clip_augment
from registers.losses import contrastive, gather
from registers.methods.method import Method, Progress, decay_groups
from registers.models.schedules import cosine
from registers.models.text import TextTower, pack, token_ids
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

WEIGHT_DECAY = 0.2  # params.py, --wd
BETAS = (0.9, 0.98)  # params.py, get_default_params
EPS = 1e-6  # params.py, get_default_params
SCALE_START = math.log(1 / 0.07)  # model.py, init_logit_scale
SCALE_MOST = math.log(100)  # train.py, unwrap_model(...).logit_scale.clamp_
# 1-D parameters and the logit scale are exempt anyway
EXEMPT = ("pos_embed", "cls_token", "reg_token", "positional_embedding")


class OpenClip(Method):
    normalization = OPENAI

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__(settings, id, dataset)
        recipe = self.recipe
        self.backbone = self.build_backbone(pre_norm=True)
        width = self.backbone.architecture.width
        # transformer.py, VisionTransformer
        self.projection = nn.Parameter(torch.randn(width, recipe.embed) * width**-0.5)
        vocabulary = None
        if recipe.vocabulary == "corpus":
            vocabulary = occurring_tokens(dataset, recipe.context)
        self.text = TextTower(
            recipe.embed,
            recipe.context,
            recipe.text_width,
            recipe.text_depth,
            recipe.text_heads,
            vocabulary,
        )
        self.logit_scale = nn.Parameter(torch.tensor(SCALE_START))
        self.pixels = clip_augment(settings.image_size)

    def augment(self, sample: Sample) -> dict[str, Tensor]:
        if not sample.caption:
            raise ValueError(
                f"sample {sample.name}: no caption; openclip trains on data with captions"
            )
        return {
            "image": self.pixels(sample.image),
            "tokens": self.text.tokenize([sample.caption])[0],
        }

    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        projected_BE = self.backbone.summary(batch["image"]) @ self.projection
        image_BE = F.normalize(projected_BE.float(), dim=-1)
        text_BE = F.normalize(self.text(batch["tokens"]).float(), dim=-1)
        scale = self.logit_scale.exp()
        loss = contrastive(gather(image_BE), gather(text_BE), scale)
        return {"loss": loss, "logit_scale": scale.detach()}

    def optimizer(self) -> torch.optim.Optimizer:
        groups = decay_groups(self, WEIGHT_DECAY, EXEMPT)
        return torch.optim.AdamW(groups, lr=self.recipe.lr, betas=BETAS, eps=EPS, fused=True)

    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        lr = learning_rate(progress.step, progress.steps, self.recipe.warmup, self.recipe.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return {"lr": lr}

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        self.logit_scale.clamp_(0, SCALE_MOST)

    def extras(self) -> tuple[dict[str, Tensor], dict]:
        """Projection and text tower, for zero-shot classification (`models.text.unpack`)."""
        return pack(self.projection, self.text)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to 0 over the steps that are left.

    The same numbers as cosine_lr (open_clip_train/scheduler.py).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(step, steps, peak, 0.0, warmup)


def occurring_tokens(dataset: Dataset, context: int) -> set[int]:
    """Ids of the tokens of all captions, and of the 80 prompts of each class.

    Zero-shot classification reads the prompts. A data set that has its captions at hand in
    `captions` need not open every image.
    """
    captions = getattr(dataset, "captions", None)
    if captions is None:
        captions = (dataset[i].caption or "" for i in range(len(dataset)))
    prompts = {template(name) for template in templates() for name in dataset.classes}
    return token_ids({*captions, *prompts}, context)
