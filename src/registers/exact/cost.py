"""What registers cost: multiply-accumulates and parameters of a ViT, by formula. Exact.

Paper, appendix B and Fig. 12.
"""

from registers.measurements import Measured, Measurement
from registers.models.backbone import Architecture, swiglu_width
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

QUESTION = "cost"
COUNTS = (0, 1, 2, 4, 8, 16)  # paper, Figs. 8 and 12
PAPER = {  # "<2 % for 4 registers, up to 6 % for 16" (appendix B) is ViT-L/14 at 224 pixels
    "ViT-L/14@224": Architecture(width=1024, depth=24, heads=16, patch=14, image=224),
    "ViT-B/16@224": Architecture(width=768, depth=12, heads=12, patch=16, image=224),
}


def measure(subject: None, data: list[EvaluationSet], settings: Settings) -> Measured:
    return Measured(cost_rows(settings))


def ffn_width(a: Architecture) -> tuple[int, int]:
    """Columns of the first and rows of the second linear of the feed-forward part.

    SwiGLU: gate and value, then their product.
    """
    hidden = swiglu_width(a.width)
    return (2 * hidden, hidden) if a.ffn == "swiglu" else (4 * a.width, 4 * a.width)


def macs(a: Architecture, registers: int | None = None) -> int:
    """Multiply-accumulates of the blocks for one image; FLOPs are twice as many.

    Matrix products only, no norms, biases or activations: L (N (4 D^2 + F D) + 2 N^2 D), with
    N = 1 + R + P tokens, and F D = 8 D^2 for an MLP. The patch embedding, which registers do not
    change, is left out (`embedding_macs`: 0.1 % of ViT-L/14 at 224 pixels, 0.7 % of ViT-B/16).
    """
    registers = a.registers if registers is None else registers
    tokens = 1 + registers + a.grid[0] * a.grid[1]
    linears = (4 * a.width + sum(ffn_width(a))) * a.width  # q, k, v, the output, feed-forward
    return a.depth * (tokens * linears + 2 * tokens**2 * a.width)


def embedding_macs(a: Architecture) -> int:
    """Multiply-accumulates of the patch embedding: P 3 p^2 D."""
    return a.grid[0] * a.grid[1] * 3 * a.patch**2 * a.width


def parameters(a: Architecture, registers: int | None = None) -> int:
    """Parameters of the ViT without a classifier: each register adds D."""
    registers = a.registers if registers is None else registers
    d = a.width
    into, out = ffn_width(a)

    # --- a block
    norms = 2 * 2 * d
    attention = (3 * d * d + 3 * d) + (d * d + d)
    feed_forward = (d * into + into) + (out * d + d)
    scaled = a.layer_scale is not None or a.ffn == "swiglu"  # timm's SwiGLU family always is
    block = norms + attention + feed_forward + (2 * d if scaled else 0)

    # --- around the blocks
    embedding = 3 * a.patch**2 * d
    embedding += 2 * d if a.pre_norm else d  # a norm, or a bias: timm has no bias before a norm
    tokens = d + registers * d + a.grid[0] * a.grid[1] * d  # [CLS], registers, positions
    final_norm = 2 * d
    return embedding + tokens + a.depth * block + final_norm


def cost_rows(settings: Settings) -> list[Measurement]:
    """Rows for the paper's two models and this scale's own, which `data` names.

    "macs" and "params", and "macs_increase" and "params_increase" over the model without registers,
    as fractions, for 0, 1, 2, 4, 8, 16 and the settings' registers.
    """
    models = {name: (a, "the paper's size") for name, a in PAPER.items()}
    for recipe in settings.recipes.values():
        size = settings.sizes[recipe.size]
        a = Architecture(
            size.width,
            size.depth,
            size.heads,
            recipe.patch,
            settings.image_size,
            ffn=getattr(recipe, "ffn", "mlp"),
        )
        name = f"{recipe.size}/{recipe.patch}@{settings.image_size}"
        models[name] = (a, f"size of scale {settings.scale}")
    rows = []
    for name, (a, note) in models.items():
        for metric, count in (("macs", macs), ("params", parameters)):
            plain = count(a, 0)
            for r in sorted({*COUNTS, *settings.registers}):
                common = dict(data=name, coordinate="registers", at=r, note=note)
                increase = count(a, r) / plain - 1
                rows.append(Measurement(QUESTION, metric, "", count(a, r), **common))
                rows.append(Measurement(QUESTION, f"{metric}_increase", "", increase, **common))
    return rows
