"""Is an image's class written in one single token? Tables 1, 4 and 6 (paper, sections 2.2 and appendices D and G)."""

from collections.abc import Mapping, Sequence

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measurement
from registers.models.sequence import split_tokens
from registers.probes.kinds import Kind, bank_kinds, halves, standardised
from registers.probes.solvers import STRENGTHS, bootstrap, logistic_best, majority, reduce

QUESTION = "token_class"
DRAWS = 5  # random choices of the token; the paper states the spread (Table 6), not the number


def classify(
    tokens_BND: np.ndarray,
    registers: int,
    kinds: list[Kind],
    labels: Mapping[str, np.ndarray],
    *,
    backbone: str,
    draws: int = DRAWS,
    strengths: np.ndarray = STRENGTHS,
    seed: int = 0,
) -> list[Measurement]:
    """Logistic regression from one token per image, of each kind, for each label set: accuracy (0 to 1) on held-out images.

    tokens_BND: (B, N, D) as they enter the probe. kinds: masks (B, P). labels: name -> (B,), -1 where unknown.
    [CLS] and each register are one token an image. Of the patches of a kind one is drawn at random, for training and test
    images alike, the same for all label sets; images that have none are left out and counted in the note. Half of the images
    train, half test (`halves`); C is chosen within the training half (`logistic_best`).

    Rows: "top1", mean over draws, interval by bootstrap over test images, chance by the most frequent class; "top1_std", standard
    deviation over draws (n - 1; only for drawn tokens); "top1_mean", mean over all label sets that could be fitted, its interval
    from the same bootstrap, an image's answers to all sets kept together. None, with the reason, where the kind does not exist.
    """
    split = split_tokens(tokens_BND, registers)
    single = {"cls": split.cls, **{f"reg{r}": split.registers[:, r] for r in range(registers)}}
    rows = []
    for name, x in single.items():
        rows += _rows(name, [x], np.ones(len(x), dtype=bool), labels, "", backbone, strengths, seed)
    for kind in kinds:
        if kind.mask is None:
            rows += [
                _row("top1", None, data, kind.name, backbone, note=kind.note) for data in labels
            ]
            rows.append(_row("top1_mean", None, "", kind.name, backbone, note=kind.note))
            continue
        has = kind.mask.any(1)
        drawn = []
        for draw in range(draws):
            chosen = draw_one(kind.mask, np.random.default_rng((seed, draw)))
            drawn.append(split.patches[np.arange(len(chosen)), chosen])
        missing = f"{(~has).sum()} of {len(has)} images have no such token" if not has.all() else ""
        note = "; ".join(part for part in (kind.note, missing) if part)
        rows += _rows(kind.name, drawn, has, labels, note, backbone, strengths, seed)
    return rows


def draw_one(mask_BP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B,) index of one True patch in each image, uniformly; 0 where there is none."""
    return np.where(mask_BP, rng.random(mask_BP.shape), -1.0).argmax(1)


def token_class(
    bank: TokenBank,
    *,
    fixed: float | None = None,
    draws: int = DRAWS,
    only: Sequence[str] = (),
    strengths: np.ndarray = STRENGTHS,
    seed: int = 0,
) -> list[Measurement]:
    """`classify` on a bank's sample: every label set of the data (the label itself where there are no attributes).

    Tokens are taken after the final norm (`standardised`). fixed: a cut-off chosen by hand. only: these label sets (none: all);
    a ValueError names one that the data does not have.
    """
    labels = {name: values[: bank.sample] for name, values in bank.attributes.items()} or {
        "label": bank.labels[: bank.sample]
    }
    for name in only:
        if name not in labels:
            raise ValueError(f'probes.labels = "{name}": allowed are {", ".join(labels)}')
    labels = {name: labels[name] for name in only} or labels
    tokens = standardised(bank.outputs)
    kinds = bank_kinds(bank, fixed)
    return classify(
        tokens,
        bank.registers,
        kinds,
        labels,
        backbone=bank.name,
        draws=draws,
        strengths=strengths,
        seed=seed,
    )


def _rows(token, drawn, has, labels, note, backbone, strengths, seed) -> list[Measurement]:
    """All rows of one kind of token. drawn: one (B, D) per draw; has: (B,) images that take part."""
    rows, bases = [], {}
    total, count, guess = (
        np.zeros(len(has)),
        np.zeros(len(has)),
        0.0,
    )  # over the label sets, by image
    for data, y in labels.items():
        y = np.asarray(y)
        train, test = (part[has[part] & (y[part] >= 0)] for part in halves(len(y), seed))
        if len(np.unique(y[train])) < 2 or not len(test):
            reason = f"{len(train)} training images of {len(np.unique(y[train]))} classes and {len(test)} test images are too few"
            rows.append(
                _row(
                    "top1",
                    None,
                    data,
                    token,
                    backbone,
                    note="; ".join(p for p in (note, reason) if p),
                )
            )
            continue
        right = []  # (draws, test images)
        for number, x in enumerate(drawn):
            key = (number, train.tobytes())
            if key not in bases:
                bases[key] = reduce(x[train])
            best = logistic_best(x[train], y[train], strengths, seed=seed, basis=bases[key])
            right.append(best.predict(x[test])[0] == y[test])
        right = np.array(right)
        value, low, high = bootstrap(right.mean(0))
        shared = dict(data=data, token=token, backbone=backbone, note=note, n=len(test))
        rows.append(
            _row("top1", value, **shared, low=low, high=high, chance=majority(y[train], y[test]))
        )
        total[test], count[test], guess = (
            total[test] + right.mean(0),
            count[test] + 1,
            guess + len(test) * rows[-1].chance,
        )
        if len(drawn) > 1:
            rows.append(_row("top1_std", float(right.mean(1).std(ddof=1)), **shared))
    if not count.any():
        return [
            *rows,
            _row(
                "top1_mean",
                None,
                "",
                token,
                backbone,
                note="; ".join(p for p in (note, "no label set could be fitted") if p),
            ),
        ]
    value, low, high = bootstrap(total, count)
    sizes = dict(n=int((count > 0).sum()), chance=guess / count.sum())
    return [
        *rows,
        _row("top1_mean", value, "", token, backbone, low=low, high=high, note=note, **sizes),
    ]


def _row(
    metric: str, value: float | None, data: str, token: str, backbone: str, **more
) -> Measurement:
    return Measurement(QUESTION, metric, backbone, value, data=data, token=token, **more)
