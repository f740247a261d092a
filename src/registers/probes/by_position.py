"""What depends on the place in the grid: high norms (Fig. 10) and average attention (Fig. 16)."""

from collections.abc import Callable

import numpy as np

from registers.bank import TokenBank
from registers.intervals import bootstrap_images, bootstrap_mean
from registers.measurements import Measured, Measurement
from registers.models.sequence import split_tokens
from registers.outliers import find_cutoff, high_norm_tail
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

QUESTION = "by_position"
MAP_DRAWS = 400  # bootstrap samples; more are slow on large grids
LEAST_COLUMNS = 5  # inside the border; fewer leave no frequency to ask about


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    return Measured(position_rows(bank, fixed=settings.cutoff_of(bank.name)))


def position_rows(bank: TokenBank, fixed: float | None = None) -> list[Measurement]:
    """Rows of one bank; the coordinate "patch" is the position, 0..P-1, row by row.

    fixed: a hand-picked cut-off. Norms are those of the last block, before the final norm (paper,
    appendix A).
    - "share_above": share of the images whose patch norm at this position lies above the cut-off
      between the two modes, or above `fixed`; n = images. No rows where there is neither.
    - "share_tail": the same above the norm that 2 % of all patches exceed
      (`outliers.high_norm_tail`): a quantile, no outliers.
    - "border_share" and "inner_share": means of share_above over the outermost patches and the
      others; "border_tail", "inner_tail" those of share_tail. Intervals by bootstrap over images.
    - "highest_share": the highest share_above of a position, interval likewise.
    - "stripes" (of outliers) and "stripes_tail": vertical stripes, see `stripes`; 1 without any.
    - "support": over how many patches the mean attention of each query spreads, as a share of all
      (the exponential of its entropy over P); "focus_border": what goes to the outermost patches
      over their share of the patches.
    - "map_distance": mean total variation between the mean maps of two registers. Its interval and
      that of "support" are by bootstrap over the images of the sample.
    - "cutoff" and "tail": these two norms; "second_mode": 1 or 0. Each with its reason as note.
    - "attention": mean over all images and heads of the attention of "cls", "reg0"... and "patch"
      (the central one) to this position, last block.

    Raises ValueError where the grid is not square, as figures draw it.
    """
    height, width = bank.grid
    if height != width:
        raise ValueError(f"grid: {height} x {width} is not allowed; must be square")
    norms = np.asarray(bank.patch_norms(), dtype=np.float64)
    cutoff = find_cutoff(norms, fixed)
    tail = high_norm_tail(norms)
    common = dict(question=QUESTION, backbone=bank.name, data=bank.data, layer=bank.layers)

    def row(metric: str, value: float | None, note: str) -> Measurement:
        return Measurement(
            metric=metric, value=value, note=note, token="patch", n=len(norms), **common
        )

    def grid(metric: str, values: np.ndarray) -> list[Measurement]:
        more = dict(token="patch", n=len(norms), coordinate="patch", **common)
        return [
            Measurement(metric=metric, value=float(value), at=at, **more)
            for at, value in enumerate(values)
        ]

    border = border_of(bank.grid)

    def summary(mask_BP: np.ndarray, suffix: str, stripes_name: str) -> list[Measurement]:
        parts = {f"border_{suffix}": border, f"inner_{suffix}": ~border}
        means = [
            Measurement(metric=metric, value=value, low=low, high=high, n=len(norms), **patch)
            for metric, part in parts.items()
            for value, low, high in [bootstrap_mean(mask_BP[:, part].mean(1))]
        ]
        value = stripes(mask_BP.reshape(len(mask_BP), *bank.grid))
        note = "" if value is not None else "the grid is too small, or no token is above"
        return [*means, row(stripes_name, value, note)]

    patch = dict(token="patch", **common)
    rows = [
        row("second_mode", int(cutoff.second_mode), cutoff.reason),
        row("cutoff", cutoff.value, cutoff.reason),
        row("tail", tail.value, tail.reason),
        *grid("share_tail", tail.mask(norms).mean(0)),
    ]
    rows += summary(tail.mask(norms), "tail", "stripes_tail")
    if cutoff.value is not None:
        above = cutoff.mask(norms)
        rows += grid("share_above", above.mean(0))
        rows += summary(above, "share", "stripes")
        low, high = _interval(above, above.mean(0), np.max)
        highest = dict(value=float(above.mean(0).max()), low=low, high=high, n=len(norms))
        rows.append(Measurement(metric="highest_share", **highest, note=cutoff.reason, **patch))
    return rows + _attention_rows(bank, common)


