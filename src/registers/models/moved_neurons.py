"""Registers without training: tokens added at test time take over what some neurons write.

Jiang, Dravid, Efros and Gandelsman, "Vision Transformers Don't Need Trained Registers"
(arXiv 2506.08010). Tokens of zeros enter the first block; in every block that has register neurons,
each of these neurons has its activation of largest magnitude over all tokens at the added tokens,
and zero at the patches. Nothing is trained, no weight is changed.

The added tokens lie where timm's own registers do, behind the prefix tokens and before the patches.
Jiang et al. put them at the end: attention does not know the difference, as they have no position.

Letters: B images, N tokens, D channels, F neurons of an MLP, K of them register neurons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from registers.models.backbone import Backbone
from registers.vocabulary import added

TEST_TIME = "test_time_registers"  # of a checkpoint's card: its recipe
# Counts of prefix tokens that models keep: timm's two, and that of DINOv2's own code.
_COUNTS = ("num_prefix_tokens", "num_reg_tokens", "num_register_tokens")


@dataclass(frozen=True)
class MoveRecipe:
    """All that turns a model into one with test-time registers.

    registers: how many tokens are added. neurons: (layer from 1, neuron), most active first.
    source_sha256: of the weights it was made for. found: how the neurons were chosen, for readers.
    """

    registers: int
    neurons: tuple[tuple[int, int], ...]
    source_sha256: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "MoveRecipe":
        """From the json of `asdict`."""
        neurons = tuple((int(layer), int(neuron)) for layer, neuron in content["neurons"])
        return cls(**{**content, "neurons": neurons})

    def words(self) -> str:
        """4 neurons of layers 6 to 7 moved to 1 test-time register."""
        layers = sorted(self.by_layer()) or [0]
        where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        count = len(self.neurons)
        neurons = f"{count} neuron{'s' if count > 1 else ''} of {where}"
        return f"{neurons} moved to {added(self.registers)}"

    def by_layer(self) -> dict[int, list[int]]:
        """Neurons of each layer, layers from 1 and in order."""
        layers: dict[int, list[int]] = {}
        for layer, neuron in sorted(self.neurons):
            layers.setdefault(layer, []).append(neuron)
        return layers


class ZeroTokens:
    """A pre-hook of the first block: adds `count` tokens of zeros behind the first `behind`."""

    def __init__(self, behind: int, count: int) -> None:
        self.behind = behind
        self.count = count

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x_BND, *others = inputs
        zeros = x_BND.new_zeros(len(x_BND), self.count, x_BND.shape[-1])
        parts = x_BND[:, : self.behind], zeros, x_BND[:, self.behind :]
        return torch.cat(parts, dim=1), *others


class TakenOff:
    """A hook behind the blocks of a model that knows of no registers: takes the tokens off."""

    def __init__(self, behind: int, count: int) -> None:
        self.behind = behind
        self.count = count

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], x_BND: Tensor) -> Tensor:
        return torch.cat([x_BND[:, : self.behind], x_BND[:, self.behind + self.count :]], dim=1)


class MovedNeurons:
    """A pre-hook of an MLP's last linear layer: moves some of its inputs to the added tokens.

    There the activations are after the non-linearity (GELU, QuickGELU) and, in gated MLPs, after
    the gate. [CLS] and a model's own registers keep theirs. neurons: indices, may be set anew.
    behind, count: where the added tokens are.
    """

    def __init__(self, neurons: Sequence[int], behind: int, count: int) -> None:
        self.neurons = list(neurons)
        self.behind = behind
        self.count = count

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        patches = self.behind + self.count
        x_BNF = inputs[0]
        if not self.neurons or x_BNF.shape[1] <= patches:  # [CLS] alone: `Backbone.summary`
            return None
        x_BNK = x_BNF[..., self.neurons]
        highest = x_BNK.amax(dim=1, keepdim=True)
        lowest = x_BNK.amin(dim=1, keepdim=True)
        x_BNF = x_BNF.clone()
        x_BNF[:, self.behind : patches, self.neurons] = torch.where(
            -lowest > highest, lowest, highest
        )
        x_BNF[:, patches:, self.neurons] = 0
        return (x_BNF,)


class PrefixPositions:
    """A hook of `state_dict`: gives prefix tokens the positions that a file must have, zeros."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        position_1PD = state[f"{prefix}pos_embed"]
        zeros = position_1PD.new_zeros(1, self.count, position_1PD.shape[-1])
        state[f"{prefix}pos_embed"] = torch.cat([zeros, position_1PD], dim=1)


def add_tokens(trunk: nn.Module, blocks: Sequence[nn.Module], behind: int, count: int) -> None:
    """Let `count` tokens of zeros enter the first block, and have the model count them as prefix.

    In place. trunk: the module that holds the blocks. behind: prefix tokens that it has. What it
    pools over patches and splits off as prefix is right by its own code from then on.
    """
    _free_positions(trunk)
    blocks[0].register_forward_pre_hook(ZeroTokens(behind, count))
    for name in _COUNTS:
        if hasattr(trunk, name):
            setattr(trunk, name, getattr(trunk, name) + count)
    for block in blocks:  # rotary positions are for tokens behind these
        for part in block.modules():
            if hasattr(part, "num_prefix_tokens"):
                part.num_prefix_tokens += count
    trunk.added_registers = count


def apply_to_backbone(backbone: Backbone, recipe: MoveRecipe) -> Backbone:
    """Give a backbone its test-time registers, in place; `backbone.registers` counts them."""
    blocks = tuple(backbone.vit.blocks)
    behind = 1 + backbone.registers  # [CLS] first
    add_tokens(backbone.vit, blocks, behind, recipe.registers)
    for layer, neurons in recipe.by_layer().items():
        mover = MovedNeurons(neurons, behind, recipe.registers)
        blocks[layer - 1].mlp.fc2.register_forward_pre_hook(mover)
    return backbone


def _free_positions(trunk: nn.Module) -> None:
    """Add the positions of prefix tokens to the tokens themselves, where sizes may change.

    timm resamples positions by its count of prefix tokens, which is about to grow. In place; the
    sums are those that the forward pass would make.
    """
    if not getattr(trunk, "dynamic_img_size", False) or getattr(trunk, "no_embed_class", True):
        return
    if trunk.pos_embed is None:
        return
    position_1ND = trunk.pos_embed.detach()
    start = 0
    for name in ("cls_token", "dist_token", "reg_token"):
        token = getattr(trunk, name, None)
        if token is not None:
            end = start + token.shape[1]
            token.data = token.data + position_1ND[:, start:end]
            start = end
    trunk.pos_embed = nn.Parameter(position_1ND[:, start:].clone(), trunk.pos_embed.requires_grad)
    trunk.no_embed_class = True
    trunk.register_state_dict_post_hook(PrefixPositions(start))
