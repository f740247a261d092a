"""Can the image's class be read from a single token? Tables 1, 4 and 6 (sections 2.2, D and G)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from registers.bank import TokenBank
from registers.evals.chance import most_frequent
from registers.intervals import bootstrap_mean
from registers.measurements import Measured, Measurement
from registers.models.sequence import Tokens
from registers.probes.kinds import Kind, bank_kinds, halves, joined
from registers.probes.solvers import STRENGTHS, logistic_best, reduce
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings
from registers.vocabulary import TAIL

QUESTION = "token_class"
MAIN = ("class", "fine", "label")  # what images show; attributes of the background are no class
DRAWS = 5  # random choices of the token; the paper states the spread (Table 6), not the number


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`classify` on a bank's sample, with tokens after the final norm (`bank.standardised`)."""
    rows = classify(
        bank.final_tokens(),
        bank_kinds(bank, fixed=settings.cutoff_of(bank.name)),
        label_sets(bank, settings.probes.labels),
        backbone=bank.name,
        draws=settings.probes.draws,
    )
    return Measured(rows)


def label_sets(bank: TokenBank, only: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Label sets of a bank's sample: its attributes, or the label itself where there are none.

    only: these (none: all). Raises ValueError for one that the data do not have.
    """
    labels = bank.attributes or {"label": bank.labels}
    for name in only:
        if name not in labels:
            raise ValueError(
                f'probes.labels: "{name}" is not allowed; must be one of {", ".join(labels)}'
            )
    return {name: labels[name][: bank.sample] for name in only or labels}


def classify(
    tokens: Tokens,
    kinds: list[Kind],
    labels: Mapping[str, np.ndarray],
    *,
    backbone: str,
    draws: int = DRAWS,
    strengths: np.ndarray = STRENGTHS,
    seed: int = 0,
) -> list[Measurement]:
    """Logistic regression from one token per image, of each kind, for each label set.

    [CLS] and each register are one token an image. Of the patches of a kind one is drawn at random,
    for training and test images alike, the same for all label sets; images that have none are left
    out and counted in the note. Half of the images train, half test (`halves`); C is chosen within
    the training half (`logistic_best`).

    tokens: of B images, as they enter the probe; cls may be None.
    kinds: of patches, masks (B, P).
    labels: (B,) by name, -1 where unknown.
    backbone: its id, for the rows.
    draws: random choices of a patch.
    strengths: of C, as scikit-learn defines it.
    seed: of the halves and the draws.

    Rows, accuracies (0 to 1) on held-out images; None, with the reason, where the kind does not
    exist:
    - "top1": mean over draws, interval by bootstrap over test images, chance by the most frequent
      class of these.
    - "top1_std": standard deviation over draws (n - 1); only for drawn tokens.
    - "top1_main": mean over the label sets that say what the image shows (`MAIN`), on test images
      that have both normal patches and outliers, so that these are compared on the same images;
      on all where there are no outliers. (The tail, which few images have, leaves none out.)
    - "top1_std_max": the largest top1_std.
    - "top1_mean": mean over all label sets that could be fitted, its interval from the same
      bootstrap, an image's answers to all sets kept together.
    """
    rows = []
    both = np.ones(len(tokens.patches), dtype=bool)
    for kind in kinds:
        if kind.mask is not None and kind.name != TAIL:
            both &= kind.mask.any(1)
    for name, x in _single_tokens(tokens).items():
        everyone = np.ones(len(x), dtype=bool)
        rows += _Probe(name, [x], everyone, both, "", backbone, strengths, seed).rows(labels)
    for kind in kinds:
        if kind.mask is None:
            rows += _absent(kind, labels, backbone)
            continue
        drawn = [
            _drawn(tokens.patches, kind.mask, np.random.default_rng((seed, draw)))
            for draw in range(draws)
        ]
        has = kind.mask.any(1)
        missing = "" if has.all() else f"{(~has).sum()} of {len(has)} images have no such token"
        note = joined(kind.note, missing)
        rows += _Probe(kind.name, drawn, has, both, note, backbone, strengths, seed).rows(labels)
    return rows


def draw_one(mask_BP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B,) index of one True patch in each image, uniformly; 0 where there is none."""
    return np.where(mask_BP, rng.random(mask_BP.shape), -1.0).argmax(1)


def _single_tokens(tokens: Tokens) -> dict[str, np.ndarray]:
    """(B, D) of each token that an image has once."""
    cls = {} if tokens.cls is None else {"cls": tokens.cls}
    return cls | {f"reg{r}": tokens.registers[:, r] for r in range(tokens.registers.shape[1])}


def _drawn(patches_BPD: np.ndarray, mask_BP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B, D) one patch of each image."""
    index = draw_one(mask_BP, rng)
    return patches_BPD[np.arange(len(index)), index]


def _absent(kind: Kind, labels: Mapping[str, np.ndarray], backbone: str) -> list[Measurement]:
    """Rows without a value for a kind that does not exist."""
    common = dict(question=QUESTION, backbone=backbone, token=kind.name, value=None, note=kind.note)
    rows = [Measurement(metric="top1", data=data, **common) for data in labels]
    summaries = ("top1_mean", "top1_main", "top1_std_max")
    return [*rows, *(Measurement(metric=metric, **common) for metric in summaries)]


@dataclass(frozen=True)
class _Probe:
    """One kind of token, to be classified by each label set.

    token: its name.
    drawn: one (B, D) for each draw.
    has: (B,) images that take part. both: (B,) those that have normal patches and outliers, if any.
    note, backbone: for the rows.
    strengths, seed: see `classify`.
    """

    token: str
    drawn: list[np.ndarray]
    has: np.ndarray
    both: np.ndarray
    note: str
    backbone: str
    strengths: np.ndarray
    seed: int

    def rows(self, labels: Mapping[str, np.ndarray]) -> list[Measurement]:
        rows = []
        bases = {}  # a reduced training set serves all label sets that know the same images
        right = np.zeros(len(self.has))  # (B,) summed over the label sets
        asked = np.zeros(len(self.has))  # (B,) how many of them an image was asked
        guessed = 0.0
        main = np.zeros((2, len(self.has)))  # right and asked, of the main label sets
        main_guessed = 0.0
        for data, y in labels.items():
            y = np.asarray(y)
            known = self.has & (y >= 0)
            train, test = (half[known[half]] for half in halves(len(y), self.seed))
            classes = len(np.unique(y[train]))
            if classes < 2 or not len(test):
                reason = (
                    f"{len(train)} training images of {classes} classes "
                    f"and {len(test)} test images are too few"
                )
                rows.append(self._row("top1", None, data, note=joined(self.note, reason)))
                continue
            right_DT = self._right(y, train, test, bases)
            chance = most_frequent(y[test])
            rows += self._of_set(right_DT, data, chance)
            right[test] += right_DT.mean(0)
            asked[test] += 1
            guessed += len(test) * chance
            if data in MAIN and self.both[test].any():
                kept = test[self.both[test]]
                main[0, kept] += right_DT.mean(0)[self.both[test]]
                main[1, kept] += 1
                main_guessed += len(kept) * most_frequent(y[kept])
        spread = [row.value for row in rows if row.metric == "top1_std"]
        if spread:
            rows.append(self._row("top1_std_max", max(spread)))
        return [
            *rows,
            self._mean("top1_mean", right, asked, guessed),
            self._mean("top1_main", *main, main_guessed),
        ]

    def _right(self, y, train, test, bases: dict) -> np.ndarray:
        """(draws, T) whether each drawn token gives its test image's class."""
        right = []
        for number, x in enumerate(self.drawn):
            key = (number, train.tobytes())
            if key not in bases:
                bases[key] = reduce(x[train])
            model = logistic_best(
                x[train], y[train], self.strengths, seed=self.seed, basis=bases[key]
            )
            right.append(model.predict(x[test])[0] == y[test])
        return np.array(right)

    def _of_set(self, right_DT: np.ndarray, data: str, chance: float) -> list[Measurement]:
        value, low, high = bootstrap_mean(right_DT.mean(0))
        n = right_DT.shape[1]
        rows = [self._row("top1", value, data, low=low, high=high, n=n, chance=chance)]
        if len(self.drawn) > 1:
            rows.append(self._row("top1_std", float(right_DT.mean(1).std(ddof=1)), data, n=n))
        return rows

    def _mean(
        self, metric: str, right: np.ndarray, asked: np.ndarray, guessed: float
    ) -> Measurement:
        """Over label sets that could be fitted."""
        if not asked.any():
            reason = "no label set could be fitted"
            return self._row(metric, None, note=joined(self.note, reason))
        value, low, high = bootstrap_mean(right, asked)
        chance = guessed / asked.sum()
        n = int((asked > 0).sum())
        return self._row(metric, value, low=low, high=high, n=n, chance=chance)

    def _row(self, metric: str, value: float | None, data: str = "", **more) -> Measurement:
        columns = {"note": self.note} | more
        return Measurement(
            QUESTION, metric, self.backbone, value, data=data, token=self.token, **columns
        )