def _attention_rows(bank: TokenBank, common: dict) -> list[Measurement]:
    """Mean attention of each query by position, and how broad and how different the maps are."""
    border = border_of(bank.grid)
    queries = ["cls", *(f"reg{r}" for r in range(bank.registers)), "patch"]
    means_QP = np.asarray(bank.mean_attention, dtype=np.float64)
    of_images_SQP = attention_of_sample(bank)
    rows = []
    for number, (token, mean) in enumerate(zip(queries, means_QP, strict=True)):
        about = dict(token=token, n=len(bank), **common)
        for at, value in enumerate(mean):
            place = dict(coordinate="patch", at=at)
            rows.append(Measurement(metric="attention", value=float(value), **place, **about))
        low, high = _interval(of_images_SQP[:, number], mean, support)
        broad = dict(value=support(mean), low=low, high=high)
        rows.append(Measurement(metric="support", **broad, **about))
        focus = mean[border].sum() / mean.sum() / border.mean()
        rows.append(Measurement(metric="focus_border", value=float(focus), **about))
    if bank.registers > 1:
        of_registers = slice(1, 1 + bank.registers)
        maps_RP = means_QP[of_registers]
        low, high = _interval(of_images_SQP[:, of_registers], maps_RP, map_distance)
        about = dict(token="registers", n=len(bank), **common)
        apart = dict(value=map_distance(maps_RP), low=low, high=high)
        rows.append(Measurement(metric="map_distance", **apart, **about))
    return rows


def attention_of_sample(bank: TokenBank) -> np.ndarray:
    """(sample, queries, P) what `bank.mean_attention` is the mean of, of the sample's images."""
    queries = [*range(1 + bank.registers), 1 + bank.registers + bank.index["central_patch"]]
    maps = []
    for q_HND, k_HND in zip(bank.q, bank.k):
        q_HQD = q_HND[:, queries].astype(np.float64)
        logits_HQN = q_HQD @ k_HND.astype(np.float64).swapaxes(1, 2) / np.sqrt(q_HQD.shape[-1])
        rows_HQN = np.exp(logits_HQN - logits_HQN.max(-1, keepdims=True))
        rows_QN = (rows_HQN / rows_HQN.sum(-1, keepdims=True)).mean(0)
        maps.append(split_tokens(rows_QN, bank.registers).patches)
    return np.stack(maps)


def _interval(
    maps_SP: np.ndarray, mean_P: np.ndarray, statistic: Callable[[np.ndarray], float]
) -> tuple[float, float]:
    """Interval of a statistic of the mean map of all images, as wide as bootstraps of a sample are.

    It is laid around the value: means of drawn maps are rougher than the mean map that they are
    drawn from, so their statistics lie to one side of it. maps_SP: (sample, ...) of single images.
    mean_P: (...) of all images.
    """

    def of_mean(drawn_SP: np.ndarray) -> float:
        return statistic(drawn_SP.mean(0))

    low, high = bootstrap_images(maps_SP, of_mean, MAP_DRAWS)
    value = float(statistic(mean_P))
    half = (high - low) / 2
    return value - half, value + half


def border_of(grid: tuple[int, int]) -> np.ndarray:
    """(P,) True for the outermost patches."""
    border = np.ones(grid, dtype=bool)
    border[1:-1, 1:-1] = False
    return border.ravel()


def stripes(mask_Bhw: np.ndarray) -> float | None:
    """How much columns alternate, over what the images' scatter explains; None if it has no answer.

    A resize without antialiasing weighs columns by turns, with a period of about two patches
    (16 to 7: 7/16 of a cycle per patch). So the border is left out, a parabola is taken off the
    means of the columns, and of what is left only frequencies of a quarter of a cycle and more
    count. Their power is compared with that expected from the variance over images: the root of the
    ratio is about 1 without stripes, whatever falls off smoothly from the border to the centre, and
    above 2.5 in less than one of 1,000 draws (8 x 8 and 16 x 16 patches, 300 images).
    """
    inside = slice(1, -1)
    inner = mask_Bhw[:, inside, inside].astype(np.float64)
    images, _, width = inner.shape
    if width < LEAST_COLUMNS or images < 2:
        return None
    columns = inner.mean(1)
    place = np.linspace(-1, 1, width)
    smooth = np.stack([np.ones(width), place, place**2], axis=1)
    rest = columns - columns @ np.linalg.pinv(smooth).T @ smooth.T
    waves = np.fft.rfft(rest, axis=1)[:, np.fft.rfftfreq(width) >= 0.25]
    parts = np.concatenate([waves.real, waves.imag], axis=1)
    expected = parts.var(0, ddof=1).sum() / images
    return float(np.sqrt((parts.mean(0) ** 2).sum() / expected)) if expected else None


def support(attention_P: np.ndarray) -> float:
    """exp(entropy) of a map over its number of patches: 1 if all get the same."""
    share = attention_P / attention_P.sum()
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum()
    return float(np.exp(entropy) / len(share))


def map_distance(attention_RP: np.ndarray) -> float:
    """Mean total variation between two maps, each made to sum to 1: 0 equal, 1 apart."""
    shares = attention_RP / attention_RP.sum(1, keepdims=True)
    first, second = np.triu_indices(len(shares), 1)
    return float(np.abs(shares[first] - shares[second]).sum(1).mean() / 2)
