"""From norms to a verdict in words. Pure functions on arrays; needs no torch.

A table by layer with every definition of "outlier" that is in use, side by side; from which layer
on patches stand out; where in the image; whether the final norm hides it.

Letters: B images, L layers, N tokens, P patches.
"""

from dataclasses import dataclass

import numpy as np

from registers.audit.errors import AuditError
from registers.audit.layout import TokenLayout
from registers.outliers import MIN_RATIO, MIN_TOKENS, Cutoff, find_cutoff

# The cut-off of the paper, picked for DINOv2 ViT-g (section 2.1, Fig. 3); Jiang et al. 2025 use it
# for DINOv2-L's last but one layer.
PAPER_CUTOFF = 150.0
# Baxevanakis et al. 2026 (arXiv 2603.25803) call the highest 2 % of norms outliers.
QUANTILE = 0.98


@dataclass(frozen=True)
class LayerRow:
    """Norms after one block, over all images; shares are of patches.

    cutoff: the model's own (`outliers.find_cutoff`), None where norms have one mode; share: above
    it; ratio: the median above it over the median of all.
    above_150, percentile_98, massive_share: the field's other definitions.
    cls, distilled, registers (trained ones), added (at test time): medians; None where there is no
    such token.
    stand_out: median norm of the model's outliers (told where they stand out most) over that of the
    other patches, here; None where the model has no outliers.
    normed_*: behind the model's final norm; None where it has none.
    """

    layer: int
    median: float
    percentile_98: float
    maximum: float
    cutoff: float | None
    share: float
    ratio: float | None
    reason: str
    above_150: float
    massive_share: float
    massive_tokens: int
    cls: float | None
    distilled: float | None
    registers: float | None
    added: float | None
    stand_out: float | None
    normed_median: float | None
    normed_maximum: float | None
    normed_cutoff: float | None
    normed_share: float | None
    normed_stand_out: float | None


@dataclass(frozen=True)
class Places:
    """Where in the image outliers lie.

    border_share: of outliers, at the image's edge; border_expected: of all patches.
    texture: median standard deviation of the pixels of outliers over that of other patches; below
    1, outliers lie on flat patches; None without pixels.
    frequency: (h, w), in what share of images a patch is an outlier. None without a grid.
    """

    border_share: float | None
    border_expected: float | None
    texture: float | None
    frequency: np.ndarray | None


@dataclass(frozen=True)
class AuditVerdict:
    """Whether a model has outliers, and what there is to say of them.

    outliers: in any layer; at_output: after the last block, where the paper measures.
    layer: where they stand out most, from 1; onset, until: first and last layer of the run around
    it in which their median norm is at least twice that of other patches. None without outliers.
    share: of patches, at `layer`; ratio: their median norm over the median of all, there.
    mask: (B, P), which patches are outliers, told at `layer`.
    words: the verdict in one sentence; details: further sentences.
    """

    outliers: bool
    at_output: bool
    layers: int
    layer: int | None
    onset: int | None
    until: int | None
    share: float
    ratio: float | None
    hidden_by_norm: bool | None
    words: str
    details: tuple[str, ...]
    mask: np.ndarray


