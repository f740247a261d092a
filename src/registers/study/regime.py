"""A regime: all that a run of the study depends on. There are two worlds, scenes and tokens."""

import math
from typing import Any, Literal

from pydantic import Field

from registers.settings.base import Section, build
from registers.settings.errors import nearest, refusal

CONDITIONS = ("second_mode", "redundant", "global_not_local", "registers_take_over")
CARRIERS = ("cls", "redundant", "other", "register")  # tokens that may keep a label


class Regime(Section):
    """Scenes, task, ViT and optimisation of one training in the world of drawn scenes.

    Scenes. grid x grid patches of `patch` pixels. `objects` (fewest, most) patches show one of
    shapes x colours kinds, the rest is background: one colour, a gradient, noise, one texture
    ("tiled"), or a texture of its own in each patch ("texture") except for some plain ones.
    plain: their share; plain_at: on one side, another in every image, or the four corners, where
    objects never are (photographers' bias). tile: contrast of a pattern, new in every image, that
    all plain patches show (0: they show one colour). contrast: standard deviation of noise and
    textures; an object's colour differs from the background by about 1.

    task, with the label that it gives a scene:
    - "pair": one kind appears twice, all others once; the label is that kind.
    - "presence": which kinds appear, each a yes or no (the label for probes is the most frequent
      colour).
    - "latent": the scene belongs to one of `latents` classes, each a random set of 4 kinds;
      objects are drawn from it.
    - "sum": one object has the first shape and one the second; the label is the sum of their
      colours' numbers, modulo the colours. Both have to be brought together before anything about
      the label can be told.

    Losses. image_loss: weight of the label's. masked: share of patches hidden behind a mask token,
    whose kinds are predicted (as iBOT does). local_loss: weight of a loss in every patch that
    shows something: its own kind or texture has to stay readable there. triggers: of the textures,
    this many ask the local loss for something other than their own content: their left neighbour's
    or the label (`asks`). A head has to be active there and dormant elsewhere (the bigram-backcopy
    task of Guo et al., 2024, on patches). texture_loss: weight of a loss for the texture of a
    "tiled" background, read where the label is.

    ViT. summary: where the label is read: "cls", "late" ([CLS] joins the patches only before the
    last block), "mean" of the patches or "query" (attention pooling over patches and registers),
    the last two without any [CLS]. bias: whether the blocks have biases; without them a constant
    can only come from a token. gain: factor on the blocks' weight matrices at the start. timm
    starts them with standard deviation 0.02 at any width, so that a ViT of width 64 begins with
    nearly uniform attention, where one of width 1024 does not.
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


class TokenRegime(Section):
    """Scenes, ViT and optimisation of one training in the token world.

    Scenes. grid: patches down and across. channels: numbers that make a patch. symbols, codes:
    how many there are of each. signed: whether each patch shows its symbol's vector or the
    opposite one, at random, so that no linear map can read it. echo: whether the right half of
    each row repeats the left half's symbols, so that a masked patch can be told from another.
    blanks: patches of which nothing is asked; blanks_at: "random", "together", side by side in one
    row, which is a ring, or as an "area", the squarest rectangle. content: what a blank shows
    besides its mark, with norm `noise`: the vector of a random "symbol", Gaussian "noise" of its
    own, noise "shared" by all blanks of the scene, or one symbol that all blanks of the scene
    show, as a "tile". mark: norm of the blanks' mark. keys: patches that carry a code, each
    with a mark of its own; labels: their codes are "one" label, as an ordered list, or "each" is a
    label of its own. holders: of a single code, how many patches carry it, as a
    thing in a photo fills several. triggers: share of patches that carry the trigger mark.
    appearance: all vectors are random directions ("vectors"), or pictures of 8 x 8 pixels
    ("glyphs", see `tokens_world`), or scenes are the built-in world's ("drawn", see
    `tokens_drawn`), of which a training sees `pictures`, symbols are visual words, codes are
    kinds of things, and nothing else above applies; background_asked: whether the local tasks are
    asked of patches without a thing, too. paper: norm of the grain that every patch has besides.
    texture: norm of a pattern that all patches of a scene show, blank or not. alike: how many
    scenes of a batch in a row show the same but for a few symbols and some labels, as near
    duplicates in a crawl do.

    Losses. own, right: weights of the two local losses. kept: weight of a third, through a head of
    its own, which asks every patch for its own symbol whether it has a trigger or not, so that no
    patch but a blank has room to spare. label: weight of the label's. They are asked from steps
    `local_from` and `label_from` on. objective: these "tasks", or in their place the loss of one of
    the paper's methods (`tokens_methods`). Of these, "dino" (one of DINOv2's two) and "captions"
    (OpenCLIP's, with captions of the labels alone) take the place of the label's loss alone, "ibot"
    (the other of DINOv2's) that of the local ones alone. masked: share of patches that its masks
    hide; ibot: whether its loss asks the "masked" patches, as published, or "every" patch of a view
    with masks; views: whether the second view is of the same "scene", with other textures and
    grain, or of another that has the same "label" alone, as two crops of a photo share what it
    shows and not their details; prototypes: of each of its two heads.

    ViT. Pre-norm; biases: whether attention's output and MLPs have them. summary: where the label
    is read, by attention pooling with one learned "query" over all tokens, from "cls", or from a
    [CLS] that joins "late", before the last block. hidden: units of each MLP; stem_hidden: those of
    the first block's, where they differ. layer_scale: start of LayerScale's factors (0: without).
    drop_path: share of scenes in which a block's attention is left out in training, and its MLP
    (stochastic depth, the same in all blocks, as in DINOv2); dropped: or one of the two alone.
    attends_from: the first block that has attention; the blocks before are an MLP stem. mlps:
    blocks that have an MLP, from the first on. attention: the weights' non-linearity. spare_key:
    whether each head has one more, learned key whose value is 0 (an explicit way to do nothing).
    patches_see_registers: whether patches may look at registers, which look at all tokens and are
    read by query or [CLS] in any case. register_gain: a factor on what attention brings from
    registers, whose weights it leaves as they are. embed_norm: LayerNorm after the embedding and
    position. positions_from: the block before which positions are added; a block before it sees
    contents only. position_norm: of a position at the start of training.
    """

    world: Literal["tokens"] = "tokens"
    grid: int = Field(5, ge=2)
    channels: int = Field(64, ge=8)
    symbols: int = Field(48, ge=2)
    codes: int = Field(8, ge=2)
    signed: bool = False
    echo: bool = False
    blanks: int = Field(2, ge=1)
    blanks_at: Literal["random", "together", "area"] = "random"
    content: Literal["symbol", "noise", "shared", "tile"] = "symbol"
    noise: float = Field(1.0, ge=0)
    mark: float = Field(1.0, ge=0)
    keys: int = Field(1, ge=1, le=16)
    labels: Literal["one", "each"] = "one"
    holders: int = Field(1, ge=1)
    triggers: float = Field(0.3, ge=0)
    appearance: Literal["vectors", "glyphs", "drawn"] = "vectors"
    pictures: int = Field(20000, ge=1000)
    background_asked: bool = True
    paper: float = Field(0.0, ge=0)
    texture: float = Field(0.0, ge=0)
    alike: int = Field(1, ge=1)
    own: float = Field(1.0, ge=0)
    right: float = Field(1.0, ge=0)
    kept: float = Field(0.0, ge=0)
    label: float = Field(1.0, ge=0)
    label_from: int = Field(0, ge=0)
    local_from: int = Field(0, ge=0)
    objective: Literal["tasks", "deit3", "openclip", "captions", "dinov2", "dino", "ibot"] = "tasks"
    masked: float = Field(0.0, ge=0)
    ibot: Literal["masked", "every"] = "masked"
    views: Literal["scene", "label"] = "scene"
    prototypes: int = Field(512, ge=2)
    summary: Literal["query", "cls", "late"] = "query"
    width: int = Field(48, ge=4)
    depth: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    hidden: int = Field(6, ge=1)
    stem_hidden: int = Field(0, ge=0)
    biases: bool = False
    layer_scale: float = Field(0.0, ge=0)
    drop_path: float = Field(0.0, ge=0)
    dropped: Literal["both", "attention", "mlps"] = "both"
    attends_from: int = Field(1, ge=0)
    mlps: int = Field(99, ge=0)
    activation: Literal["gelu", "relu"] = "gelu"
    attention: Literal["softmax", "relu", "sigmoid"] = "softmax"
    spare_key: bool = False
    patches_see_registers: bool = True
    register_gain: float = Field(1.0, ge=0)
    embed_norm: bool = False
    positions_from: int = Field(0, ge=0)
    position_norm: float = Field(1.0, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(4e-3, ge=0)
    beta2: float = Field(0.99, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, ge=0)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "constant"] = "constant"
    steps: int = Field(3000, ge=1)
    batch: int = Field(32, ge=1)

    @property
    def asked(self) -> int:
        """Labels that a picture is asked."""
        return self.keys if self.labels == "each" else 1

    @property
    def classes(self) -> int:
        """Outputs of the label's head, or heads."""
        if self.labels == "each":
            return self.codes * self.keys
        return self.codes**self.keys


def check(regime: Regime, key: str) -> None:
    """What the types alone cannot express; raises ConfigError."""
    cells = regime.grid**2
    most = min(cells, regime.kinds)
    if len(regime.objects) != 2 or not 2 <= regime.objects[0] <= regime.objects[1] <= most:
        must = f"the fewest and the most, from 2 to {most}"
        raise refusal(f"{key}.objects", list(regime.objects), must)
    if regime.plain_at == "corners" and regime.objects[1] > cells - 4:
        must = f"at most {cells - 4} beside plain corners"
        raise refusal(f"{key}.objects", list(regime.objects), must)
    if regime.texture_loss and regime.background != "tiled":
        raise refusal(f"{key}.texture_loss", regime.texture_loss, "0 unless background is tiled")
    if regime.task == "sum" and regime.shapes < 3:
        raise refusal(f"{key}.shapes", regime.shapes, "at least 3 for the task sum")
    if regime.plain > 1:
        raise refusal(f"{key}.plain", regime.plain, "at most 1")
    if regime.masked >= 1:
        raise refusal(f"{key}.masked", regime.masked, "below 1")
    _check_training(regime, key)


def check_tokens(regime: TokenRegime, key: str) -> None:
    """What the types alone cannot express; raises ConfigError."""
    if regime.holders > 1 and regime.keys > 1:
        raise refusal(f"{key}.holders", regime.holders, "1 beside several keys")
    carry = max(regime.keys, regime.holders)
    most = regime.grid if regime.blanks_at == "together" else regime.grid**2 - 1 - carry
    if regime.blanks > most:
        raise refusal(f"{key}.blanks", regime.blanks, f"at most {most}")
    if regime.blanks_at == "area":
        down = math.isqrt(regime.blanks)
        if regime.blanks % down or regime.blanks // down > regime.grid:
            raise refusal(f"{key}.blanks", regime.blanks, "a rectangle, as 2, 4, 6 or 9, that fits")
    if regime.attends_from >= regime.depth:
        raise refusal(f"{key}.attends_from", regime.attends_from, f"below depth {regime.depth}")
    if regime.positions_from >= regime.depth:
        raise refusal(f"{key}.positions_from", regime.positions_from, f"below depth {regime.depth}")
    for name in ("label_from", "local_from"):
        if getattr(regime, name) >= regime.steps:
            must = f"below its {regime.steps} steps"
            raise refusal(f"{key}.{name}", getattr(regime, name), must)
    if regime.echo and regime.grid % 2:
        raise refusal(f"{key}.grid", regime.grid, "even where rows echo")
    masks = regime.objective in ("dinov2", "ibot")
    if (regime.masked > 0) != masks or regime.masked >= 1:
        must = "between 0 and 1 for dinov2 and ibot, 0 otherwise"
        raise refusal(f"{key}.masked", regime.masked, must)
    if regime.drop_path >= 1:
        raise refusal(f"{key}.drop_path", regime.drop_path, "below 1")
    if regime.dropped != "both" and not regime.drop_path:
        raise refusal(f"{key}.dropped", regime.dropped, "both where drop_path is 0")
    if regime.labels == "one" and regime.keys > 2:
        raise refusal(f"{key}.keys", regime.keys, "at most 2 where they are one label")
    if regime.ibot == "every" and not masks:
        raise refusal(f"{key}.ibot", regime.ibot, f"masked for {regime.objective}")
    if regime.appearance == "glyphs" and round(regime.channels**0.5) ** 2 != regime.channels:
        raise refusal(f"{key}.channels", regime.channels, "a square for glyphs")
    if regime.appearance == "drawn":
        only = dict(channels=192, codes=10, keys=1, alike=1, objective="tasks")
        for name, must in only.items():
            if getattr(regime, name) != must:
                raise refusal(f"{key}.{name}", getattr(regime, name), f"{must} for drawn scenes")
    _check_training(regime, key)


def _check_training(regime: Regime | TokenRegime, key: str) -> None:
    if regime.width % regime.heads:
        raise refusal(f"{key}.heads", regime.heads, f"a divisor of width {regime.width}")
    if regime.warmup > regime.steps:
        raise refusal(f"{key}.warmup", regime.warmup, f"at most its {regime.steps} steps")


AnyRegime = Regime | TokenRegime

WORLDS = {"scenes": (Regime, check), "tokens": (TokenRegime, check_tokens)}


def regime_of(values: dict[str, Any], key: str) -> AnyRegime:
    """The checked regime of plain values; `world` tells which kind. Raises ConfigError."""
    name = values.get("world", "scenes")
    if name not in WORLDS:
        raise refusal(f"{key}.world", name, f"scenes or tokens{nearest(name, WORLDS)}")
    kind, checked = WORLDS[name]
    regime = build(kind, values, key)
    checked(regime, key)
    return regime
