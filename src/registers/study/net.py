"""The ViT of a regime of drawn scenes: a plain timm ViT with registers, and the heads of its task.

Regimes differ in where [CLS] is and how the label is read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.models.backbone import Architecture, build, recorded_qkv
from registers.models.sequence import Tokens, split_tokens
from registers.probes.reconstruction import patchify
from registers.study.regime import Regime
from registers.study.scenes import CODEBOOK, Scenes


class Seen(NamedTuple):
    """What one forward pass passes through.

    embeddings (B, P, D): patches before position. start (B, P, D): patches as the first block
    reads them. layers: L residual streams (B, N, D), each after its block. last: the final tokens,
    after the norm, taken apart. attention: of each block the weights (B, H, N, N), or None where
    it has none; empty where nobody asked for them.
    """

    embeddings: Tensor
    start: Tensor
    layers: list[Tensor]
    last: Tokens
    attention: Sequence[Tensor | None] = ()


class Net(nn.Module):
    """ViT and heads. After block l the sequence is laid out as `split(x, l)` tells: [CLS] is there
    from block `enters` on, or never."""

    def __init__(self, regime: Regime, registers: int) -> None:
        super().__init__()
        self.regime = regime
        self.registers = registers
        width = regime.width
        architecture = Architecture(
            width=width,
            depth=regime.depth,
            heads=regime.heads,
            patch=regime.patch,
            image=regime.grid * regime.patch,
            registers=registers,
            ffn=regime.ffn,
            layer_scale=regime.layer_scale or None,
        )
        self.backbone = build(architecture)
        # in this order: it is that of the random numbers that finished runs started from
        self.label = nn.Linear(width, regime.classes)
        self.kind = nn.Linear(width, regime.kinds + 1) if regime.masked else None
        self.content = nn.Linear(width, regime.kinds + CODEBOOK) if regime.local_loss else None
        self.texture = nn.Linear(width, CODEBOOK) if regime.texture_loss else None
        self.mask_token = nn.Parameter(torch.zeros(width)) if regime.masked else None
        self.query = None
        if regime.summary == "query":
            self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.enters = {"cls": 0, "late": regime.depth - 1}.get(regime.summary)
        self._start()

    def _start(self) -> None:
        """Scale the blocks' matrices, and take their biases away, where the regime asks for it."""
        blocks = self.backbone.vit.blocks
        if self.regime.gain != 1:
            for parameter in blocks.parameters():
                if parameter.ndim == 2:
                    parameter.data *= self.regime.gain
        if not self.regime.bias:
            for name, parameter in blocks.named_parameters():
                if name.endswith("bias"):
                    nn.init.zeros_(parameter).requires_grad_(False)

    def split(self, x_BND: Tensor, layer: int) -> Tokens:
        """Tokens after block `layer` (0 .. L - 1)."""
        cls = self.enters is not None and layer >= self.enters
        return split_tokens(x_BND, self.registers, cls=cls)

    def forward(
        self, images_B3HW: Tensor, mask_BP: Tensor | None = None, hidden_BP: Tensor | None = None
    ) -> Seen:
        """mask: patches that the mask token replaces. hidden: patches that no token may look at
        from the second block on (an ablation); they go on as queries."""
        vit = self.backbone.vit
        patches = vit.patch_embed(images_B3HW).flatten(1, 2)
        start = patches
        if mask_BP is not None:
            start = torch.where(mask_BP[..., None], self.mask_token, patches)
        start = start + vit.pos_embed
        x = start
        if self.registers:
            x = torch.cat([vit.reg_token.expand(len(x), -1, -1), x], 1)
        layers = []
        for number, block in enumerate(vit.blocks):
            if number == self.enters:
                x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1)
            allowed = None
            if hidden_BP is not None and number:
                allowed = in_sight(hidden_BP, x.shape[1])
            x = block(x, attn_mask=allowed)
            layers.append(x)
        return Seen(patches, start, layers, self.split(vit.norm(x), len(layers) - 1))

    def observe(self, images_B3HW: Tensor) -> Seen:
        """As forward, with each block's attention weights."""
        blocks = dict(enumerate(self.backbone.vit.blocks))
        with recorded_qkv(blocks) as projections:
            seen = self(images_B3HW)
        attention = []
        for number in blocks:
            q, k, _ = projections[number]
            attention.append((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1))
        return seen._replace(attention=attention)

    def summary(self, last: Tokens) -> Tensor:
        """(B, D), what the label is read from."""
        if self.regime.summary == "mean":
            return last.patches.mean(1)
        if self.query is None:
            return last.cls
        tokens = torch.cat([last.registers, last.patches], 1)
        return (self._weights(tokens)[..., None] * tokens).sum(1)

    def pool(self, last: Tokens) -> Tensor:
        """(B, R + P): the weights of the pooling query, registers first."""
        return self._weights(torch.cat([last.registers, last.patches], 1))

    def _weights(self, tokens_BND: Tensor) -> Tensor:
        return (tokens_BND @ self.query / self.regime.width**0.5).softmax(1)

    def losses(
        self, scenes: Scenes, mask_BP: Tensor | None, hidden_BP: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and accuracies of the batch: of the label, of "masked" objects, of
        the "texture" and of "local" answers, "triggered" ones among them."""
        regime = self.regime
        last = self(scenes.images, mask_BP, hidden_BP).last
        summary = self.summary(last)
        image, right = self._label_loss(self.label(summary), scenes)
        loss = regime.image_loss * image
        metrics = {"accuracy": right}
        if mask_BP is not None:
            target = torch.where(scenes.kinds < 0, regime.kinds, scenes.kinds)[mask_BP]
            guesses = self.kind(last.patches[mask_BP])
            loss = loss + F.cross_entropy(guesses, target)
            objects = target < regime.kinds
            metrics["masked"] = (guesses.argmax(1) == target)[objects].float().mean()
        if self.texture is not None:
            guesses = self.texture(summary)
            loss = loss + regime.texture_loss * F.cross_entropy(guesses, scenes.texture)
            metrics["texture"] = (guesses.argmax(1) == scenes.texture).float().mean()
        if self.content is not None:
            asked, triggered = local_targets(scenes, regime)
            shows = asked >= 0
            target = asked[shows]
            guesses = self.content(last.patches[shows])
            loss = loss + regime.local_loss * F.cross_entropy(guesses, target)
            right = (guesses.argmax(1) == target).float()
            metrics["local"] = right.mean()
            if regime.triggers:
                metrics["triggered"] = right[triggered[shows]].mean()
        return loss, metrics

    def _label_loss(self, logits: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
        """The label's loss and accuracy; of the task presence, the recall."""
        if self.regime.task != "presence":
            right = (logits.argmax(1) == scenes.label).float().mean()
            return F.cross_entropy(logits, scenes.label), right
        loss = F.binary_cross_entropy_with_logits(logits, scenes.present) * 10
        found = ((logits > 0) == (scenes.present > 0)) * scenes.present
        return loss, found.sum() / scenes.present.sum()

    # --- what the examination asks of a net

    @property
    def asked(self) -> str:
        """The metric that says how well the label is told; "" where no label is asked for."""
        if self.regime.image_loss:
            return "accuracy"
        return "triggered" if self.regime.triggers and self.regime.asks == "label" else ""

    def labels(self, scenes: Scenes) -> dict[str, Tensor]:
        """Name -> (B,): the label, or for presence a yes or no for some of the kinds."""
        if self.regime.task != "presence":
            return {"label": scenes.label}
        kinds = range(0, self.regime.kinds, 6)
        return {f"kind{kind}": scenes.present[:, kind].long() for kind in kinds}

    def knows(self, scenes: Scenes) -> Tensor:
        """(B, P): patches that know the label by what they show."""
        return (scenes.kinds >= 0) | local_targets(scenes, self.regime)[1]

    def pixels(self, scenes: Scenes) -> Tensor:
        """(B, P, K): what a patch shows, for the probe that reconstructs it."""
        return patchify(scenes.images, self.regime.patch)


def in_sight(hidden_BP: Tensor, tokens: int) -> Tensor:
    """(B, 1, 1, N), True where a token may be looked at: [CLS] and registers, which stand in
    front, always."""
    in_front = tokens - hidden_BP.shape[1]
    return F.pad(~hidden_BP, (in_front, 0), value=True)[:, None, None]


def local_targets(scenes: Scenes, regime: Regime) -> tuple[Tensor, Tensor]:
    """What the local loss asks of each patch, (B, P), -1 for nothing; and where that is not the
    patch's own content, (B, P)."""
    own = scenes.contents
    triggered = (own >= regime.kinds) & (own < regime.kinds + regime.triggers)
    grid = own.view(-1, regime.grid, regime.grid)
    left = grid.roll(1, dims=2).view_as(own)  # of the first in a row: the last
    other = left if regime.asks == "left" else scenes.label[:, None]
    return torch.where(triggered, other, own), triggered
