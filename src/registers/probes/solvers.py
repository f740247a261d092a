"""Linear models in closed form or by one warm path, and intervals over images. Plain numpy in float64.

Letters: n rows, D channels, r the rank of the centred data, C classes, T targets, S strengths.
"""

from dataclasses import dataclass

import numpy as np

STRENGTHS = 10.0 ** np.linspace(
    -6, 5, 45
)  # dinov2/eval/log_regression.py: C = 10^linspace(-6, 5, 45)
HELD_OUT = 0.1  # share of the training data on which C is chosen (same file, seeded)
DRAWS = 2000  # bootstrap samples


@dataclass(frozen=True)
class Basis:
    """Centred data in an orthogonal basis: x - mean = u * s @ vt. mean (D,), u (n, r), s (r,), vt (r, D)."""

    mean: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray


def reduce(x: np.ndarray) -> Basis:
    """The row space of x (n, D): one SVD, shared by all strengths and all targets. Directions without variance are dropped.

    Raises ValueError unless x is a non-empty matrix of finite numbers.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(
            f"features of shape {x.shape}: allowed is a non-empty matrix, rows by channels"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"features: {int((~np.isfinite(x)).sum())} of {x.size} are NaN or infinite; allowed are finite numbers"
        )
    mean = x.mean(0)
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    kept = s > 1e-10 * max(s[0], np.abs(mean).max() * np.sqrt(len(x)))
    return Basis(mean, u[:, kept], s[kept], vt[kept])


# --- classification -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regressions, one for each strength. classes (C,) labels as given; iterations (S,).

    coefficients (S, C, D), intercepts (S, C). For two classes both rows are kept: scikit-learn's single row is their difference.
    """

    strengths: np.ndarray
    classes: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    iterations: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(S, n) labels of x (n, D)."""
        x = np.asarray(x, dtype=np.float64)
        return np.stack(
            [
                self.classes[(x @ w.T + b).argmax(1)]
                for w, b in zip(self.coefficients, self.intercepts)
            ]
        )


def logistic_path(
    x: np.ndarray,
    y: np.ndarray,
    strengths: np.ndarray = STRENGTHS,
    *,
    tolerance: float = 3e-8,
    iterations: int = 1000,
    basis: Basis | None = None,
) -> Logistic:
    """L2-regularised multinomial logistic regression for all strengths, in one path from the strongest penalty to the weakest.

    x (n, D), not standardised; y (n,) labels of any kind; strengths: C of scikit-learn. basis: `reduce(x)`, when x serves
    several label sets. The objective is that of sklearn.linear_model.LogisticRegression(C):
    C * sum of cross entropies + |W|^2 / 2, intercept free (for two classes the binary form: |w1 - w0|^2 / 2).

    Solved by L-BFGS in the whitened row space of x, where the data part of the Hessian is near the identity and the penalty is
    diagonal. Three things make a path cheaper than its points: each strength starts from the line or parabola (in log C)
    through the last solutions; curvature pairs are carried along, since another C changes them by a known multiple; and a line search costs
    no product with the data, as logits are linear in the step.
    Each point ends when half its Newton decrement, the expected gain, falls below tolerance / 2 times the objective. At the
    default, coefficients are within 0.5 % (of the largest) of the exact solution and predictions agree to 0.2 points (tests).

    Raises ValueError: fewer than two classes, lengths that differ, strengths not positive, x as in `reduce`.
    """
    strengths = np.asarray(strengths, dtype=np.float64).ravel()
    if not len(strengths) or not (strengths > 0).all():
        raise ValueError(f"strengths = {strengths.tolist()}: allowed are positive numbers")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} rows of features, {len(y)} labels: allowed are equal numbers")
    classes, target = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels hold {len(classes)} class: allowed are at least 2")
    basis = reduce(x) if basis is None else basis
    problem = _Softmax(basis, target, len(classes), 2.0 if len(classes) == 2 else 1.0)
    solutions, counts = [None] * len(strengths), np.zeros(len(strengths), dtype=int)
    for c in np.unique(strengths):
        solution, count = problem.solve(c, tolerance, iterations)
        for i in np.flatnonzero(strengths == c):
            solutions[i], counts[i] = solution, count
    v = np.stack(solutions)  # (S, r + 1, C)
    n, rank = basis.u.shape
    w = (v[:, :rank] * (np.sqrt(n) / basis.s)[:, None]).transpose(0, 2, 1) @ basis.vt  # (S, C, D)
    return Logistic(strengths, classes, w, v[:, rank] - w @ basis.mean, counts)


class _Softmax:
    """Mean cross entropy + penalty in whitened coordinates, solved for one C after another, C ascending."""

    def __init__(self, basis: Basis, target: np.ndarray, classes: int, factor: float) -> None:
        n = len(target)
        self.x = np.hstack(
            [np.sqrt(n) * basis.u, np.ones((n, 1))]
        )  # (n, r + 1): unit variance, and the intercept
        self.xt = np.ascontiguousarray(self.x.T)
        self.cells = np.arange(n) * classes + target
        self.scales = (
            factor * np.append(1 / basis.s**2, 0.0)[:, None]
        )  # penalty of each direction, times 1 / C
        prior = np.log(np.bincount(target, minlength=classes) / n)
        self.prior = np.zeros((self.x.shape[1], classes)), np.tile(prior, (n, 1))
        self.prior[0][-1] = prior
        self.found: list[
            tuple[float, np.ndarray, np.ndarray]
        ] = []  # (log C, solution, logits) of the last three strengths
        self.pairs: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # (step, change of the data part's gradient)
        self.curvature = (
            1 - 1 / classes
        ) / classes  # of the softmax where all classes are equally likely

    def softmax(self, logits: np.ndarray) -> tuple[np.ndarray, float]:
        """Probabilities (n, C) and mean cross entropy."""
        highest = logits.max(1, keepdims=True)
        p = logits - highest
        np.exp(p, out=p)
        total = p.sum(1, keepdims=True)
        entropy = float((np.log(total) + highest).mean() - logits.ravel()[self.cells].mean())
        p /= total
        return p, entropy

    def gradient(self, p: np.ndarray) -> np.ndarray:
        """Of the mean cross entropy, (r + 1, C). Overwrites p."""
        p.ravel()[self.cells] -= 1
        return self.xt @ p / len(p)

    def start(self, c: float, penalty: np.ndarray):
        """The best of the last solution and the line and parabola (in log C) through the last: (v, logits, p, objective)."""
        starts = []
        for count in range(1, len(self.found) + 1):
            points, at = self.found[-count:], np.log(c)
            weights = [
                np.prod([(at - b[0]) / (a[0] - b[0]) for b in points if b is not a]) for a in points
            ]  # Lagrange
            starts.append(
                tuple(sum(w * point[part] for w, point in zip(weights, points)) for part in (1, 2))
            )
        best = None
        for v, logits in starts or [self.prior]:
            p, entropy = self.softmax(logits)
            value = entropy + 0.5 * np.vdot(penalty * v, v)
            if best is None or value < best[3]:
                best = (v, logits, p, value)
        return best

    def solve(
        self, c: float, tolerance: float, iterations: int, memory: int = 12
    ) -> tuple[np.ndarray, int]:
        penalty = self.scales / c
        v, logits, p, value = self.start(c, penalty)
        pairs = [self._pair(s, y, penalty) for s, y in self.pairs]
        data = self.gradient(p)
        for done in range(iterations + 1):
            gradient = data + penalty * v
            step = -self._newton(gradient, pairs, penalty)
            gain = -float(np.vdot(gradient, step))
            if gain <= tolerance * value or done == iterations:
                break
            along = self.x @ step
            linear, square = np.vdot(penalty * v, step), np.vdot(penalty * step, step)
            before, t = value, 1.0
            for _ in range(30):
                p, entropy = self.softmax(logits + t * along)
                value = entropy + 0.5 * (np.vdot(penalty * v, v) + 2 * t * linear + t * t * square)
                if value <= before - 1e-4 * t * gain:
                    break
                t *= 0.4
            if value > before:  # rounding: nothing is left to gain
                break
            v, logits = v + t * step, logits + t * along
            changed = self.gradient(p)
            s, y, data = t * step, changed - data, changed
            curvature = np.vdot(s, y)
            if curvature > 0:
                self.curvature = float(np.vdot(y, y) / curvature)
                self.pairs, pairs = (
                    [*self.pairs, (s, y)][-memory:],
                    [*pairs, self._pair(s, y, penalty)][-memory:],
                )
        self.found = [*self.found, (np.log(c), v, logits)][-3:]
        return v, done

    @staticmethod
    def _pair(s: np.ndarray, y: np.ndarray, penalty: np.ndarray):
        y = y + penalty * s  # the whole gradient's change, whatever C the pair was seen at
        return s, y, 1 / np.vdot(s, y)

    def _newton(self, gradient: np.ndarray, pairs: list, penalty: np.ndarray) -> np.ndarray:
        """Two-loop recursion of L-BFGS (Nocedal & Wright, algorithm 7.4); first guess: 1 / (curvature + penalty)."""
        q, weights = gradient.copy(), []
        for s, y, rho in reversed(pairs):
            weights.append(rho * np.vdot(s, q))
            q -= weights[-1] * y
        q /= self.curvature + penalty
        for (s, y, rho), weight in zip(pairs, reversed(weights)):
            q += (weight - rho * np.vdot(y, q)) * s
        return q


def logistic_best(
    x: np.ndarray,
    y: np.ndarray,
    strengths: np.ndarray = STRENGTHS,
    *,
    seed: int = 0,
    basis: Basis | None = None,
) -> Logistic:
    """The logistic regression of DINOv2's evaluation: C chosen on a seeded 10 % of the training data, then fitted on all of it.

    x (n, D), y (n,). Of equally good strengths the smallest C is taken; the choice is made on a path of tolerance 1e-6.
    basis: `reduce(x)` of all rows, where x serves several label sets. Source: dinov2/eval/log_regression.py.
    Raises ValueError as `logistic_path`.
    """
    y = np.asarray(y)
    order = np.random.default_rng(seed).permutation(len(y))
    held = max(1, round(HELD_OUT * len(y)))
    out, kept = order[:held], order[held:]
    strengths = np.sort(np.asarray(strengths, dtype=np.float64))
    if len(strengths) > 1 and len(np.unique(y[kept])) > 1:
        right = (
            logistic_path(x[kept], y[kept], strengths, tolerance=1e-6).predict(x[out]) == y[out]
        ).sum(1)
        strengths = strengths[[right.argmax()]]
    return logistic_path(x, y, strengths[:1], basis=basis)


# --- regression ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ridge:
    """Ridge regressions for many targets and all strengths: one SVD, and a diagonal for each strength.

    strengths (S,): scikit-learn's alpha. projections (r, T): u^T (y - y_mean). y_mean (T,).
    """

    basis: Basis
    strengths: np.ndarray
    projections: np.ndarray
    y_mean: np.ndarray

    def coefficients(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(D, T) coefficients and (T,) intercepts of strength `index`."""
        w = self.basis.vt.T @ (self._shrink()[index][:, None] * self.projections)
        return w, self.y_mean - self.basis.mean @ w

    def predict(self, x: np.ndarray, index: int) -> np.ndarray:
        """(n, T) predictions for x (n, D)."""
        w, intercept = self.coefficients(index)
        return np.asarray(x, dtype=np.float64) @ w + intercept

    def errors(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(S,) mean squared errors, summed over targets, on rows x (n, D), y (n, T), without making S predictions.

        |y - z B|^2 = |y|^2 - 2 <z^T y, B> + <z^T z, B B^T> with z the rows in the basis and B diagonal times projections.
        """
        z = (np.asarray(x, dtype=np.float64) - self.basis.mean) @ self.basis.vt.T
        y = np.asarray(y, dtype=np.float64) - self.y_mean
        cross = ((z.T @ y) * self.projections).sum(1)
        square = (z.T @ z) * (self.projections @ self.projections.T)
        shrink = self._shrink()
        total = (y**2).sum() - 2 * shrink @ cross + np.einsum("si,ij,sj->s", shrink, square, shrink)
        return np.maximum(total, 0) / len(y)

    def _shrink(self) -> np.ndarray:
        return self.basis.s / (self.basis.s**2 + self.strengths[:, None])  # (S, r)


def ridge(x: np.ndarray, y: np.ndarray, strengths: np.ndarray, basis: Basis | None = None) -> Ridge:
    """All minimisers of |y - x w - b|^2 + strength |w|^2 (intercept free). x (n, D), y (n, T), strengths (S,) >= 0.

    Choose a strength by `errors` on held-out rows. Raises ValueError: lengths that differ, negative strengths, x as in `reduce`.
    """
    strengths = np.asarray(strengths, dtype=np.float64).ravel()
    if not len(strengths) or not (strengths >= 0).all():
        raise ValueError(f"strengths = {strengths.tolist()}: allowed are numbers >= 0")
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"features {np.shape(x)} and targets {y.shape}: allowed are two matrices with as many rows"
        )
    basis = reduce(x) if basis is None else basis
    mean = y.mean(0)
    return Ridge(basis, strengths, basis.u.T @ (y - mean), mean)


# --- intervals and chance -----------------------------------------------------------------------------------------------


def bootstrap(
    totals, counts=None, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and its percentile interval, images being the units: (value, low, high).

    totals (B,): sum over each image's tokens. counts (B,): how many tokens, default 1. The statistic is sum / count over the
    images, so tokens of one image stay together. Raises ValueError where nothing is counted.
    """
    totals = np.asarray(totals, dtype=np.float64)
    counts = np.ones_like(totals) if counts is None else np.asarray(counts, dtype=np.float64)
    totals, counts = totals[counts > 0], counts[counts > 0]
    if not len(totals):
        raise ValueError("bootstrap of 0 images: allowed are at least 1")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=draws)
    low, high = np.quantile(
        (weights @ totals) / (weights @ counts), [(1 - level) / 2, (1 + level) / 2]
    )
    return float(totals.sum() / counts.sum()), float(low), float(high)


def majority(train: np.ndarray, test: np.ndarray) -> float:
    """Chance level of a classification: share of test labels right when the most frequent training label is always guessed."""
    values, counts = np.unique(train, return_counts=True)
    return float((np.asarray(test) == values[counts.argmax()]).mean())
