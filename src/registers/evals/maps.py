"""Small arrays for pictures: attention, norms and principal components of a few images.

Figs. 1, 2, 8, 9, 16-21. Letters: M images, Q queries, H heads, h x w patches down and across.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registers.data.transforms import evaluation
from registers.evals.map_statistics import overlap, peak, roughness, top_count
from registers.measurements import Measured, Measurement
from registers.models.backbone import Backbone
from registers.models.sequence import split_tokens
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings
from registers.tokens import Capture, attention, capture, central_patch

QUESTION = "maps"
COMPONENTS = 3  # Fig. 17 shows three, as red, green and blue
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # a normalization that changes nothing


def measure(backbone: Backbone, data: list[EvaluationSet], settings: Settings) -> Measured:
    """Maps of the first validation images, and what they show in numbers."""
    images = data[0].val
    samples = [images[i] for i in range(min(settings.maps.images, len(images)))]
    arrays = image_maps(
        backbone,
        [sample.image for sample in samples],
        settings.maps.size,
        names=[sample.name for sample in samples],
    )
    rows = map_rows(arrays, layer=len(backbone.vit.blocks), data=data[0].name)
    return Measured(rows, arrays)


def map_rows(maps: dict[str, np.ndarray], layer: int, data: str) -> list[Measurement]:
    """What the pictures show, as numbers: one row for each image (`at`).

    Of the attention of each query (token) to the patches:
    - "attention_over_uniform": the largest over the uniform share, 1 / P.
    - "attention_peak": the largest over the median. Artifacts are single patches that get many
      times what most get.
    - "attention_share_2": what the 2 % most attended patches get of what goes to patches.

    Of [CLS], head by head (variant "head 0"...): "head_peak", as attention_peak. Over all heads,
    "least_head_on_norms" and "range_of_heads_on_norms": the least of attention_on_norms (below) of
    a head, and how far the highest lies above it.
    Of all patches:
    - "norm_peak": the largest norm over the median.
    - "attention_on_norms": share of the 2 % most attended patches ([CLS]) that are among the 2 % of
      highest norm; chance is that 2 %.
    - "component_peak": the largest distance of the first principal component from its mean, in
      standard deviations; "component_roughness": its mean squared step between neighbours over
      that of patches in random order (0: smooth, 1: no order).
    Of registers: "map_correlation", the mean correlation of the maps of two of them.

    maps: of `image_maps`. layer: whose attention they show. data: the data set's name.
    """
    rows = []

    def add(metric: str, values: np.ndarray, token: str, **more) -> None:
        for image, value in enumerate(values):
            row = Measurement(
                QUESTION,
                metric,
                str(maps["backbone"]),
                float(value),
                data=data,
                token=token,
                layer=layer,
                coordinate="image",
                at=image,
                n=patches,
                **more,
            )
            rows.append(row)

    # --- attention
    attended = maps["attention"].reshape(*maps["attention"].shape[:2], -1).astype(np.float64)
    patches = attended.shape[-1]
    names = [str(query) for query in maps["queries"]]
    for number, query in enumerate(names):
        of_query = attended[:, number]
        add("attention_over_uniform", of_query.max(-1) / of_query.mean(-1), query)
        add("attention_peak", peak(of_query), query)
        top = np.sort(of_query, axis=-1)[:, -top_count(patches) :]
        add("attention_share_2", top.sum(-1) / of_query.sum(-1), query)
    heads = maps["heads"].reshape(*maps["heads"].shape[:2], -1).astype(np.float64)
    for head in range(heads.shape[1]):
        add("head_peak", peak(heads[:, head]), "cls", variant=f"head {head}")

    norms = maps["norms"].reshape(len(maps["norms"]), -1).astype(np.float64)
    on_norms = np.stack([overlap(heads[:, head], norms) for head in range(heads.shape[1])])
    add("least_head_on_norms", on_norms.min(0), "cls")
    add("range_of_heads_on_norms", on_norms.max(0) - on_norms.min(0), "cls")

    # --- norms and components
    add("norm_peak", peak(norms), "patch")
    chance = top_count(patches) / patches
    add("attention_on_norms", overlap(attended[:, 0], norms), "cls", chance=chance)
    first = maps["components"][:, 0].astype(np.float64)
    add("component_peak", np.abs(first).max((1, 2)), "patch")
    add("component_roughness", roughness(first), "patch")

    # --- registers
    registers = [number for number, query in enumerate(names) if query.startswith("reg")]
    if len(registers) > 1:
        pairs = np.triu_indices(len(registers), 1)
        correlations = [np.corrcoef(image)[pairs].mean() for image in attended[:, registers]]
        add("map_correlation", np.array(correlations), "registers")
    return rows


def maps_of(
    captured: Capture, final_MND: Tensor, registers: int, grid: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Every map of the images of one capture, float32.

    final_MND: their tokens after the final norm, for the components.

    "queries" (Q,): names: cls, reg0.., patch (the central one).
    "attention" (M, Q, h, w): their attention to the patches in the last block, mean over heads
    (Figs. 1, 2, 8, 9, 16, 19). Rows are the softmax over all tokens, so a map sums to the share
    that goes to patches.
    "heads" (M, H, h, w): attention of [CLS], head by head (Fig. 18).
    "norms" (M, h, w) of patches and "prefix_norms" (M, 1 + R) of [CLS] and registers: after the
    last block, before the final norm (Fig. 21).
    "components" (M, 3, h, w): principal components of each image's patches, whitened, see
    `components` (Figs. 17, 20).
    """
    h, w = grid
    queries = [*range(1 + registers), 1 + registers + central_patch(grid)]
    rows = attention(captured.q, captured.k, queries)  # (M, H, Q, N)
    images, heads, count, tokens = rows.shape
    to_patches = split_tokens(rows.reshape(-1, tokens), registers).patches
    to_patches = to_patches.reshape(images, heads, count, h, w)
    norms = split_tokens(captured.norms[:, -1], registers)
    prefix = torch.cat([norms.cls[:, None], norms.registers], dim=1)
    patches = _numpy(split_tokens(final_MND, registers).patches)
    return {
        "queries": np.array(["cls", *(f"reg{r}" for r in range(registers)), "patch"]),
        "attention": _numpy(to_patches.mean(1)),
        "heads": _numpy(to_patches[:, :, 0]),
        "norms": _numpy(norms.patches).reshape(images, h, w),
        "prefix_norms": _numpy(prefix),
        "components": np.stack([components(x, grid) for x in patches]),
    }


