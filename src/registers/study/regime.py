"""A regime: all that a run of the study depends on, and the sweep that `workflow/scales/emergence.yaml` makes of regimes."""

from typing import Literal

from pydantic import Field

from registers.settings.base import Section
from registers.settings.errors import ConfigError

CONDITIONS = ("second_mode", "redundant", "global_not_local", "registers_take_over")


class Regime(Section):
    """Scenes, task, ViT and optimisation of one training. One change of one of these is one variant of the study.

    Scenes: `grid` x `grid` patches of `patch` pixels; `objects` (fewest, most) patches show one of shapes x colours kinds, the rest is
    background: one colour, a gradient, noise, one texture ("tiled"), or a texture of its own in each patch ("texture") but for some
    plain ones. plain: their share; plain_at: on one side, another in every image, or the four corners, where objects never are
    (photographers' bias). tile: contrast of a pattern, new in every image, that all plain patches show (0: they show one colour).
    contrast: standard deviation of noise and textures; an object's colour differs from the background by about 1.

    task, with the label that it gives a scene:
    - "pair": one kind appears twice, all others once; the label is that kind.
    - "presence": which kinds appear, each a yes or no (the label for probes is the most frequent colour).
    - "latent": the scene belongs to one of `latents` classes, each a random set of 4 kinds; objects are drawn from it.
    - "sum": one object has the first shape and one the second; the label is the sum of their colours' numbers, modulo the colours. Both
      have to be brought together before anything about the label can be said.

    Losses: image_loss: weight of the label's. masked: share of patches hidden behind a mask token, whose kinds are predicted (as iBOT
    does). local_loss: weight of a loss in every patch that shows something: its own kind or texture has to stay readable there.
    triggers: of the textures, this many ask the local loss for something else than their own content: their left neighbour's or the
    label (`asks`). A head has to be active there and dormant elsewhere (the bigram-backcopy task of Guo et al., 2024, on patches).
    texture_loss: weight of a loss for the texture of a "tiled" background, read where the label is.

    ViT: summary: where the label is read: "cls", "late" ([CLS] joins the patches only before the last block), "mean" of the patches or
    "query" (attention pooling over patches and registers), the last two without any [CLS]. bias: whether the blocks have biases; without
    them a constant can only come from a token. gain: factor on the blocks' weight matrices at the start. timm starts them with standard
    deviation 0.02 at any width, so that a ViT of width 64 begins with nearly uniform attention, where one of width 1024 does not.
    """

    world: Literal["scenes"] = "scenes"
    grid: int = Field(6, ge=2)
    patch: int = Field(4, ge=2)
    shapes: int = Field(6, ge=1)
    colours: int = Field(6, ge=1)
    objects: tuple[int, ...] = (4, 8)
    background: Literal["flat", "gradient", "noise", "texture", "tiled"] = "gradient"
    plain: float = Field(0.2, ge=0)
    plain_at: Literal["side", "corners"] = "side"
    contrast: float = Field(0.35, ge=0)
    tile: float = Field(0.0, ge=0)
    task: Literal["pair", "presence", "latent", "sum"] = "pair"
    latents: int = Field(32, ge=2)
    masked: float = Field(0.0, ge=0)
    local_loss: float = Field(0.0, ge=0)
    triggers: int = Field(0, ge=0)
    asks: Literal["left", "label"] = "left"
    texture_loss: float = Field(0.0, ge=0)
    image_loss: float = Field(1.0, ge=0)
    summary: Literal["cls", "late", "mean", "query"] = "cls"
    width: int = Field(64, ge=4)
    depth: int = Field(4, ge=1)
    heads: int = Field(2, ge=1)
    ffn: Literal["mlp", "swiglu"] = "mlp"
    layer_scale: float = Field(0.0, ge=0)
    bias: bool = True
    gain: float = Field(1.0, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, ge=0)
    beta2: float = Field(0.999, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, ge=0)
    warmup: int = Field(200, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    steps: int = Field(5000, ge=1)
    batch: int = Field(32, ge=1)

    @property
    def kinds(self) -> int:
        return self.shapes * self.colours

    @property
    def classes(self) -> int:
        """Outputs of the label's head."""
        return {"latent": self.latents, "sum": self.colours}.get(self.task, self.kinds)


def check(regime: Regime, key: str = "study.base") -> None:
    """What the types alone cannot say; raises ConfigError."""
    if len(regime.objects) != 2 or not 2 <= regime.objects[0] <= regime.objects[1] <= min(
        regime.grid**2, regime.kinds
    ):
        raise ConfigError(
            f"{key}.objects = {list(regime.objects)}: allowed are fewest and most, from 2 to {min(regime.grid**2, regime.kinds)}"
        )
    if regime.plain_at == "corners" and regime.objects[1] > regime.grid**2 - 4:
        raise ConfigError(
            f"{key}.objects = {list(regime.objects)}: allowed are at most {regime.grid**2 - 4} beside plain corners"
        )
    if regime.texture_loss and regime.background != "tiled":
        raise ConfigError(
            f'{key}.texture_loss = {regime.texture_loss}: allowed is 0 unless background = "tiled"'
        )
    if regime.task == "sum" and regime.shapes < 3:
        raise ConfigError(
            f"{key}.shapes = {regime.shapes}: allowed are at least 3 for the task sum"
        )
    if regime.width % regime.heads:
        raise ConfigError(
            f"{key}.heads = {regime.heads}: allowed are divisors of width {regime.width}"
        )
    if regime.warmup > regime.steps:
        raise ConfigError(
            f"{key}.warmup = {regime.warmup}: allowed are at most its {regime.steps} steps"
        )
    if regime.plain > 1 or regime.masked >= 1:
        raise ConfigError(
            f"{key}.plain = {regime.plain}, masked = {regime.masked}: allowed are shares below 1"
        )
