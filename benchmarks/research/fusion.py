"""All retrievers' scores and the popularity of the moment as one score, learnt on lists whose outcome is known.

The lists come from validation rows in the benchmarks and from past dates in the nightly run. Cross-fitted: the people
are cut into folds, one model a fold stops early on it and learns from the others; a score is the models' mean. A
scenario with few lists borrows from all: the trees are shared, and know a scenario by its activity.
Shapes: Q lists, n rows, U users, I items, R retrievers, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from recspark.config.schema import Gbdt
from recspark.event_time_features import Lists
from recspark.histories import take
from recspark.metrics import ndcg_at_k
from recspark.models.rankers import gbdt

LISTS_A_BLOCK = 1024  # lists whose scores over all items are held at once


@dataclass(frozen=True)
class Retriever:
    """A fitted model and the module that reads it."""

    module: ModuleType
    model: Any


@dataclass(frozen=True)
class Model:
    """One gbdt model a fold, the settings taken, and NDCG@10 of the lists that each was not taught, their mean."""

    folds: tuple[gbdt.Model, ...]
    settings: Gbdt
    held_out_ndcg: float


def columns(retrievers: Mapping[str, Retriever], lists: Lists) -> np.ndarray:
    """float32 (n, R): every retriever's score of every row, in the mapping's order. Dense in blocks only."""
    out = np.empty((len(lists.item_idx), len(retrievers)), dtype=np.float32)
    owner_n = lists.owner
    for low in range(0, len(lists.time), LISTS_A_BLOCK):
        users = np.arange(low, min(low + LISTS_A_BLOCK, len(lists.time)))
        block = take(lists.histories, users)
        rows = slice(lists.offsets[users[0]], lists.offsets[users[-1] + 1])
        owner = owner_n[rows] - low
        for r, retriever in enumerate(retrievers.values()):
            dense = retriever.module.scores(retriever.model, block, lists.scenario_idx[users], lists.time[users])
            out[rows, r] = dense[owner, lists.item_idx[rows]]
    return out


def fit(
    features: np.ndarray,
    names: Sequence[str],
    lists: Lists,
    labels: np.ndarray,
    people: np.ndarray,
    settings: Gbdt | Sequence[Gbdt],
    seed: int,
    num_folds: int = 3,
    num_threads: int = 0,
) -> Model:
    """Learn the order of `labels` (n,), positive where above 0, from `features` (n, F).

    `people` (Q,): lists of the same one are held out together. Where there are several `settings`, those with the best
    NDCG@10 on the first fold are taken for all. Raises DataError when no list has a positive.
    """
    owner = lists.owner
    distinct, person = np.unique(people, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, num_folds, len(distinct))[person][owner]
    keys = np.stack((np.zeros_like(owner), np.zeros_like(owner), owner, lists.item_idx), axis=1)

    def learn(one: Gbdt, f: int) -> tuple[gbdt.Model, np.ndarray]:
        """The model that does not know fold f, and its scores (n,) there, nan elsewhere."""
        mine = fold == f
        model = gbdt.fit(features, labels, keys, mine, names, one, seed + f, num_threads=num_threads)
        found = np.full(len(owner), np.nan)
        found[mine] = gbdt.predict(model, features[mine], num_threads)
        return model, found

    def figure(found: np.ndarray) -> float:
        return mean_ndcg(found, np.where(np.isnan(found), 0, labels), lists.offsets)

    first, *others = np.unique(fold[labels > 0]).tolist() if (labels > 0).any() else [0]  # gbdt says what is wrong
    tried = [(one, *learn(one, first)) for one in ([settings] if isinstance(settings, Gbdt) else settings)]
    best = max(range(len(tried)), key=lambda at: figure(tried[at][2])) if len(tried) > 1 else 0
    taken, model, held_out = tried[best]
    models = [model]
    for f in others:
        model, found = learn(taken, f)
        models.append(model)
        held_out = np.fmax(held_out, found)
    return Model(tuple(models), taken, figure(held_out))


def predict(model: Model, features: np.ndarray, num_threads: int = 0) -> np.ndarray:
    """Scores float64 (n,), comparable within a list: the folds' mean."""
    return np.mean([gbdt.predict(fold, features, num_threads) for fold in model.folds], axis=0)


def ndcg(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray, k: int = 10) -> np.ndarray:
    """(Q,) NDCG@k of lists ordered by score; equal ones stay in the rows' order, nan last; nan without positive."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    clean = np.where(np.isnan(scores), -np.inf, scores)
    relevance = (labels > 0)[np.lexsort((-clean, owner))].astype(np.float64)
    return ndcg_at_k(relevance, offsets, np.bincount(owner, labels > 0, len(offsets) - 1).astype(np.int64), k)


def mean_ndcg(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray, k: int = 10) -> float:
    """Mean of `ndcg` over the lists that have a positive."""
    return float(np.nanmean(ndcg(scores, labels, offsets, k)))
