"""Choices made on validation lists: which settings of a retriever, and how much a scenario leans on its own weights.

Shapes: Q lists, n rows, R variants, S scenarios.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.research.fusion import ndcg
from recspark.event_time_features import Lists

SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
BORROWED = 200.0  # lists: how much the figure over all scenarios counts beside a scenario's own


def by_scenario(figure: np.ndarray, scenario_idx: np.ndarray, num_scenarios: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a figure (Q,) over the lists of each scenario, nan without any, and their number; nan is left out."""
    known = np.isfinite(figure)
    count = np.bincount(scenario_idx[known], minlength=num_scenarios)
    total = np.bincount(scenario_idx[known], figure[known], minlength=num_scenarios)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count


def best(scores: np.ndarray, names: Sequence[str], lists: Lists, labels: np.ndarray) -> str:
    """The variant, a column of `scores` (n, R), with the highest NDCG@10, every scenario counting the same; the first
    one among equals."""
    num_scenarios = int(lists.scenario_idx.max()) + 1
    figures = [
        np.nanmean(by_scenario(ndcg(column, labels, lists.offsets), lists.scenario_idx, num_scenarios)[0])
        for column in scores.T
    ]
    return names[int(np.argmax(figures))]


def own_shares(pooled: np.ndarray, own: np.ndarray, lists: Lists, labels: np.ndarray, num_scenarios: int) -> np.ndarray:
    """The share of `own` scores (n,) beside `pooled` ones for every scenario, (S,) of SHARES, by NDCG@10.

    A scenario's figure is shrunk towards the mean over all lists: one with few lists takes what suits everybody.
    """
    means = []
    for share in SHARES:
        figure = ndcg((1 - share) * pooled + share * own, labels, lists.offsets)
        mean, count = by_scenario(figure, lists.scenario_idx, num_scenarios)
        means.append((np.nan_to_num(mean) * count + BORROWED * np.nanmean(figure)) / (count + BORROWED))
    return np.array(SHARES)[np.argmax(means, axis=0)]
