"""Solvers against scikit-learn and closed forms."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge

from registers.probes.solvers import STRENGTHS, logistic_best, logistic_path, ridge


def blobs(
    n: int, width: int, classes: int, separation: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes in features of very different scales, rotated, far from the origin.

    Nothing is standardised.
    """
    rng = np.random.default_rng(seed)
    scale = np.arange(1, width + 1) ** -1.0
    centres = rng.normal(size=(classes, width)) * scale * separation
    y = rng.integers(0, classes, n)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return 20 * (centres[y] + rng.normal(size=(n, width)) * scale) @ rotation + 3, y


def objective(x, y, w, b, c):
    logits = x @ w.T + b
    logits -= logits.max(1, keepdims=True)
    entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    return c * entropy.sum() + 0.5 * (w**2).sum()


def test_strengths_are_those_of_dinov2():
    np.testing.assert_allclose(np.log10(STRENGTHS), -6 + 0.25 * np.arange(45), atol=1e-12)


# the second is separable, with D > n
@pytest.mark.parametrize(("width", "classes", "separation"), [(20, 5, 0.7), (150, 3, 0.5)])
def test_path_agrees_with_scikit_learn(width, classes, separation):
    x, y = blobs(600, width, classes, separation)
    (x, xt), (y, yt) = np.split(x, [100]), np.split(y, [100])
    path = logistic_path(x, y)
    ours = (path.predict(xt) == yt).mean(1)
    for i in range(0, 45, 4):
        reference = LogisticRegression(C=STRENGTHS[i], max_iter=20000, tol=1e-10).fit(x, y)
        assert abs(ours[i] - reference.score(xt, yt)) <= 0.002 + 1e-9  # 0.2 points: 1 of 500
        scale = np.abs(reference.coef_).max()
        np.testing.assert_allclose(path.coefficients[i], reference.coef_, atol=5e-3 * scale)
        best = objective(x, y, reference.coef_, reference.intercept_, STRENGTHS[i])
        reached = objective(x, y, path.coefficients[i], path.intercepts[i], STRENGTHS[i])
        assert reached <= best * (1 + 1e-6)


def test_two_classes_have_the_binary_objective_of_scikit_learn():
    x, y = blobs(200, 6, 2, 0.4)
    path = logistic_path(x, np.array(["cat", "dog"])[y], [1e-4, 1e-2, 1.0], tolerance=1e-12)
    assert path.classes.tolist() == ["cat", "dog"]
    assert set(path.predict(x)[0]) <= {"cat", "dog"}
    for i, c in enumerate(path.strengths):
        reference = LogisticRegression(C=c, max_iter=20000, tol=1e-10).fit(x, y)
        w = path.coefficients[i, 1] - path.coefficients[i, 0]
        b = path.intercepts[i, 1] - path.intercepts[i, 0]
        np.testing.assert_allclose(w, reference.coef_[0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(b, reference.intercept_[0], rtol=1e-3)


def test_path_does_not_depend_on_order_or_neighbours():
    x, y = blobs(120, 10, 4, 0.8)
    forward = logistic_path(x, y, [1e-3, 1e-1, 10.0], tolerance=1e-12)
    backward = logistic_path(x, y, [10.0, 1e-1, 1e-3], tolerance=1e-12)
    alone = logistic_path(x, y, [10.0], tolerance=1e-12)
    np.testing.assert_allclose(forward.coefficients, backward.coefficients[::-1], rtol=1e-8)
    scale = np.abs(alone.coefficients).max()
    np.testing.assert_allclose(forward.coefficients[2], alone.coefficients[0], atol=1e-4 * scale)


def test_a_warm_path_is_short():
    x, y = blobs(300, 40, 5, 0.8)
    path = logistic_path(x, y)
    cold = [logistic_path(x, y, [c]).iterations[0] for c in STRENGTHS]
    assert path.iterations.sum() < sum(cold) / 2


def test_without_information_the_path_predicts_the_prior():
    y = np.array([0] * 30 + [1] * 10 + [2] * 20)
    path = logistic_path(np.ones((60, 3)), y, [1.0])
    p = np.exp(path.intercepts[0]) / np.exp(path.intercepts[0]).sum()
    np.testing.assert_allclose(p, [1 / 2, 1 / 6, 1 / 3], atol=1e-9)
    assert np.abs(path.coefficients).max() == 0


def test_bad_input_is_named():
    x, y = blobs(20, 3, 2, 1.0)
    with pytest.raises(ValueError, match="strengths"):
        logistic_path(x, y, [0.0])
    with pytest.raises(ValueError, match="1 class"):
        logistic_path(x, np.zeros(20))
    with pytest.raises(ValueError, match="20 rows of features, 19 labels"):
        logistic_path(x, y[1:])
    with pytest.raises(ValueError, match="1 of 60 are NaN"):
        logistic_path(np.where(np.arange(60).reshape(20, 3) == 7, np.nan, x), y)
    with pytest.raises(ValueError, match="strengths"):
        ridge(x, x, [-1.0])


def test_best_strength_is_chosen_on_held_out_rows():
    """One useful channel of large variance among many noisy ones.

    Weak penalties overfit; the choice must not.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 900)
    useful = (2 * y - 1)[:, None] * 6 + rng.normal(size=(900, 1)) * 5
    x = np.hstack([useful, rng.normal(size=(900, 250))])
    train = slice(0, 300)
    test = slice(300, None)
    best = logistic_best(x[train], y[train])
    everything = logistic_path(x[train], y[train])
    overfitted = (everything.predict(x[test])[-1] == y[test]).mean()
    assert (best.predict(x[test])[0] == y[test]).mean() > overfitted + 0.03
    assert best.strengths.shape == (1,)
    refit = logistic_path(x[train], y[train], best.strengths)  # on all rows, not on 90 % of them
    np.testing.assert_array_equal(best.coefficients, refit.coefficients)


@pytest.mark.parametrize("shape", [(80, 12), (15, 40)])
def test_ridge_equals_scikit_learn(shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape) * 5 + 2
    y = rng.normal(size=(shape[0], 7)) + 1
    xt = rng.normal(size=(9, shape[1]))
    yt = rng.normal(size=(9, 7))
    model = ridge(x, y, [1e-3, 1.0, 100.0])
    for i, strength in enumerate(model.strengths):
        reference = SklearnRidge(alpha=strength).fit(x, y)
        w, b = model.coefficients(i)
        np.testing.assert_allclose(w.T, reference.coef_, atol=1e-8)
        np.testing.assert_allclose(b, reference.intercept_, atol=1e-8)
        error = ((reference.predict(xt) - yt) ** 2).sum(1).mean()
        assert np.isclose(model.errors(xt, yt)[i], error, rtol=1e-8)


def test_ridge_without_penalty_is_least_squares():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 4))
    y = rng.normal(size=(30, 2))
    expected = LinearRegression().fit(x, y).predict(x)
    np.testing.assert_allclose(ridge(x, y, [0.0]).predict(x, 0), expected, atol=1e-9)
