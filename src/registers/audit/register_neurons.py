"""Which neurons to move: FindRegisterNeurons of Jiang et al. 2025 (arXiv 2506.08010).

Outliers are told by their norm after one layer; a neuron's score is its mean |activation| at them,
averaged over images that have some; the highest scores of all layers up to a highest one are
moved. The paper names the two layers, the cut-off and the count for each model by hand. Those are
`PUBLISHED`. For any other model they follow from the audit, see `own_choice` and `fewest`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from registers.audit import inside
from registers.audit.errors import AuditError
from registers.audit.inside import NeuronRow
from registers.audit.verdict import AuditVerdict, LayerRow, percent
from registers.audit.watched import AuditBank
from registers.outliers import MIN_RATIO

MOST = 256  # neurons that are moved at most
LEFT = 0.05  # of the outliers may stay: what "taken away" means when neurons are counted

Neurons = tuple[tuple[int, int], ...]  # (layer from 1, neuron), highest score first


@dataclass(frozen=True)
class Published:
    """What the authors chose for one model.

    names: a pattern of the names that it goes by. detect: the layer whose norms tell outliers,
    from the end; cutoff: of norms there; highest: the last layer whose neurons are moved, from 0 as
    in the source; top: how many. None where the source does not say.
    """

    names: str
    detect: int
    cutoff: float
    highest: int
    top: int | None
    source: str


# Settings in the files configs/*.yaml of nickjiang2378/test-time-registers at 860df43.
_CONFIGS = "nickjiang2378/test-time-registers, configs"
PUBLISHED = (
    Published(
        r"(hf-hub:timm/)?vit_large_patch14_dinov2(\.lvd142m)?(@\w+)?|dinov2_vitl14",
        detect=-2,
        cutoff=150.0,
        highest=17,
        top=50,
        source=f"{_CONFIGS}/dinov2_large.yaml",
    ),
    Published(
        r"(hf-hub:timm/)?vit_base_patch16_clip_(quickgelu_)?224\.openai(@\w+)?"
        r"|open_clip:ViT-B-16(-quickgelu)?/openai",
        detect=-1,
        cutoff=30.0,
        highest=5,
        top=10,
        source=f"{_CONFIGS}/openai_clip_base.yaml",
    ),
    Published(
        r"(hf-hub:timm/)?vit_base_patch16_clip_224\.laion2b(@\w+)?"
        r"|open_clip:ViT-B-16/laion2b_s34b_b88k",
        detect=-1,
        cutoff=30.0,
        highest=5,
        top=10,
        source=f"{_CONFIGS}/openclip_base.yaml",
    ),
    Published(
        r"(hf-hub:timm/)?vit_large_patch14_clip_224\.laion2b(@\w+)?"
        r"|open_clip:ViT-L-14/laion2b_s32b_b82k",
        detect=-2,
        cutoff=150.0,
        highest=14,
        top=None,
        source=f"{_CONFIGS}/openclip_large.yaml",
    ),
)


@dataclass(frozen=True)
class NeuronSearch:
    """Where neurons are sought.

    layer: from 1, whose norms tell outliers, by `cutoff`; mask: (B, P), which patches they are.
    highest: the last layer, from 1, whose neurons may be moved. top: how many; None: `fewest`.
    source: who chose.
    """

    layer: int
    cutoff: float
    mask: np.ndarray
    highest: int
    top: int | None
    source: str


def choice(bank: AuditBank, rows: list[LayerRow], verdict: AuditVerdict) -> NeuronSearch:
    """That of the authors for their models, else the audit's own.

    Raises AuditError where no patch is an outlier.
    """
    for published in PUBLISHED:
        if re.fullmatch(published.names, bank.card.name):
            return _of_authors(bank, published)
    return own_choice(rows, verdict)


def own_choice(rows: list[LayerRow], verdict: AuditVerdict) -> NeuronSearch:
    """From the audit: the layer in which outliers stand out most, and its own cut-off.

    Neurons are sought up to the layer in which they reach half their height. Raises AuditError
    where no patch is an outlier.
    """
    if not verdict.outliers:
        raise AuditError("no outliers, nothing to move: norms of patches have one mode")
    return NeuronSearch(
        layer=verdict.layer,
        cutoff=rows[verdict.layer - 1].cutoff,
        mask=verdict.mask,
        highest=inside.neuron_layers(rows, verdict)[-1],
        top=None,
        source="the audit's own cut-off and layers",
    )


def _of_authors(bank: AuditBank, published: Published) -> NeuronSearch:
    layer = bank.layers + 1 + published.detect
    mask = bank.patch_norms(layer) > published.cutoff
    if not mask.any():
        raise AuditError(
            f"no outliers, nothing to move: no patch has a norm above {published.cutoff:.0f} after "
            f"layer {layer} ({published.source})"
        )
    return NeuronSearch(
        layer=layer,
        cutoff=published.cutoff,
        mask=mask,
        highest=published.highest + 1,
        top=published.top,
        source=published.source,
    )


def candidates(bank: AuditBank, chosen: NeuronSearch) -> list[NeuronRow]:
    """Neurons by score, highest first: as many as were chosen, else at most `MOST`.

    Without a number from the authors only those that are at least twice as active at outliers as at
    other patches: a neuron that always fires writes no outlier.
    """
    layers = tuple(range(1, chosen.highest + 1))
    if chosen.top is not None:
        return inside.neurons(bank, chosen.mask, layers, chosen.top)
    rows = inside.neurons(bank, chosen.mask, layers, MOST)
    return [row for row in rows if row.at_outliers >= MIN_RATIO * row.elsewhere]


def standing_out(norms_BP: np.ndarray, mask_BP: np.ndarray, cutoff: float) -> float:
    """The share of patches that are outliers once neurons were moved.

    Any patch above the cut-off, and of those that were outliers (mask) also one whose norm is still
    at least twice the median of the others.
    """
    still = mask_BP & (norms_BP >= MIN_RATIO * np.median(norms_BP[~mask_BP]))
    return float((still | (norms_BP > cutoff)).mean())


def fewest(ranked: Neurons, left: Callable[[Neurons], float], of: float) -> Neurons:
    """The fewest of the ranked neurons that take outliers away.

    left: the share of patches that are outliers once some neurons are moved; of: that before. Their
    number is doubled until at most one in twenty is left, then halved back. Where all of them leave
    more, the number that left fewest is taken. Raises AuditError where that is over a half.
    """
    if not ranked:
        raise AuditError("no neuron is twice as active at outliers as at other patches: none moves")
    tried: dict[int, float] = {}
    count = 1
    while not tried or min(tried.values()) > LEFT * of:
        if len(ranked) in tried:  # none is enough
            return ranked[: _best(tried, of)]
        count = min(count, len(ranked))
        tried[count] = left(ranked[:count])
        count *= 2

    # --- the fewest lie above the last number that did not do
    low, enough = [0, *tried][-2:]
    while enough - low > 1:
        middle = (low + enough) // 2
        if left(ranked[:middle]) <= LEFT * of:
            enough = middle
        else:
            low = middle
    return ranked[:enough]


def _best(tried: dict[int, float], of: float) -> int:
    """The number of neurons that left fewest outliers, the smallest of equals."""
    count = min(tried, key=tried.get)
    if tried[count] > of / 2:
        raise AuditError(
            f"the {max(tried)} neurons that are most active at outliers do not write them: moved, "
            f"they leave {percent(tried[count])} of patches as outliers, of {percent(of)}"
        )
    return count
