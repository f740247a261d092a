"""FLOPs and parameters of a training, by formula: what `registers plan` multiplies up.

Matrix products only, as `exact.cost` counts them, and without torch, so that Snakemake's rules may
ask too. A multiply-accumulate is two FLOPs; a backward pass is two forward passes.
tests/test_flops.py holds the formulas against torch's own counter.
"""

from dataclasses import dataclass

from registers.settings.backbone_id import BackboneId
from registers.settings.recipes import DistillationRecipe, Recipe
from registers.settings.run import Settings

TRAINED = 3  # forward passes that forward and backward make
KEPT = 0.25  # share of the patches that MAE's encoder reads (methods/mae.py, MASK_RATIO)
MASKED = 0.3  # patches that iBOT's heads read, in views: one of two is masked, by 0.1 to 0.5
TEXT_VOCABULARY = 49408  # models/text.py, VOCABULARY; fewer where the recipe says "corpus"


@dataclass(frozen=True)
class Blocks:
    """Transformer blocks without what enters and leaves them."""

    width: int
    depth: int
    ffn: str = "mlp"

    @property
    def linears(self) -> int:
        """Weights of the linears of one block."""
        return 4 * self.width**2 + self._feed_forward

    @property
    def parameters(self) -> int:
        return self.depth * self.linears

    def macs(self, tokens: float) -> float:
        """Multiply-accumulates of all blocks for a sequence, as `exact.cost.macs`."""
        return self.depth * (tokens * self.linears + 2 * tokens**2 * self.width)

    def summary_macs(self, tokens: float) -> float:
        """Those of `Backbone.summary`: the last block asks for one token, keys and values aside."""
        before = Blocks(self.width, self.depth - 1, self.ffn).macs(tokens)
        keys_and_values = 2 * self.width**2
        last = tokens * keys_and_values + (self.linears - keys_and_values) + 2 * tokens * self.width
        return before + last

    @property
    def _feed_forward(self) -> int:
        if self.ffn == "mlp":
            return 8 * self.width**2
        hidden = (8 * self.width // 3 + 7) // 8 * 8  # models.backbone.swiglu_width
        return 3 * self.width * hidden


def backbone_blocks(settings: Settings, id: BackboneId) -> Blocks:
    """The blocks of a backbone of this run."""
    recipe = settings.recipes[id.method]
    size = settings.sizes[id.size or recipe.size]
    return Blocks(size.width, size.depth, getattr(recipe, "ffn", "mlp"))


def forward_flops(settings: Settings, id: BackboneId, side: int) -> float:
    """FLOPs of one forward pass over an image of side x side pixels, patch embedding included."""
    blocks = backbone_blocks(settings, id)
    patch = settings.recipes[id.method].patch
    patches = (side // patch) ** 2
    embedding = patches * 3 * patch**2 * blocks.width
    return 2 * (embedding + blocks.macs(1 + id.registers + patches))


def training_flops(settings: Settings, id: BackboneId) -> float:
    """FLOPs per image of a training step: forward and backward, teacher and heads included."""
    recipe = settings.recipes[id.method]
    return 2 * MACS[id.method](_View(settings, id), recipe)


@dataclass(frozen=True)
class _View:
    """One crop of an image on its way through the backbone."""

    settings: Settings
    id: BackboneId

    @property
    def blocks(self) -> Blocks:
        return backbone_blocks(self.settings, self.id)

    def patches(self, side: int = 0) -> int:
        patch = self.settings.recipes[self.id.method].patch
        return ((side or self.settings.image_size) // patch) ** 2

    def tokens(self, side: int = 0) -> int:
        return 1 + self.id.registers + self.patches(side)

    def embedding(self, side: int = 0) -> float:
        patch = self.settings.recipes[self.id.method].patch
        return self.patches(side) * 3 * patch**2 * self.blocks.width

    def full(self, passes: int, side: int = 0) -> float:
        """All tokens. passes: 1 forward, 3 with backward; images get no gradient."""
        embedding = min(passes, TRAINED - 1) * self.embedding(side)
        return passes * self.blocks.macs(self.tokens(side)) + embedding

    def summary(self, passes: int, side: int = 0) -> float:
        """[CLS] alone, as `Backbone.summary` computes it."""
        embedding = min(passes, TRAINED - 1) * self.embedding(side)
        return passes * self.blocks.summary_macs(self.tokens(side)) + embedding


# --- the methods ----------------------------------------------------------------------------------


def _deit3(view: _View, recipe: Recipe) -> float:
    return view.summary(TRAINED)


def _openclip(view: _View, recipe: Recipe) -> float:
    text = Blocks(recipe.text_width, recipe.text_depth)
    projections = (view.blocks.width + recipe.text_width) * recipe.embed
    pairs = 2 * recipe.batch * recipe.embed  # the logits, images by texts and back
    return view.summary(TRAINED) + TRAINED * (text.macs(recipe.context) + projections + pairs)


def _dino(view: _View, recipe: DistillationRecipe) -> float:
    locals_ = recipe.local_crops
    head = _head(view.blocks.width, recipe, recipe.bottleneck)
    student = 2 * view.summary(TRAINED) + locals_ * view.summary(TRAINED, recipe.local_size)
    teacher = 2 * view.summary(1)
    return student + teacher + head * (TRAINED * (2 + locals_) + 2)


def _dinov2(view: _View, recipe: DistillationRecipe) -> float:
    locals_ = recipe.local_crops
    width = view.blocks.width
    cls_head = _head(width, recipe, recipe.dino_bottleneck)
    patch_head = _head(width, recipe, recipe.ibot_bottleneck)
    student = 2 * view.full(TRAINED) + locals_ * view.summary(TRAINED, recipe.local_size)
    teacher = 2 * view.full(1)
    masked = MASKED * view.patches()
    heads = cls_head * (TRAINED * (2 + locals_) + 2) + patch_head * masked * (TRAINED + 1)
    return student + teacher + heads


def _mae(view: _View, recipe: Recipe) -> float:
    patches = view.patches()
    kept = int(patches * KEPT)
    encoder = TRAINED * view.blocks.macs(1 + view.id.registers + kept)
    embedding = (TRAINED - 1) * view.embedding()
    decoder = Blocks(recipe.decoder_width, recipe.decoder_depth).macs(1 + patches)
    joints = (1 + kept) * view.blocks.width * recipe.decoder_width
    pixels = (patches - kept) * recipe.decoder_width * 3 * recipe.patch**2
    return encoder + embedding + TRAINED * (decoder + joints + pixels)


def _head(width: int, recipe: DistillationRecipe, bottleneck: int) -> int:
    """Multiply-accumulates of models.heads.DinoHead for one token, which are its parameters."""
    hidden = recipe.head_hidden
    return width * hidden + hidden**2 + hidden * bottleneck + bottleneck * recipe.prototypes


MACS = {"deit3": _deit3, "openclip": _openclip, "dinov2": _dinov2, "dino": _dino, "mae": _mae}


# --- parameters -----------------------------------------------------------------------------------


def backbone_parameters(settings: Settings, id: BackboneId) -> int:
    """Weights of the ViT's linears, embedding and positions; norms and biases (1 %) left out."""
    view = _View(settings, id)
    around = view.embedding() / view.patches() + view.tokens() * view.blocks.width
    return int(view.blocks.parameters + around)


def trained_parameters(settings: Settings, id: BackboneId) -> int:
    """Parameters that get a gradient: backbone, heads, text tower, decoder."""
    recipe = settings.recipes[id.method]
    width = backbone_blocks(settings, id).width
    extra = 0
    if id.method == "openclip":
        extra = Blocks(recipe.text_width, recipe.text_depth).parameters
        extra += recipe.text_width * (TEXT_VOCABULARY if recipe.vocabulary == "full" else 500)
    elif id.method == "dinov2":
        extra = _head(width, recipe, recipe.dino_bottleneck)
        extra += _head(width, recipe, recipe.ibot_bottleneck)
    elif id.method == "dino":
        extra = _head(width, recipe, recipe.bottleneck)
    elif id.method == "mae":
        extra = Blocks(recipe.decoder_width, recipe.decoder_depth).parameters
    return backbone_parameters(settings, id) + extra


def has_teacher(id: BackboneId) -> bool:
    """Whether a second copy of all weights follows the trained one."""
    return id.method in ("dinov2", "dino")