def components(
    patches_PD: np.ndarray, grid: tuple[int, int], count: int = COMPONENTS
) -> np.ndarray:
    """(count, h, w) leading principal components of one feature map, whitened.

    Each has mean 0 and variance 1 over its patches, so a colour range of -3 to 3 is the +-3 sigma
    of Fig. 20. A component's sign is free; the rule here: the mean over the patches at the border
    is not above 0, as a picture's border is mostly background. Components beyond the rank are 0.
    """
    x = np.asarray(patches_PD, dtype=np.float64)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    maps = np.zeros((count, len(x)))
    kept = min(count, int((s > 1e-7 * max(s[0], 1e-12)).sum()))
    maps[:kept] = u[:, :kept].T * np.sqrt(len(x))
    maps = maps.reshape(count, *grid)
    border = np.ones(grid, dtype=bool)
    border[1:-1, 1:-1] = False
    maps[maps[:, border].mean(1) > 0] *= -1
    return maps.astype(np.float32)


@torch.no_grad()
def image_maps(
    backbone: Backbone, images: Sequence[Image.Image], size: int, names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """`maps_of` for a few images, with "rgb" (M, size, size, 3) uint8, "names" (M,) and "backbone".

    backbone: in evaluation mode.
    images: resized and cut as in evaluation. They go one by one, so memory stays that of one.
    size: pixels, a multiple of the patch. Above the training resolution, for maps "in high
        resolution" (Fig. 1), position embeddings are interpolated.
    names: of the images; default: their numbers.

    Raises ValueError: no image, a size that is no multiple of the patch, names not as many as the
    images.
    """
    patch = backbone.architecture.patch
    if not images or size < patch or size % patch:
        raise ValueError(
            f"{len(images)} images at size {size}: "
            f"must be at least one, at a multiple of the patch, {patch}"
        )
    names = list(names) or [str(i) for i in range(len(images))]
    if len(names) != len(images):
        raise ValueError(f"{len(names)} names for {len(images)} images: must be equal numbers")
    by_image = [_maps_of_one(backbone, image, size) for image in images]
    maps = {key: np.concatenate([maps[key] for maps in by_image]) for key in by_image[0]}
    maps["queries"] = by_image[0]["queries"]
    return maps | {"names": np.array(names), "backbone": np.array(backbone.name)}


def _maps_of_one(backbone: Backbone, image: Image.Image, size: int) -> dict[str, np.ndarray]:
    """Maps and pixels of one image, M = 1."""
    patch = backbone.architecture.patch
    captured = capture(backbone, backbone.look(image, size)[None].to(backbone.device))
    final = backbone.vit.norm(captured.outputs)
    maps = maps_of(captured, final, backbone.registers, (size // patch, size // patch))
    pixels = evaluation(size, normalization=PLAIN)(image).clamp(0, 1) * 255
    rgb = pixels.round().byte().permute(1, 2, 0)[None].numpy()
    return maps | {"rgb": rgb}


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
