"""Linear models in closed form or by one warm path. Plain numpy in float64.

Letters: n rows, D channels, r the rank of the centred data, C classes, T targets, S strengths.
"""

from dataclasses import dataclass, field

import numpy as np

# dinov2/eval/log_regression.py: C = 10^linspace(-6, 5, 45),
STRENGTHS = 10.0 ** np.linspace(-6, 5, 45)
# chosen on this share of the training data (same file, seeded).
HELD_OUT = 0.1


@dataclass(frozen=True)
class Basis:
    """Centred data in an orthogonal basis: x - mean = u * s @ vt.

    mean (D,), u (n, r), s (r,), vt (r, D).
    """

    mean: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray


def reduce(x: np.ndarray) -> Basis:
    """The row space of x (n, D): one SVD, shared by all strengths and all targets.

    Directions without variance are dropped. Raises ValueError unless x is a non-empty matrix of
    finite numbers.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"features: shape {x.shape}; must be a non-empty matrix, rows by channels")
    bad = int((~np.isfinite(x)).sum())
    if bad:
        raise ValueError(f"features: {bad} of {x.size} are NaN or infinite; must be finite")
    mean = x.mean(0)
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    kept = s > 1e-10 * max(s[0], np.abs(mean).max() * np.sqrt(len(x)))
    return Basis(mean, u[:, kept], s[kept], vt[kept])


# --- classification


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regressions, one for each strength.

    strengths: (S,) C of scikit-learn.
    classes: (C,) labels as given.
    coefficients: (S, C, D). For two classes both rows are kept: scikit-learn's single row is their
    difference.
    intercepts: (S, C).
    iterations: (S,) how many each took.
    """

    strengths: np.ndarray
    classes: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    iterations: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(S, n) labels of x (n, D)."""
        x = np.asarray(x, dtype=np.float64)
        models = zip(self.coefficients, self.intercepts)
        return np.stack([self.classes[(x @ w.T + b).argmax(1)] for w, b in models])


def logistic_path(
    x: np.ndarray,
    y: np.ndarray,
    strengths: np.ndarray = STRENGTHS,
    *,
    tolerance: float = 3e-8,
    iterations: int = 1000,
    basis: Basis | None = None,
) -> Logistic:
    """L2-regularised multinomial logistic regression for all strengths, as one path.

    The objective is that of sklearn.linear_model.LogisticRegression(C): C * sum of cross entropies
    + |W|^2 / 2, intercept free (for two classes the binary form: |w1 - w0|^2 / 2).

    x: (n, D), not standardised.
    y: (n,) labels of any kind.
    strengths: C of scikit-learn; solved from the strongest penalty to the weakest.
    tolerance: each point ends when half its Newton decrement, the expected gain, falls below
        tolerance / 2 times the objective. At the default, coefficients are within 0.5 % (of the
        largest) of the exact solution and predictions agree to 0.2 points (tests).
    iterations: the most that one point may take.
    basis: `reduce(x)`, when x serves several label sets.

    Solved by L-BFGS in the whitened row space of x, where the data part of the Hessian is near the
    identity and the penalty is diagonal. Three things make a path cheaper than its points: each
    strength starts from the line or parabola (in log C) through the last solutions; curvature pairs
    are carried along, since another C changes them by a known multiple; and a line search costs no
    product with the data, as logits are linear in the step.

    Raises ValueError: fewer than two classes, lengths that differ, strengths not positive, x as in
    `reduce`.
    """
    strengths = np.asarray(strengths, dtype=np.float64).ravel()
    if not len(strengths) or not (strengths > 0).all():
        raise ValueError(
            f"strengths: {strengths.tolist()} is not allowed; must be positive numbers"
        )
    if len(x) != len(y):
        raise ValueError(f"{len(x)} rows of features, {len(y)} labels: must be equal numbers")
    classes, target = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels hold {len(classes)} class: must be at least 2")
    basis = reduce(x) if basis is None else basis
    problem = _Softmax(basis, target, len(classes))

    # --- solve each strength once, the strongest penalty first
    solutions = [None] * len(strengths)
    counts = np.zeros(len(strengths), dtype=int)
    for c in np.unique(strengths):
        solution, count = problem.solve(c, tolerance, iterations)
        for i in np.flatnonzero(strengths == c):
            solutions[i] = solution
            counts[i] = count

    # --- from whitened coordinates back to channels
    v = np.stack(solutions)  # (S, r + 1, C)
    n, rank = basis.u.shape
    w = (v[:, :rank] * (np.sqrt(n) / basis.s)[:, None]).transpose(0, 2, 1) @ basis.vt  # (S, C, D)
    return Logistic(strengths, classes, w, v[:, rank] - w @ basis.mean, counts)


@dataclass
class _Point:
    """Where the optimiser is, with all that it needs there.

    v: (r + 1, C) coefficients in whitened coordinates. logits: (n, C). value: of the objective.
    p: (n, C) probabilities.
    """

    v: np.ndarray
    logits: np.ndarray
    value: float
    p: np.ndarray = field(repr=False)


class _Softmax:
    """Mean cross entropy + penalty in whitened coordinates, solved for one C after another.

    C must ascend. basis: of the features. target: (n,) class numbers. classes: how many there are.
    """

    MEMORY = 12  # curvature pairs that are kept
    HALVINGS = 30  # steps of a line search

    def __init__(self, basis: Basis, target: np.ndarray, classes: int) -> None:
        n = len(target)
        # unit variance, and the intercept: (n, r + 1)
        self.x = np.hstack([np.sqrt(n) * basis.u, np.ones((n, 1))])
        self.xt = np.ascontiguousarray(self.x.T)
        self.cells = np.arange(n) * classes + target  # of the true class, in flattened logits
        # penalty of each direction, times 1 / C; none on the intercept
        factor = 2.0 if classes == 2 else 1.0
        self.scales = factor * np.append(1 / basis.s**2, 0.0)[:, None]
        prior = np.log(np.bincount(target, minlength=classes) / n)
        self.prior = (np.zeros((self.x.shape[1], classes)), np.tile(prior, (n, 1)))
        self.prior[0][-1] = prior
        # (log C, solution, logits) of the last three strengths
        self.solved: list[tuple[float, np.ndarray, np.ndarray]] = []
        # (step, change of the data part's gradient)
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        # of the softmax where all classes are equally likely
        self.curvature = (1 - 1 / classes) / classes

    def solve(self, c: float, tolerance: float, iterations: int) -> tuple[np.ndarray, int]:
        """Coefficients (r + 1, C) at this strength, and how many iterations they took."""
        penalty = self.scales / c
        point = self.start(c, penalty)
        pairs = [_with_penalty(s, y, penalty) for s, y in self.pairs]
        data = self.gradient(point.p)
        for done in range(iterations + 1):
            # --- a Newton step, unless it promises too little
            gradient = data + penalty * point.v
            step = -self._newton(gradient, pairs, penalty)
            gain = -float(np.vdot(gradient, step))
            if gain <= tolerance * point.value or done == iterations:
                break
            t, moved = self._line_search(point, step, gain, penalty)
            if moved.value > point.value:  # rounding: nothing is left to gain
                break
            point = moved

            # --- what the step told about the curvature
            changed = self.gradient(point.p)
            s = t * step
            y = changed - data
            data = changed
            curvature = np.vdot(s, y)
            if curvature > 0:
                self.curvature = float(np.vdot(y, y) / curvature)
                self.pairs = [*self.pairs, (s, y)][-self.MEMORY :]
                pairs = [*pairs, _with_penalty(s, y, penalty)][-self.MEMORY :]
        self.solved = [*self.solved, (np.log(c), point.v, point.logits)][-3:]
        return point.v, done

    def start(self, c: float, penalty: np.ndarray) -> _Point:
        """The best of the last solution and the line and parabola (in log C) through the last."""
        starts = []
        for count in range(1, len(self.solved) + 1):
            points = self.solved[-count:]
            weights = _lagrange([log_c for log_c, _, _ in points], np.log(c))
            v = sum(weight * v for weight, (_, v, _) in zip(weights, points))
            logits = sum(weight * logits for weight, (_, _, logits) in zip(weights, points))
            starts.append((v, logits))
        points = [self._point(v, logits, penalty) for v, logits in starts or [self.prior]]
        return min(points, key=lambda point: point.value)

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

    def _point(self, v: np.ndarray, logits: np.ndarray, penalty: np.ndarray) -> _Point:
        p, entropy = self.softmax(logits)
        return _Point(v, logits, entropy + 0.5 * np.vdot(penalty * v, v), p)

    def _line_search(
        self, point: _Point, step: np.ndarray, gain: float, penalty: np.ndarray
    ) -> tuple[float, _Point]:
        """Backtracking from a full step until the objective falls: (length, where it leads)."""
        v = point.v
        along = self.x @ step
        constant = np.vdot(penalty * v, v)
        linear = np.vdot(penalty * v, step)
        square = np.vdot(penalty * step, step)
        t = 1.0
        for _ in range(self.HALVINGS):
            p, entropy = self.softmax(point.logits + t * along)
            value = entropy + 0.5 * (constant + 2 * t * linear + t * t * square)
            if value <= point.value - 1e-4 * t * gain:
                break
            t *= 0.4
        return t, _Point(v + t * step, point.logits + t * along, value, p)

    def _newton(self, gradient: np.ndarray, pairs: list, penalty: np.ndarray) -> np.ndarray:
        """Two-loop recursion of L-BFGS (Nocedal & Wright, algorithm 7.4).

        First guess: 1 / (curvature + penalty).
        """
        q = gradient.copy()
        weights = []
        for s, y, rho in reversed(pairs):
            weights.append(rho * np.vdot(s, q))
            q -= weights[-1] * y
        q /= self.curvature + penalty
        for (s, y, rho), weight in zip(pairs, reversed(weights)):
            q += (weight - rho * np.vdot(y, q)) * s
        return q


def _with_penalty(s: np.ndarray, y: np.ndarray, penalty: np.ndarray):
    """A curvature pair of the whole objective, whatever C it was met at: (s, y, 1 / <s, y>)."""
    y = y + penalty * s
    return s, y, 1 / np.vdot(s, y)


def _lagrange(places: list[float], at: float) -> list[float]:
    """Weights with which values at `places` give the polynomial through them at another place."""
    weights = []
    for i, place in enumerate(places):
        others = places[:i] + places[i + 1 :]
        weights.append(np.prod([(at - other) / (place - other) for other in others]))
    return weights


def logistic_best(
    x: np.ndarray,
    y: np.ndarray,
    strengths: np.ndarray = STRENGTHS,
    *,
    seed: int = 0,
    basis: Basis | None = None,
) -> Logistic:
    """The logistic regression of DINOv2's evaluation, of one strength.

    C is chosen on a seeded 10 % of the training data, then fitted on all of it. Of equally good
    strengths the smallest C is taken; the choice is made on a path of tolerance 1e-6.

    x: (n, D). y: (n,) labels. strengths: C to choose from. seed: of the 10 %.
    basis: `reduce(x)` of all rows, where x serves several label sets.

    Source: dinov2/eval/log_regression.py. Raises ValueError as `logistic_path`.
    """
    y = np.asarray(y)
    order = np.random.default_rng(seed).permutation(len(y))
    count = max(1, round(HELD_OUT * len(y)))
    held = order[:count]
    kept = order[count:]
    strengths = np.sort(np.asarray(strengths, dtype=np.float64))
    if len(strengths) > 1 and len(np.unique(y[kept])) > 1:
        path = logistic_path(x[kept], y[kept], strengths, tolerance=1e-6)
        right = (path.predict(x[held]) == y[held]).sum(1)
        strengths = strengths[[right.argmax()]]
    return logistic_path(x, y, strengths[:1], basis=basis)


# --- regression


@dataclass(frozen=True)
class Ridge:
    """Ridge regressions for many targets and all strengths: one SVD, a diagonal for each strength.

    basis: of the features.
    strengths: (S,) scikit-learn's alpha.
    projections: (r, T) u^T (y - y_mean).
    y_mean: (T,).
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
        """(S,) mean squared errors, summed over targets, on rows x (n, D), y (n, T).

        No S predictions are made: |y - z B|^2 = |y|^2 - 2 <z^T y, B> + <z^T z, B B^T>, with z the
        rows in the basis and B diagonal times projections.
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
    """All minimisers of |y - x w - b|^2 + strength |w|^2, the intercept b free.

    x: (n, D). y: (n, T). strengths: (S,) >= 0; choose one by `errors` on held-out rows.
    basis: `reduce(x)`, where x serves several targets.

    Raises ValueError: lengths that differ, negative strengths, x as in `reduce`.
    """
    strengths = np.asarray(strengths, dtype=np.float64).ravel()
    if not len(strengths) or not (strengths >= 0).all():
        raise ValueError(
            f"strengths: {strengths.tolist()} is not allowed; must be numbers of at least 0"
        )
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"features {np.shape(x)} and targets {y.shape}: must be two matrices with as many rows"
        )
    basis = reduce(x) if basis is None else basis
    mean = y.mean(0)
    return Ridge(basis, strengths, basis.u.T @ (y - mean), mean)
