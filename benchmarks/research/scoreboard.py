"""The table of a benchmark: a line for each method, its mean and spread over the seeds."""

from collections.abc import Sequence

import numpy as np

from recspark import metrics

REPLICATES = 1000
Lines = dict[str, dict[str, float]]  # method -> figure -> value, of one seed


def spread(runs: Sequence[Lines], method: str, figure: str) -> tuple[float, float]:
    """(mean, standard deviation) over the seeds; the deviation of one seed is 0."""
    values = [run[method][figure] for run in runs]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def table(runs: Sequence[Lines], title: str) -> None:
    """Print every method's figures, mean +- standard deviation."""
    methods, names = list(runs[0]), list(next(iter(runs[0].values())))
    width = max(len(method) for method in methods) + 2
    print(f"\n{title}\n" + " " * width + " ".join(f"{name:>22s}" for name in names))
    for method in methods:
        cells = [spread(runs, method, name) for name in names]
        print(method.ljust(width) + " ".join(f"{f'{mean:.4f} +- {std:.4f}':>22s}" for mean, std in cells), flush=True)


def gain(places: np.ndarray) -> np.ndarray:
    """NDCG@10 of one true item at each place from 0."""
    return np.where(places < 10, 1.0 / np.log2(np.minimum(places, 10) + 2.0), 0.0)


def difference(ours: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """(mean, lower, upper) of the paired difference, 95 % bootstrap over the test events."""
    gap = ours - other
    weights = metrics.poisson_weights(metrics.hash_users(np.arange(len(gap)), 0), REPLICATES)
    return float(gap.mean()), *metrics.interval(gap @ weights / weights.sum(axis=0))