def judge(
    norms: np.ndarray,
    normed: np.ndarray,
    massive: np.ndarray,
    layout: TokenLayout,
    norm_note: str = "",
) -> tuple[list[LayerRow], AuditVerdict]:
    """The table by layer and the verdict. norms, normed, massive: (B, L, N).

    Raises AuditError where norms say nothing: too few patches, NaN, a median of 0.
    """
    patches = layout.patch_part(norms)
    cutoffs = [_cutoff(patches[:, i], i + 1) for i in range(norms.shape[1])]

    # --- which tokens are outliers: told at the layer where they stand out most
    ratios = [_ratio(patches[:, i], cutoffs[i]) for i in range(len(cutoffs))]
    marked = [i for i, ratio in enumerate(ratios) if ratio is not None]
    best = max(marked, key=lambda i: ratios[i]) if marked else None
    mask = np.zeros(patches[:, 0].shape, bool)
    if best is not None:
        mask = cutoffs[best].mask(patches[:, best])

    # --- the table
    rows = []
    for i, cutoff in enumerate(cutoffs):
        rows.append(_row(i, norms, normed, massive, layout, cutoff, ratios[i], mask))

    # --- the verdict
    onset = until = None
    if best is not None:
        onset, until = _run(rows, best)
    verdict = AuditVerdict(
        outliers=best is not None,
        at_output=cutoffs[-1].second_mode,
        layers=len(rows),
        layer=None if best is None else best + 1,
        onset=onset,
        until=until,
        share=0.0 if best is None else cutoffs[best].share,
        ratio=None if best is None else ratios[best],
        hidden_by_norm=_hidden(rows, best),
        words="",
        details=(),
        mask=mask,
    )
    words = _words(rows, verdict)
    details = tuple(_details(rows, verdict, norm_note))
    return rows, AuditVerdict(**{**verdict.__dict__, "words": words, "details": details})


def places(mask: np.ndarray, layout: TokenLayout, texture: np.ndarray | None = None) -> Places:
    """Where outliers lie. mask: (B, P). texture: (B, P) deviation of each patch's pixels."""
    border = layout.border()
    ratio = None
    if texture is not None and mask.any() and np.median(texture[~mask]) > 0:
        ratio = float(np.median(texture[mask]) / np.median(texture[~mask]))
    share = None
    if border is not None and mask.any():
        share = float(border[mask.nonzero()[1]].mean())
    return Places(
        border_share=share,
        border_expected=None if border is None else float(border.mean()),
        texture=ratio,
        frequency=None if layout.grid is None else mask.mean(0).reshape(layout.grid),
    )


# --- the table


def _cutoff(norms_BP: np.ndarray, layer: int) -> Cutoff:
    if norms_BP.size < MIN_TOKENS:
        raise AuditError(
            f"{norms_BP.size} patches in all; must be at least {MIN_TOKENS}: give more images, or "
            "a larger size"
        )
    try:
        return find_cutoff(norms_BP)
    except ValueError as error:
        raise AuditError(f"layer {layer}: {error}; is this a trained model?") from None


def _ratio(norms_BP: np.ndarray, cutoff: Cutoff) -> float | None:
    if cutoff.value is None:
        return None
    return float(np.median(norms_BP[cutoff.mask(norms_BP)]) / np.median(norms_BP))


def _row(i, norms, normed, massive, layout, cutoff, ratio, mask) -> LayerRow:
    tokens = norms[:, i]
    patches = layout.patch_part(tokens)
    is_normed = bool(np.isfinite(normed[:, i]).all())
    patches_normed = layout.patch_part(normed[:, i])
    cutoff_normed = _cutoff(patches_normed, i + 1) if is_normed else None
    return LayerRow(
        layer=i + 1,
        median=float(np.median(patches)),
        percentile_98=float(np.quantile(patches, QUANTILE)),
        maximum=float(patches.max()),
        cutoff=cutoff.value,
        share=cutoff.share,
        ratio=ratio,
        reason=cutoff.reason,
        above_150=float((patches > PAPER_CUTOFF).mean()),
        massive_share=float((layout.patch_part(massive[:, i]) > 0).mean()),
        massive_tokens=int((massive[:, i] > 0).sum()),
        cls=_median(tokens, [] if layout.cls is None else [layout.cls]),
        distilled=_median(tokens, [j for j, name in enumerate(layout.prefix) if "DIST" in name]),
        registers=_median(tokens, [i for i in layout.registers if i not in layout.added]),
        added=_median(tokens, layout.added),
        stand_out=_stand_out(patches, mask),
        normed_median=float(np.median(patches_normed)) if is_normed else None,
        normed_maximum=float(patches_normed.max()) if is_normed else None,
        normed_cutoff=cutoff_normed.value if is_normed else None,
        normed_share=cutoff_normed.share if is_normed else None,
        normed_stand_out=_stand_out(patches_normed, mask) if is_normed else None,
    )


