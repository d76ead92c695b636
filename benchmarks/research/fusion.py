"""One score from the scores of all retrievers and other features of a row, by boosted trees.

The trees learn on validation lists whose outcome is known. They are cross-fitted: the users are split into folds; for
each fold one model learns from the other folds and uses this one for early stopping; a score is the mean over the
models. All scenarios share the trees, so a scenario with few lists learns from the others too.

Shapes: Q lists, n rows, U users, I items, R retrievers, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.research.event_time_features import Lists
from recspark.config.rankers import Gbdt
from recspark.histories import owners, take
from recspark.metrics import ndcg_at_k
from recspark.models.rankers import gbdt

LISTS_A_BLOCK = 1024  # lists whose scores of all items are in memory at once


@dataclass(frozen=True)
class Retriever:
    """A fitted model and its module, which has `scores`."""

    module: ModuleType
    model: Any


@dataclass(frozen=True)
class Model:
    """One gbdt model for each fold, the chosen settings, and the mean NDCG@10 of each model on its own fold's lists."""

    folds: tuple[gbdt.Model, ...]
    settings: Gbdt
    held_out_ndcg: float


def columns(retrievers: Mapping[str, Retriever], lists: Lists) -> np.ndarray:
    """float32 (n, R): every retriever's score of every row, in the mapping's order.

    Memory: scores of all items are held for LISTS_A_BLOCK lists only.
    """
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
    user: np.ndarray,
    settings: Gbdt | Sequence[Gbdt],
    seed: int,
    num_folds: int = 3,
    num_threads: int = 0,
) -> Model:
    """Learn to rank the rows with `labels` (n,) above 0 first, from `features` (n, F).

    `user` (Q,): lists of the same user are in the same fold. Of several `settings` those with the best NDCG@10 on the
    first fold are used for all.

    Raises: DataError if no list has a positive row.
    """
    owner = lists.owner
    distinct, number = np.unique(user, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, num_folds, len(distinct))[number][owner]
    keys = np.stack((np.zeros_like(owner), np.zeros_like(owner), owner, lists.item_idx), axis=1)

    def learn(one: Gbdt, f: int) -> tuple[gbdt.Model, np.ndarray]:
        """The model that did not learn from fold f, and its scores (n,) there, NaN elsewhere."""
        mine = fold == f
        model = gbdt.fit(features, labels, keys, mine, names, one, seed + f, num_threads=num_threads)
        found = np.full(len(owner), np.nan)
        found[mine] = gbdt.predict(model, features[mine], num_threads)
        return model, found

    def figure(found: np.ndarray) -> float:
        return mean_ndcg(found, np.where(np.isnan(found), 0, labels), lists.offsets)

    first, *others = (
        np.unique(fold[labels > 0]).tolist() if (labels > 0).any() else [0]
    )  # without a positive row gbdt.fit raises the error
    tried = [(one, *learn(one, first)) for one in ([settings] if isinstance(settings, Gbdt) else settings)]
    best = max(range(len(tried)), key=lambda at: figure(tried[at][2])) if len(tried) > 1 else 0
    chosen, model, held_out = tried[best]
    models = [model]
    for f in others:
        model, found = learn(chosen, f)
        models.append(model)
        held_out = np.fmax(held_out, found)
    return Model(tuple(models), chosen, figure(held_out))


def predict(model: Model, features: np.ndarray, num_threads: int = 0) -> np.ndarray:
    """Scores float64 (n,), the mean over the folds' models; they compare only within a list."""
    return np.mean([gbdt.predict(fold, features, num_threads) for fold in model.folds], axis=0)


def ndcg(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray, k: int = 10) -> np.ndarray:
    """(Q,) NDCG@k of lists ordered by score: ties in the rows' order, NaN last. A list without positive is NaN."""
    owner = owners(offsets)
    clean = np.where(np.isnan(scores), -np.inf, scores)
    relevance = (labels > 0)[np.lexsort((-clean, owner))].astype(np.float64)
    return ndcg_at_k(relevance, offsets, np.bincount(owner, labels > 0, len(offsets) - 1).astype(np.int64), k)


def mean_ndcg(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray, k: int = 10) -> float:
    """Mean of `ndcg` over the lists that have a positive."""
    return float(np.nanmean(ndcg(scores, labels, offsets, k)))
