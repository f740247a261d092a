"""What registers cost: multiply-accumulates and parameters of a ViT, by formula (paper, appendix B and Fig. 12). Exact."""

from registers.measurements import Measurement
from registers.models.backbone import Architecture
from registers.settings.run import Settings

COUNTS = (0, 1, 2, 4, 8, 16)  # paper, Figs. 8 and 12
PAPER = {  # "<2 % for 4 registers, up to 6 % for 16" (appendix B) is ViT-L/14 at 224 pixels
    "ViT-L/14@224": Architecture(width=1024, depth=24, heads=16, patch=14, image=224),
    "ViT-B/16@224": Architecture(width=768, depth=12, heads=12, patch=16, image=224),
}


def ffn_width(a: Architecture) -> tuple[int, int]:
    """Columns of the first and rows of the second linear of the feed-forward part (SwiGLU: gate and value, then their product)."""
    hidden = (int(a.width * 4 * 2 / 3) + 7) // 8 * 8
    return (2 * hidden, hidden) if a.ffn == "swiglu" else (4 * a.width, 4 * a.width)


def macs(a: Architecture, registers: int | None = None) -> int:
    """Multiply-accumulates of the blocks for one image: matrix products only, no norms, biases or activations.

    L (N (4 D^2 + F D) + 2 N^2 D), N = 1 + R + P tokens; F D = 8 D^2 for an MLP. FLOPs are twice as many. The patch embedding, which
    registers do not change, is left out (`embedding_macs`: 0.1 % of ViT-L/14 at 224 pixels, 0.7 % of ViT-B/16).
    """
    registers = a.registers if registers is None else registers
    tokens, (into, out) = 1 + registers + a.grid[0] * a.grid[1], ffn_width(a)
    block = tokens * (4 * a.width**2 + (into + out) * a.width) + 2 * tokens**2 * a.width
    return a.depth * block


def embedding_macs(a: Architecture) -> int:
    """Multiply-accumulates of the patch embedding: P 3 p^2 D."""
    return a.grid[0] * a.grid[1] * 3 * a.patch**2 * a.width


def parameters(a: Architecture, registers: int | None = None) -> int:
    """Parameters of the ViT without a classifier: each register adds D."""
    registers, d = a.registers if registers is None else registers, a.width
    into, out = ffn_width(a)
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * into + into) + (out * d + d)
    block += (
        2 * d if a.layer_scale is not None or a.ffn == "swiglu" else 0
    )  # timm's SwiGLU family always has LayerScale
    embed = (
        3 * a.patch**2 * d + (0 if a.pre_norm else d) + (2 * d if a.pre_norm else 0)
    )  # timm: no bias before a norm
    tokens = d + registers * d + a.grid[0] * a.grid[1] * d  # [CLS], registers, positions
    return embed + tokens + a.depth * block + 2 * d


def cost_rows(settings: Settings) -> list[Measurement]:
    """question "cost", data = model (the paper's two and this scale's own), x = registers, for 0, 1, 2, 4, 8, 16 and the settings'.

    Metrics: "macs", "params", and "macs_increase", "params_increase" over the model without registers, as fractions.
    """
    models = {name: (a, "the paper's size") for name, a in PAPER.items()}
    for recipe in settings.recipes.values():
        size = settings.sizes[recipe.size]
        a = Architecture(
            size.width, size.depth, size.heads, recipe.patch, settings.image_size, ffn=size.ffn
        )
        models[f"{recipe.size}/{recipe.patch}@{settings.image_size}"] = (
            a,
            f"size of scale {settings.scale}",
        )
    rows = []
    for name, (a, note) in models.items():
        for metric, count in (("macs", macs), ("params", parameters)):
            plain = count(a, 0)
            for r in sorted({*COUNTS, *settings.registers}):
                common = dict(question="cost", backbone="", data=name, x=r, note=note)
                rows.append(Measurement(metric=metric, value=count(a, r), **common))
                rows.append(
                    Measurement(
                        metric=f"{metric}_increase", value=count(a, r) / plain - 1, **common
                    )
                )
    return rows
