"""Unsupervised object discovery (paper, section 3.3: Table 3, Figs. 13 and 14): LOST on facets of attention, CorLoc.

Images keep their own size and are padded with zeros, right and below, to whole patches (valeoai/LOST main_lost.py); images of the same
grid go together. The paper's bias on the Gram matrix is printed nowhere, so facet, layer, normalisation and bias are settings: rows
give LOST as published ("untuned") and with what does best on a declared other split ("tuned").
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from registers.data.sample import Dataset, Sample
from registers.data.usable import UsableSamples
from registers.evals.boxes import corloc, dino_seg, found, largest_box
from registers.evals.dense_transforms import resized
from registers.evals.lost import Lost, Normalisation, degrees, expand, lost, prepared, to_pixels
from registers.evals.zeroshot import wilson
from registers.measurements import Measurement
from registers.models.backbone import Backbone
from registers.settings.questions import DiscoverySettings
from registers.tokens import attention

__all__ = [
    "Choice",
    "Lost",
    "choices",
    "corloc",
    "dino_seg",
    "discover",
    "largest_box",
    "lost",
    "tune",
    "untuned",
]

FACETS = ("k", "q", "v")
PAPER_FACET = {
    "deit3": "v",
    "openclip": "v",
    "dinov2": "k",
}  # paper, section 3.3; LOST's own choice elsewhere: keys
WINDOW = 8  # batches read ahead, so that images of the same grid meet
SCALE_IMAGES = (
    8  # images on which a facet's mean squared norm is taken, the unit of a bias on raw features
)


@dataclass(frozen=True)
class Choice:
    """What LOST is run on. layer counts from the end (-1: last block). bias is added to the Gram matrix, in its own units."""

    facet: str = "k"
    layer: int = -1
    normalisation: Normalisation = "none"
    bias: float = 0.0

    def __str__(self) -> str:
        return f"facet {self.facet}, layer {self.layer}, normalisation {self.normalisation}, bias {self.bias:.4g}"


@dataclass
class Tally:
    """What one pass over a data set counted: for each image whether an object was found."""

    lost: np.ndarray  # (images, choices)
    heads: np.ndarray  # (images, heads, 2): DINO-seg, largest box
    whole: np.ndarray  # (images,): the box of the whole image
    fallbacks: np.ndarray  # (images, choices): the seed alone was the component
    left_out: str


def untuned(backbone: Backbone) -> Choice:
    """The published setting with the paper's facet: values for DeiT-III and OpenCLIP, keys for DINOv2; last layer, no bias."""
    return Choice(facet=PAPER_FACET.get(backbone.name.split("-")[0], "k"))


def choices(
    settings: DiscoverySettings, units: dict[tuple[str, int], float] | None = None
) -> list[Choice]:
    """The grid: every facet, layer, normalisation and bias. units: mean squared norm of raw features by (facet, layer); without, raw
    features get no bias but 0."""
    grid = []
    for facet, layer, name in itertools.product(
        settings.facets, settings.layers, settings.normalisations
    ):
        unit = 1.0 if name != "none" else (units or {}).get((facet, layer), 0.0)
        grid += [
            Choice(facet, layer, name, bias)
            for bias in dict.fromkeys(b * unit + 0.0 for b in sorted(settings.biases, key=abs))
        ]
    return grid


