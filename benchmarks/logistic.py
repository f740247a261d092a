"""How much faster is one path than 45 fits? Prints a table.

python benchmarks/logistic.py [--quick] [--save]     --save: benchmarks/results/logistic[-quick].md

Both fit the same 45 regressions (DINOv2's protocol) on the same data with one thread; seconds are
CPU time, since other jobs may share the machine. scikit-learn runs twice: at the protocol's
tolerance (max_iter 1000, tol 1e-12, dinov2/eval/log_regression.py) and at its own default (tol
1e-4, with the same max_iter), which stops early where C is large. "points" is the largest
difference in test accuracy at any strength, "gap" the largest excess of either objective over the
better one. Data: Gaussian classes whose channels' scales fall as k^-1/2, like the spectrum of token
features; not standardised.
"""

import argparse
import platform
import time
import warnings
from datetime import date
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from registers.measurements import code_version
from registers.probes.solvers import STRENGTHS, logistic_path

# n, D, C
SIZES = (
    (256, 64, 5),
    (256, 64, 40),
    (256, 384, 10),
    (512, 192, 10),
    (1000, 384, 10),
    (1000, 1024, 20),
    (2000, 384, 40),
)
LARGE = (6000, 192, 20)


def features(n: int, width: int, classes: int, held: int = 2000, seed: int = 0):
    rng = np.random.default_rng(seed)
    scale = np.arange(1, width + 1) ** -0.5
    centres = rng.normal(size=(classes, width)) * scale * 0.5
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n + held - classes)])
    x = centres[y] + rng.normal(size=(n + held, width)) * scale
    x = x @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    x /= x.std(0).mean()
    return x[:n], y[:n], x[n:], y[n:]


def scikit(x, y, tolerance: float):
    """Seconds, and the 45 fitted models."""
    start = time.process_time()
    models = [LogisticRegression(C=c, max_iter=1000, tol=tolerance).fit(x, y) for c in STRENGTHS]
    return time.process_time() - start, models


def objective(x, y, w, b, c) -> float:
    logits = x @ w.T + b
    highest = logits.max(1)
    total = np.log(np.exp(logits - highest[:, None]).sum(1)) + highest
    entropy = total - logits[np.arange(len(y)), y]
    return c * entropy.sum() + 0.5 * (w**2).sum()


def compare(n: int, width: int, classes: int) -> dict:
    x, y, xt, yt = features(n, width, classes)
    start = time.process_time()
    path = logistic_path(x, y)
    ours = time.process_time() - start
    strict, models = scikit(x, y, 1e-12)
    default, _ = scikit(x, y, 1e-4)
    accuracies = (path.predict(xt) == yt).mean(1)
    points = max(abs(100 * (a - m.score(xt, yt))) for a, m in zip(accuracies, models))
    gap = {"path": 0.0, "sklearn": 0.0}
    for i, (c, m) in enumerate(zip(STRENGTHS, models)):
        both = {
            "path": objective(x, y, path.coefficients[i], path.intercepts[i], c),
            "sklearn": objective(x, y, m.coef_, m.intercept_, c),
        }
        gap = {k: max(gap[k], v / min(both.values()) - 1) for k, v in both.items()}
    return {
        "n": n,
        "D": width,
        "C": classes,
        "path_s": round(ours, 3),
        "sklearn_s": round(strict, 2),
        "ratio": round(strict / ours, 1),
        "sklearn_default_s": round(default, 2),
        "ratio_default": round(default / ours, 1),
        "points": round(points, 2),
        "gap_path": f"{gap['path']:.0e}",
        "gap_sklearn": f"{gap['sklearn']:.0e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three sizes, seconds")
    parser.add_argument(
        "--save",
        action="store_true",
        help="write benchmarks/results/logistic.md, or logistic-quick.md",
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    sizes = SIZES[:3] if options.quick else (*SIZES, LARGE)
    with threadpool_limits(1):
        for size in sizes:
            rows.append(compare(*size))
            if len(rows) == 1:
                print(*(f"{name:>17}" for name in rows[0]))
            print(*(f"{value:>17}" for value in rows[-1].values()), flush=True)
    if options.save:
        name = "logistic-quick.md" if options.quick else "logistic.md"
        place = Path(__file__).parent / "results" / name
        place.parent.mkdir(exist_ok=True)
        device = f"{platform.machine()}, 1 thread"
        place.write_text(markdown(rows, date.today().isoformat(), device, code_version()))


def markdown(rows: list[dict], day: str, device: str, code: str) -> str:
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return (
        f"# Logistic regression, {day}, {device}\n\n"
        "45 regularised logistic regressions: one path against scikit-learn's 45 fits at the "
        "protocol's tolerance and at its default. "
        f"Columns: see benchmarks/logistic.py. Code {code}.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