def _median(tokens_BN: np.ndarray, columns: list[int]) -> float | None:
    return float(np.median(tokens_BN[:, columns])) if columns else None


def _stand_out(norms_BP: np.ndarray, mask: np.ndarray) -> float | None:
    """Median norm of the marked patches over that of the others."""
    if not mask.any():
        return None
    return float(np.median(norms_BP[mask]) / np.median(norms_BP[~mask]))


def _run(rows: list[LayerRow], best: int) -> tuple[int, int]:
    """First and last layer, from 1, of the run around `best` in which outliers stand out twice."""
    first = last = best
    while first > 0 and rows[first - 1].stand_out >= MIN_RATIO:
        first -= 1
    while last < len(rows) - 1 and rows[last + 1].stand_out >= MIN_RATIO:
        last += 1
    return first + 1, last + 1


def _hidden(rows: list[LayerRow], best: int | None) -> bool | None:
    """Whether outliers have no second mode behind the final norm; None where it says nothing."""
    if best is None or rows[best].normed_median is None:
        return None
    return rows[best].normed_cutoff is None


# --- words


def counted(number: int, noun: str) -> str:
    """1 image, 24 images."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times(value: float) -> str:
    """11 x, 2.4 x."""
    return f"{value:.0f} x" if value >= 9.95 else f"{value:.1f} x"


def percent(share: float) -> str:
    """2.4 %, 0.031 %."""
    scaled = 100 * share
    return f"{scaled:.1f} %" if scaled >= 0.1 or not scaled else f"{scaled:.2g} %"


def _words(rows: list[LayerRow], verdict: AuditVerdict) -> str:
    if not verdict.outliers:
        top = max(rows, key=lambda row: row.maximum / row.median)
        layers = f"all {len(rows)} layers" if len(rows) > 1 else "the one layer given"
        return (
            f"outliers: no; patch norms have one mode in {layers}, the highest is "
            f"{times(top.maximum / top.median)} the median (layer {top.layer})"
        )
    first = f"outliers: yes, {percent(verdict.share)} of patches, {times(verdict.ratio)} the median"
    parts = [f"{first}, {_where(verdict)}"]
    if verdict.hidden_by_norm is not None:
        stand_out = rows[verdict.layer - 1].normed_stand_out
        parts.append(
            "they disappear behind the final norm"
            if verdict.hidden_by_norm
            else f"they still stand out behind the final norm ({times(stand_out)})"
        )
    return "; ".join(parts)


def _where(verdict: AuditVerdict) -> str:
    if verdict.layers == 1:
        return "in the one layer given"
    total = verdict.layers
    if verdict.until == total:
        return f"from layer {verdict.onset} of {total} on"
    run = f"layers {verdict.onset} to {verdict.until}"
    if verdict.onset == verdict.until:
        run = f"layer {verdict.onset}"
    output = "with a second mode left" if verdict.at_output else "gone"
    return f"in {run} of {total}, {output} at the output"


def _details(rows: list[LayerRow], verdict: AuditVerdict, norm_note: str):
    last = rows[-1]
    if verdict.outliers:
        row = rows[verdict.layer - 1]
        yield (
            f"told at layer {row.layer}, where they stand out most: norms above {row.cutoff:.3g} "
            f"({row.reason})"
        )
    if norm_note:
        yield f"norms behind the final norm are not shown: {norm_note}"

    # --- the field's other definitions, where they say something else
    row = rows[verdict.layer - 1] if verdict.outliers else last
    yield (
        f"other definitions at layer {row.layer}: {percent(row.above_150)} of patches above the "
        f"paper's 150 (picked for DINOv2 ViT-g), the 98th percentile is {row.percentile_98:.3g}, "
        f"{percent(row.massive_share)} of patches hold a massive activation "
        "(above 100 and 1000 x the median magnitude)"
    )

    # --- prefix tokens
    for name, value in (("[CLS]", last.cls), ("registers", last.registers)):
        if value is not None and value > MIN_RATIO * last.median:
            yield (
                f"{name}: median norm {value:.3g} at the output, {times(value / last.median)} that "
                "of patches; counted apart, not as outliers"
            )
