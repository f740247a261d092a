"""The ViT of the token world: small enough that one can say which part of it a sink replaces."""

import math
from typing import NamedTuple

import torch
from timm.layers import DropPath, LayerScale
from torch import Tensor, nn
from torch.nn import functional as F

from registers.models.sequence import Tokens, split_tokens
from registers.study.net import Seen, in_sight
from registers.study.tokens_world import NOTHING, TokenRegime, TokenScenes


class TokenAttention(nn.Module):
    """Multi-head attention whose weights can be looked at."""

    def __init__(self, regime: TokenRegime) -> None:
        super().__init__()
        self.heads, self.kind = regime.heads, regime.attention
        self.qkv = nn.Linear(regime.width, 3 * regime.width, bias=False)
        self.proj = nn.Linear(regime.width, regime.width, bias=regime.biases)
        size = regime.width // regime.heads
        self.spare = nn.Parameter(torch.zeros(regime.heads, 1, size)) if regime.spare_key else None

    def forward(
        self, x_BND: Tensor, allowed: Tensor | None = None, gain_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The update (B, N, D) and the weights (B, H, N, N) on tokens; a spare key's are cut off.

        allowed: broadcasts to (B, H, N, N), True where a query (third) may look at a token (last).
        gain: a factor on each token's value.
        """
        batch, tokens, width = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv
        if gain_N is not None:
            v = v * gain_N[:, None]
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -math.inf)
        if self.kind == "softmax":
            if self.spare is not None:
                spare = q @ self.spare.transpose(-1, -2) / math.sqrt(q.shape[-1])
                logits = torch.cat([logits, spare], -1)
            weights = logits.softmax(-1)[..., :tokens]
        elif self.kind == "sigmoid":
            # shifted by log N, so that a head starts as gently as softmax (Ramapuram et al., 2024)
            weights = torch.sigmoid(logits - math.log(tokens))
        else:
            weights = F.relu(logits) / tokens  # as in Wortsman et al., 2023
        update = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        return self.proj(update), weights

    def read(
        self, x_BND: Tensor, weights_BHNN: Tensor, tokens: slice, gain_N: Tensor | None = None
    ) -> Tensor:
        """The part of the update, (B, N, D), that comes from these tokens, without the bias."""
        batch, every, width = x_BND.shape
        values = self.qkv(x_BND).view(batch, every, 3, self.heads, -1)[:, tokens, 2].transpose(1, 2)
        if gain_N is not None:
            values = values * gain_N[tokens, None]
        update = (weights_BHNN[..., tokens] @ values).transpose(1, 2)
        return F.linear(update.reshape(batch, every, width), self.proj.weight)


class TokenBlock(nn.Module):
    """A pre-norm block; the first ones may lack attention, the last ones an MLP."""

    def __init__(self, regime: TokenRegime, number: int) -> None:
        super().__init__()
        attends = number >= regime.attends_from
        self.norm1 = nn.LayerNorm(regime.width) if attends else None
        self.attn = TokenAttention(regime) if attends else None
        self.mlp = None
        if number < regime.mlps:
            hidden = regime.hidden if number else regime.stem_hidden or regime.hidden
            self.mlp = nn.Sequential(
                nn.LayerNorm(regime.width),
                nn.Linear(regime.width, hidden, bias=regime.biases),
                nn.GELU() if regime.activation == "gelu" else nn.ReLU(),
                nn.Linear(hidden, regime.width, bias=regime.biases),
            )
        self.scale1, self.scale2 = (_scale(regime, part) for part in (self.attn, self.mlp))
        self.drop1, self.drop2 = (_drop(regime, part) for part in ("attention", "mlps"))

    def forward(
        self, x: Tensor, allowed: Tensor | None = None, gain_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream after the block, and its attention's weights, where it has any."""
        weights = None
        if self.attn is not None:
            update, weights = self.attn(self.norm1(x), allowed, gain_N)
            x = x + self.drop1(self.scale1(update))
        if self.mlp is not None:
            x = x + self.drop2(self.scale2(self.mlp(x)))
        return x, weights


def _scale(regime: TokenRegime, part: nn.Module | None) -> nn.Module:
    """What multiplies a part's update (Touvron et al., 2021)."""
    if part is None or not regime.layer_scale:
        return nn.Identity()
    return LayerScale(regime.width, init_values=regime.layer_scale)


def _drop(regime: TokenRegime, part: str) -> nn.Module:
    """What leaves a part's update out in a share of the scenes (Huang et al., 2016)."""
    if not regime.drop_path or regime.dropped not in ("both", part):
        return nn.Identity()
    return DropPath(regime.drop_path)


class LocalTask(NamedTuple):
    """logits (B, P, K); asked (B, P), NOTHING where a patch is not; loss: weighted, a scalar."""

    logits: Tensor
    asked: Tensor
    loss: Tensor


def local_accuracies(tasks: list[LocalTask], scenes: TokenScenes) -> dict[str, Tensor]:
    """Of "local" answers (all heads) and of the "triggered" ones among the second head's."""
    asked = torch.stack([task.asked for task in tasks])
    right = torch.stack([task.logits for task in tasks]).argmax(-1) == asked
    asks = asked != NOTHING
    return {
        "local": right[asks].float().mean(),
        "triggered": right[1][asks[1] & scenes.triggered].float().mean(),
    }


class TokenNet(nn.Module):
    """ViT and heads; tokens in timm's order: [CLS], where there is one, registers, patches."""

    def __init__(self, regime: TokenRegime, registers: int) -> None:
        super().__init__()
        self.regime, self.registers = regime, registers
        width = regime.width
        self.embed = nn.Linear(regime.channels, width)
        places = regime.position_norm * torch.randn(regime.grid**2, width) / width**0.5
        self.pos_embed = nn.Parameter(places)
        self.reg_token = nn.Parameter(0.02 * torch.randn(registers, width)) if registers else None
        self.enters = {"cls": 0, "late": regime.depth - 1}.get(regime.summary)
        self.cls_token = (
            nn.Parameter(0.02 * torch.randn(width)) if self.enters is not None else None
        )
        self.query = nn.Parameter(0.02 * torch.randn(width)) if self.enters is None else None
        self.norm_pre = nn.LayerNorm(width) if regime.embed_norm else nn.Identity()
        self.blocks = nn.ModuleList(TokenBlock(regime, number) for number in range(regime.depth))
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, regime.symbols)
        self.right = nn.Linear(width, regime.symbols)
        self.kept = nn.Linear(width, regime.symbols) if regime.kept else None
        self.label = nn.Linear(width, regime.classes)
        self.label_asked = self.local_asked = True  # a training may begin without either
        self._start()

    def _start(self) -> None:
        """Linear maps keep the variance; what is written to the residual stream is scaled down."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.blocks:
            for part in (block.attn and block.attn.proj, block.mlp and block.mlp[-1]):
                if part is not None:
                    part.weight.data *= (2 * self.regime.depth) ** -0.5

    def split(self, x_BND: Tensor, layer: int) -> Tokens:
        """Tokens after block `layer` (0 .. L - 1)."""
        cls = self.enters is not None and layer >= self.enters
        return split_tokens(x_BND, self.registers, cls=cls)

    def forward(
        self,
        images_BPC: Tensor,
        hidden_BP: Tensor | None = None,
        masked_BP: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Seen:
        """hidden: patches that no token may look at from the second block on (an ablation).
        masked: patches in whose place the mask token, (D,), enters."""
        patches = self.embed(images_BPC)
        if masked_BP is not None:
            patches = torch.where(masked_BP[..., None], mask_token, patches)
        late = self.regime.positions_from
        start = patches if late else patches + self.pos_embed
        x = start
        if self.registers:
            x = torch.cat([self.reg_token.expand(len(x), -1, -1), x], 1)
        x = self.norm_pre(x)
        layers, attention = [], []
        for number, block in enumerate(self.blocks):
            if number and number == late:
                in_front = x.shape[1] - len(self.pos_embed)
                x = x + F.pad(self.pos_embed, (0, 0, in_front, 0))
            if number == self.enters:
                x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], 1)
            x, weights = block(x, self.allowed(x, hidden_BP if number else None), self.gain(x))
            layers.append(x)
            attention.append(weights)
        last = self.split(self.norm(x), len(layers) - 1)
        return Seen(patches, start, layers, last, attention)

    observe = forward  # the weights are at hand anyway

    def allowed(self, x_BND: Tensor, hidden_BP: Tensor | None) -> Tensor | None:
        """Who may look at whom: broadcasts to (B, H, N, N), queries first; None: all at all."""
        tokens = x_BND.shape[1]
        allowed = None if hidden_BP is None else in_sight(hidden_BP, tokens)
        if self.registers and not self.regime.patches_see_registers:
            first = tokens - len(self.pos_embed)  # patch
            sight = torch.ones(tokens, tokens, dtype=torch.bool, device=x_BND.device)
            sight[first:, first - self.registers : first] = False
            allowed = sight if allowed is None else sight & allowed
        return allowed

    def gain(self, x_BND: Tensor) -> Tensor | None:
        """(N,), the factors on what is read from tokens; None: all are 1."""
        if not self.registers or self.regime.register_gain == 1:
            return None
        tokens = x_BND.shape[1]
        first = tokens - len(self.pos_embed)  # patch
        gain = torch.ones(tokens, dtype=x_BND.dtype, device=x_BND.device)
        gain[first - self.registers : first] = self.regime.register_gain
        return gain

    def summary(self, last: Tokens, unread_BP: Tensor | None = None) -> Tensor:
        """(B, D), what the label is read from. unread: patches left out by the pooling query."""
        if self.query is None:
            return last.cls
        tokens = torch.cat([last.registers, last.patches], 1)
        return (self.pool(last, unread_BP)[..., None] * tokens).sum(1)

    def pool(self, last: Tokens, unread_BP: Tensor | None = None) -> Tensor:
        """(B, R + P): the weights of the pooling query, registers first; 0 on unread patches."""
        logits = torch.cat([last.registers, last.patches], 1) @ self.query
        if unread_BP is not None:
            unread = F.pad(unread_BP, (self.registers, 0), value=False)
            logits = logits.masked_fill(unread, -math.inf)
        return logits.softmax(1)

    def answers(self, summary_BD: Tensor, scenes: TokenScenes) -> Tensor:
        """(B, G, K): the logits of each label."""
        return self.label(summary_BD).unflatten(1, (scenes.labels.shape[1], -1)).transpose(1, 2)

    def losses(
        self, scenes: TokenScenes, mask_BP: None = None, hidden_BP: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and accuracies: of the labels, of "local" answers (all heads) and
        of the "triggered" ones among them. No patch is ever masked in this world."""
        last = self(scenes.images, hidden_BP).last
        logits = self.answers(self.summary(last), scenes)
        loss = self.regime.label * self.label_asked * F.cross_entropy(logits, scenes.labels)
        tasks = self.local(last.patches, scenes)
        for task in tasks:
            loss = loss + task.loss
        if torch.is_grad_enabled():  # a step of the optimiser wants no accuracies and pays for them
            return loss, {}
        accuracy = (logits.argmax(1) == scenes.labels).float().mean()
        return loss, {"accuracy": accuracy, **local_accuracies(tasks, scenes)}

    def local(self, patches_BPD: Tensor, scenes: TokenScenes) -> list[LocalTask]:
        """What patches are asked, after the final norm."""
        heads = [
            (self.right, scenes.right, self.regime.right),
            (self.own, scenes.own, self.regime.own),
        ]
        if self.kept is not None:
            heads.append((self.kept, scenes.kept, self.regime.kept))
        tasks = []
        for head, asked, weight in heads:
            logits = head(patches_BPD)
            loss = F.cross_entropy(logits.transpose(1, 2), asked, ignore_index=NOTHING)
            tasks.append(LocalTask(logits, asked, weight * self.local_asked * loss))
        return tasks

    # --- what the examination asks of a net

    def unread(self, scenes: TokenScenes, unread_BP: Tensor) -> float:
        """The label's accuracy where the pooling query leaves some patches out."""
        answers = self.answers(self.summary(self(scenes.images).last, unread_BP), scenes)
        return float((answers.argmax(1) == scenes.labels).float().mean())

    asked = "accuracy"

    def labels(self, scenes: TokenScenes) -> dict[str, Tensor]:
        return {f"label{number}": told for number, told in enumerate(scenes.labels.unbind(1), 1)}

    def knows(self, scenes: TokenScenes) -> Tensor:
        """(B, P): patches that know the label by what they show."""
        return scenes.marked

    def pixels(self, scenes: TokenScenes) -> Tensor:
        """(B, P, C): what a patch shows, for the probe that reconstructs it."""
        return scenes.images
