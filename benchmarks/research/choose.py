"""Choices made on validation lists: the settings of a retriever, and the share of a scenario's own weights.

Shapes: Q lists, n rows, R variants, S scenarios.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.research.event_time_features import Lists
from benchmarks.research.fusion import ndcg

SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
BORROWED = 200.0  # the mean over all scenarios counts as much as this many lists of the scenario


def by_scenario(figure: np.ndarray, scenario_idx: np.ndarray, num_scenarios: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of a figure (Q,) in each scenario, without NaN, and the number of lists in it; NaN for no list."""
    known = np.isfinite(figure)
    count = np.bincount(scenario_idx[known], minlength=num_scenarios)
    total = np.bincount(scenario_idx[known], figure[known], minlength=num_scenarios)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count


def best(scores: np.ndarray, names: Sequence[str], lists: Lists, labels: np.ndarray) -> str:
    """The name of the variant, a column of `scores` (n, R), with the highest NDCG@10; the first one of equals.

    Every scenario counts the same.
    """
    num_scenarios = int(lists.scenario_idx.max()) + 1
    figures = [
        np.nanmean(by_scenario(ndcg(column, labels, lists.offsets), lists.scenario_idx, num_scenarios)[0])
        for column in scores.T
    ]
    return names[int(np.argmax(figures))]


def own_shares(pooled: np.ndarray, own: np.ndarray, lists: Lists, labels: np.ndarray, num_scenarios: int) -> np.ndarray:
    """(S,) of SHARES: in every scenario the share of `own` scores (n,), the rest `pooled` (n,), with the best NDCG@10.

    A scenario's NDCG is shrunk towards the mean over all lists, so that a scenario with few lists gets the share that
    is best for all.
    """
    means = []
    for share in SHARES:
        figure = ndcg((1 - share) * pooled + share * own, labels, lists.offsets)
        mean, count = by_scenario(figure, lists.scenario_idx, num_scenarios)
        means.append((np.nan_to_num(mean) * count + BORROWED * np.nanmean(figure)) / (count + BORROWED))
    return np.array(SHARES)[np.argmax(means, axis=0)]
