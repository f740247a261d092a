"""MAE: reconstruct the pixels of masked patches (paper, Fig. 17; He et al. 2021).

Reproduces facebookresearch/mae, models_mae.py and main_pretrain.py: of the patches of an image 75 %
are removed at random; the encoder sees [CLS] and the rest; a light decoder sees those and mask
tokens in the holes; the loss is the squared error on the pixels of the removed patches, each patch
normalised by its own mean and deviation. Fixed sin-cos positions in both.

Departures, and why:
- Registers enter the encoder beside [CLS], are never removed, and are dropped at its output, before
  the decoder: as the paper does it everywhere. They start like [CLS], at N(0, 0.02).
- The decoder works in the shuffled order and predicts the removed patches only: the same function
  without the way back.
- [CLS] gets no position; in sin-cos it is zero anyway.
- bf16 or fp32 instead of fp16 with loss scaling.
- Sizes, lr (official 1.5e-4 x batch / 256) and lengths come from the scale; the warm-up reaches its
  peak one step earlier.
"""

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.sample import Dataset, Sample
from registers.data.transforms import IMAGENET, mae_augment
from registers.methods.method import Method, Progress, decay_groups
from registers.models.schedules import cosine
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

MASK_RATIO = 0.75  # main_pretrain.py --mask_ratio
WEIGHT_DECAY = 0.05  # main_pretrain.py --weight_decay
BETAS = (0.9, 0.95)  # main_pretrain.py, torch.optim.AdamW


class Mae(Method):
    normalization = IMAGENET

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__(settings, id, dataset)
        recipe = self.recipe
        self.backbone = self.build_backbone()
        vit = self.backbone.vit
        grid = self.backbone.architecture.grid
        self.patches = grid[0] * grid[1]
        self.kept = int(self.patches * (1 - MASK_RATIO))
        self.embed = nn.Linear(vit.embed_dim, recipe.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, recipe.decoder_width))
        blocks = [
            Block(recipe.decoder_width, recipe.decoder_heads, qkv_bias=True)
            for _ in range(recipe.decoder_depth)
        ]
        self.decoder = nn.Sequential(*blocks, LayerNorm(recipe.decoder_width))
        self.predict = nn.Linear(recipe.decoder_width, 3 * recipe.patch**2)
        self.apply(_initialise)
        nn.init.xavier_uniform_(vit.patch_embed.proj.weight.data.flatten(1))
        for token in (vit.cls_token, vit.reg_token, self.mask_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)
        vit.pos_embed.requires_grad_(False).copy_(sincos(grid, vit.embed_dim)[None])
        self.register_buffer("position", sincos(grid, recipe.decoder_width), persistent=False)
        self.pixels = mae_augment(settings.image_size)

    def augment(self, sample: Sample) -> dict[str, Tensor]:
        """image: (3, S, S); order: (P,), the patches shuffled; the first quarter is kept."""
        return {"image": self.pixels(sample.image), "order": torch.randperm(self.patches)}

    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        images, order_BP = batch["image"], batch["order"]
        predicted = self.decode(*self.encode(images, order_BP[:, : self.kept]), order_BP).float()
        targets = patch_targets(images.float(), self.recipe.patch)
        removed = _take(targets, order_BP[:, self.kept :])
        # every image has as many removed patches, so the mean is the official one
        return {"loss": F.mse_loss(predicted, removed)}

    def encode(self, images: Tensor, kept_BK: Tensor) -> tuple[Tensor, Tensor]:
        """[CLS] (B, D) and the kept patches (B, K, D) after the encoder; registers are dropped."""
        tokens = self.backbone.split(self.backbone.embed(images))
        x = torch.cat(
            [tokens.cls[:, None], tokens.registers, _take(tokens.patches, kept_BK)], dim=1
        )
        encoded = self.backbone.split(self.backbone.vit.norm(self.backbone.vit.blocks(x)))
        return encoded.cls, encoded.patches

    def decode(self, cls_BD: Tensor, kept_BKD: Tensor, order_BP: Tensor) -> Tensor:
        """Pixels of the removed patches, (B, P - K, 3 p p), in the order of `order_BP`."""
        kept = self.embed(kept_BKD)
        holes = self.mask_token.to(kept.dtype).expand(len(kept), self.patches - self.kept, -1)
        x = torch.cat([kept, holes], dim=1) + self.position[order_BP].to(kept.dtype)
        x = self.decoder(torch.cat([self.embed(cls_BD)[:, None], x], dim=1))
        return self.predict(x[:, self.kept - self.patches :])  # the last P - K tokens

    def optimizer(self) -> torch.optim.Optimizer:
        groups = decay_groups(self, WEIGHT_DECAY)
        return torch.optim.AdamW(groups, lr=self.recipe.lr, betas=BETAS, fused=True)

    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        lr = cosine(progress.step, progress.steps, self.recipe.lr, 0.0, self.recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return {"lr": lr}


def patch_targets(images_B3HW: Tensor, patch: int) -> Tensor:
    """Pixels of every patch, (B, P, 3 p p), each patch with mean 0 and variance 1.

    As models_mae.py with norm_pix_loss.
    """
    x = F.unfold(images_B3HW, patch, stride=patch).transpose(1, 2)
    return (x - x.mean(dim=-1, keepdim=True)) / (x.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def sincos(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions (P, width): half of the channels for the column, half for the row.

    As mae/util/pos_embed.py, in float64. timm.layers.build_sincos2d_pos_embed computes the angles
    in float32 and orders the channels differently.
    """
    height, across = grid
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(across), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (columns, rows)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()


def _take(x_BPD: Tensor, index_BK: Tensor) -> Tensor:
    return torch.gather(x_BPD, 1, index_BK[..., None].expand(-1, -1, x_BPD.shape[-1]))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