@torch.no_grad()
def look(
    backbone: Backbone, images_B3HW: Tensor, layers: Iterable[int]
) -> tuple[dict[tuple[str, int], Tensor], Tensor]:
    """Facets of patches, (facet, layer) -> (B, P, H * d), heads side by side; and where [CLS] looks in the last block, (B, H, P).

    k and q as attention takes them (after k_norm and q_norm where a model has them). Raises ValueError for a layer that is none.
    """
    blocks, layers = backbone.vit.blocks, sorted({*layers, -1})
    if layers[0] < -len(blocks) or layers[-1] > -1:
        raise ValueError(
            f"layers = {layers}: allowed are -{len(blocks)} to -1 for {backbone.name or 'this backbone'}"
        )
    seen: dict[int, Tensor] = {}
    hooks = [
        blocks[layer].attn.qkv.register_forward_hook(
            lambda module, args, out, layer=layer: seen.update({layer: out})
        )
        for layer in layers
    ]
    try:
        backbone.residual(images_B3HW)
    finally:
        for hook in hooks:
            hook.remove()
    facets, rows = {}, None
    for layer in layers:
        attn = blocks[layer].attn
        batch, tokens, _ = seen[layer].shape
        q, k, v = seen[layer].view(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = attn.q_norm(q), attn.k_norm(k)
        for facet, x in (("q", q), ("k", k), ("v", v)):
            facets[facet, layer] = backbone.split(
                x.transpose(1, 2).reshape(batch, tokens, -1)
            ).patches
        if layer == -1:
            cls = attention(q, k, [0])
            rows = backbone.split(cls.reshape(batch * attn.num_heads, tokens)).patches.view(
                batch, attn.num_heads, -1
            )
    return facets, rows


def padded(sample: Sample, patch: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(3, H, W) normalised image, zeros right and below up to whole patches."""
    pixels = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1).float() / 255
    x = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return torch.nn.functional.pad(x, (0, -x.shape[2] % patch, 0, -x.shape[1] % patch))


def batches(
    stream: Iterable[Sample], batch: int, patch: int
) -> Iterator[tuple[tuple[int, int], list[tuple[int, Sample]]]]:
    """Numbered samples of the same grid (h, w), at most `batch`; a window of WINDOW batches is held at a time, so memory stays flat."""
    numbered = enumerate(stream)
    while window := list(itertools.islice(numbered, batch * WINDOW)):
        groups = defaultdict(list)
        for number, sample in window:
            groups[-(-sample.image.height // patch), -(-sample.image.width // patch)].append(
                (number, sample)
            )
        for grid, group in groups.items():
            for start in range(0, len(group), batch):
                yield grid, group[start : start + batch]


class Shrunk:
    """A data set whose images have a short side of `short` pixels (bilinear), with their boxes."""

    def __init__(self, dataset: Dataset, short: int) -> None:
        self.dataset, self.short, self.part = dataset, short, getattr(dataset, "part", "")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        image = resized(sample.image, self.short)
        if sample.boxes is None:
            return replace(sample, image=image)
        ratio = np.divide(image.size, sample.image.size)
        return replace(
            sample, image=image, boxes=(sample.boxes * np.tile(ratio, 2)).astype(np.float32)
        )


def origin(dataset: Dataset | None) -> str:
    """A data set in a row's words, its folder and its split: "VOC2007 trainval"."""
    root = getattr(getattr(dataset, "whole", dataset), "root", None)
    return f"{root.name if root else type(dataset).__name__.lower()} {getattr(dataset, 'split', '')}".strip()


class Search:
    """LOST and the baselines over data sets, for one backbone."""

    def __init__(
        self,
        backbone: Backbone,
        settings: DiscoverySettings,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
    ):
        self.backbone, self.settings = backbone.to(device).eval(), settings
        self.mean, self.std, self.device = mean, std, device
        self.patch = backbone.architecture.patch

    def passes(
        self,
        dataset: Dataset,
        limit: int,
        layers: Iterable[int],
        most: int | None = None,
        progress: str = "",
    ):
        """(stream, batches) with each batch's (grid, numbered samples, facets, attention). most: so many usable images are enough."""
        stream = UsableSamples(dataset, limit, ["boxes"], progress)

        def run():
            for grid, group in batches(
                itertools.islice(stream, most), self.settings.batch, self.patch
            ):
                images = torch.stack(
                    [padded(sample, self.patch, self.mean, self.std) for _, sample in group]
                ).to(self.device)
                yield (grid, group, *look(self.backbone, images, layers))

        return stream, run()

    def units(self, dataset: Dataset) -> dict[tuple[str, int], float]:
        """Mean squared norm of raw features by facet and layer, over the first images."""
        sums, count = defaultdict(float), 0
        for _, group, facets, _ in self.passes(
            dataset, self.settings.tune_images, self.settings.layers, SCALE_IMAGES
        )[1]:
            count += len(group)
            for key, x in facets.items():
                sums[key] += float(x.float().square().sum(-1).mean(-1).sum())
        return {key: total / count for key, total in sums.items()}

    def count(
        self, dataset: Dataset, limit: int, candidates: Sequence[Choice], progress: str = ""
    ) -> Tally:
        """One pass: which choice and which head finds an object in which image."""
        stream, run = self.passes(dataset, limit, {c.layer for c in candidates}, progress=progress)
        shapes = [
            (len(candidates),),
            (self.backbone.vit.blocks[-1].attn.num_heads, 2),
            (),
            (len(candidates),),
        ]
        counts = [
            np.zeros((stream.limit, *shape), bool) for shape in shapes
        ]  # at once: pieces in between would scatter the heap
        by_features = defaultdict(list)
        for place, choice in enumerate(candidates):
            by_features[choice.facet, choice.layer, choice.normalisation].append((place, choice))
        for grid, group, facets, rows_BHP in run:
            sizes = np.array([sample.image.size for _, sample in group])
            truths = [sample.boxes for _, sample in group]
            hits = np.zeros((len(group), len(candidates)), bool)
            fallbacks = np.zeros_like(hits)
            for (facet, layer, name), members in by_features.items():
                x = prepared(facets[facet, layer], name)
                for (place, choice), degree in zip(
                    members, degrees(x, [choice.bias for _, choice in members])
                ):
                    steps = expand(x, degree, grid, self.settings.k, choice.bias)
                    fallbacks[:, place] = steps.fallback
                    hits[:, place] = [
                        found(*pair) for pair in zip(steps.pixels(self.patch, sizes), truths)
                    ]
            heads = np.zeros((len(group), rows_BHP.shape[1], 2), bool)
            for head, kind in itertools.product(range(rows_BHP.shape[1]), range(2)):
                boxes = (dino_seg, largest_box)[kind](rows_BHP.select(1, head), grid)
                heads[:, head, kind] = [
                    found(*pair) for pair in zip(to_pixels(boxes, self.patch, sizes), truths)
                ]
            whole = [found((0, 0, *size), truth) for size, truth in zip(sizes, truths)]
            for array, found_here in zip(counts, (hits, heads, whole, fallbacks)):
                array[[number for number, _ in group]] = found_here
        return Tally(*(array[: stream.used] for array in counts), left_out=stream.note())

    def steps(
        self, dataset: Dataset, count: int, choice: Choice, tuned: Choice | None, head: int
    ) -> dict[str, np.ndarray]:
        """All steps of LOST for a few images and each facet, for Figs. 13 and 14, and what else puts a box: small arrays, see `discover`.

        tuned: the choice with its own box, if there is one; head: DINO-seg's.
        """
        arrays: dict[str, np.ndarray] = {
            "backbone": np.array(self.backbone.name),
            "facets": np.array(FACETS),
            "facet": np.array(choice.facet),
            "patch": np.array(self.patch),
        }
        names: dict[int, str] = {}
        layers = {c.layer for c in (choice, tuned) if c}
        for grid, group, facets, rows_BHP in self.passes(
            dataset, self.settings.images, layers, count
        )[1]:
            sizes = np.array([sample.image.size for _, sample in group])
            others = {
                "dino_seg": to_pixels(dino_seg(rows_BHP.select(1, head), grid), self.patch, sizes)
            }
            if tuned:
                best = lost(
                    facets[tuned.facet, tuned.layer],
                    grid,
                    self.settings.k,
                    tuned.bias,
                    tuned.normalisation,
                )
                others["tuned"] = best.pixels(self.patch, sizes)
            for facet in FACETS:
                steps = lost(
                    facets[facet, choice.layer],
                    grid,
                    self.settings.k,
                    choice.bias,
                    choice.normalisation,
                )
                boxes = steps.pixels(self.patch, sizes)
                for place, (number, sample) in enumerate(group):
                    arrays |= {
                        f"{number}_{other}_box": found[place] for other, found in others.items()
                    }
                    one, key = steps[place], f"{number}_{facet}"
                    for step in (
                        "score",
                        "similarity",
                        "similars",
                        "expansion",
                        "mask",
                        "component",
                    ):
                        arrays[f"{key}_{step}"] = getattr(one, step).reshape(grid)
                    arrays[f"{key}_seed"], arrays[f"{key}_box"] = (
                        np.array(divmod(int(one.seed), grid[1])),
                        boxes[place],
                    )
                    arrays[f"{number}_rgb"], arrays[f"{number}_truths"] = (
                        np.asarray(sample.image),
                        sample.boxes,
                    )
                    names[number] = sample.name
        return arrays | {"names": np.array([names[n] for n in sorted(names)])}


def tune(
    search: Search, dataset: Dataset, progress: bool = True
) -> tuple[Choice, int, int, list[Choice], Tally]:
    """On the first tune_images of a declared split: the best choice, DINO-seg's and the largest box's best head, all choices, the counts.

    The first of equals wins, and the published settings (keys, last layer, no normalisation) come first where biases are equal.
    """
    candidates = choices(search.settings, search.units(dataset))
    tally = search.count(
        dataset, search.settings.tune_images, candidates, "tuning LOST" if progress else ""
    )
    heads, best = tally.heads.sum(axis=0), int(tally.lost.sum(axis=0).argmax())
    return candidates[best], int(heads[:, 0].argmax()), int(heads[:, 1].argmax()), candidates, tally


def discover(
    backbone: Backbone,
    dataset: Dataset,
    settings: DiscoverySettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    tune_on: Dataset | None = None,
    data: str = "",
    progress: bool = True,
) -> tuple[list[Measurement], dict[str, np.ndarray]]:
    """CorLoc of LOST, untuned and tuned, and of two baselines. Rows of question "discovery", in 0..1, n = images, Wilson's 95 % interval:

    - "corloc": `untuned`; "corloc_tuned": the best of `choices` on tune_on (absent without it); "corloc_choice": each choice there.
      token = facet, layer = 1..L, x = bias, note = the rest.
    - "corloc_dino_seg", "corloc_largest_box": from the best head's attention, x = head, chosen on tune_on (or, without, on these images).
    - chance of all: the box of the whole image.
    Arrays, for the first `settings.pictures` images i and each facet f, at the untuned setting: i_rgb, i_truths, i_f_score, i_f_similarity,
    i_f_similars, i_f_expansion, i_f_mask, i_f_component (h, w), i_f_seed (row, column), i_f_box (pixels); i_dino_seg_box and, tuned,
    i_tuned_box; names, backbone, data, facets, facet, patch (pixels). Images are whole, the maps go over them padded to whole patches.
    Images without a true box, or whose file cannot be used, are left out and counted in the notes.
    """
    data, declared = data or type(dataset).__name__.lower(), origin(tune_on)
    if settings.size:
        dataset, tune_on = (
            Shrunk(dataset, settings.size),
            None if tune_on is None else Shrunk(tune_on, settings.size),
        )
    search, published = Search(backbone, settings, mean, std, device), untuned(backbone)
    tuned, heads, where, tuning = None, None, "these images, as published", None
    if tune_on is not None:
        tuned, seg, box, candidates, tuning = tune(search, tune_on, progress)
        heads, where = (seg, box), f"{len(tuning.lost)} images of {declared}"
    chosen = [published] if tuned is None else [published, tuned]
    tally = search.count(dataset, settings.images, chosen, "LOST" if progress else "")
    by_head = tally.heads
    heads = heads or tuple(int(h) for h in by_head.sum(axis=0).argmax(axis=0))
    blocks = len(backbone.vit.blocks)

    def row(
        metric: str, hits: Sequence[bool], whole: Sequence[bool], note: str, **more
    ) -> Measurement:
        n, right = len(hits), int(np.sum(hits))
        low, high = wilson(right, n)
        common = dict(
            question="discovery",
            backbone=backbone.name,
            data=data,
            n=n,
            chance=float(np.mean(whole)),
        )
        return Measurement(
            metric=metric, value=right / n, low=low, high=high, note=note, **common, **more
        )

    def lost_row(metric: str, choice: Choice, counted: Tally, place: int, note: str) -> Measurement:
        fallbacks = int(counted.fallbacks[:, place].sum())
        note += f"{choice}; the seed alone in {fallbacks} images" if fallbacks else str(choice)
        where = dict(token=choice.facet, layer=blocks + 1 + choice.layer, x=choice.bias)
        return row(metric, counted.lost[:, place], counted.whole, note + counted.left_out, **where)

    rows = [lost_row("corloc", published, tally, 0, "untuned: ")]
    if tuned is not None:
        rows.append(
            lost_row(
                "corloc_tuned", tuned, tally, 1, f"tuned on {where}, best of {len(candidates)}: "
            )
        )
    for kind, metric in enumerate(("corloc_dino_seg", "corloc_largest_box")):
        note = f"head {heads[kind]} of {by_head.shape[1]}, chosen on {where}{tally.left_out}"
        rows.append(
            row(
                metric,
                by_head[:, heads[kind], kind],
                tally.whole,
                note,
                token="cls",
                layer=blocks,
                x=heads[kind],
            )
        )
    if tuned is not None:
        rows += [
            replace(
                lost_row("corloc_choice", c, tuning, i, "on the tuning split: "),
                data=f"{data} (tuning)",
            )
            for i, c in enumerate(candidates)
        ]
    if not settings.pictures:
        return rows, {}
    return rows, search.steps(dataset, settings.pictures, published, tuned, heads[0]) | {
        "data": np.array(data)
    }
