"""Simple recommenders on the events that a night saw: popularity, item kNN, EASE, ALS and BM25, each K items a list.

Written apart from the product. Every rival ranks the items that the scenario's rule allows and the user never touched.
Shapes: U users, I items (in order of item_id, which breaks ties), L lists. Memory: 4 I^2 bytes for EASE.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

POPULARITY_DAYS = (28, 90, 365)
EASE_L2, EASE_ITEMS = 300.0, 15_000
KNN_SHRINKAGE, KNN_NEIGHBOURS = 10.0, 200
ALS_FACTORS, BM25_NEIGHBOURS = 64, 200
LISTS_A_BLOCK = 256

Score = Callable[[np.ndarray], np.ndarray]  # lists (b,) -> float (b, I)


@dataclass(frozen=True)
class Past:
    """Events before a night: `positive_UI` 1 for items with weight above 0, `seen_UI` for any event; the same by
    scenario. `user`, `scenario` (L,): of the lists. `allowed_SI`: items of each scenario. `days` by event: age."""

    users: pd.Index
    items: pd.Index
    scenarios: pd.Index
    events: pd.DataFrame  # user, item, scenario (positions), age in days, positive
    user: np.ndarray
    scenario: np.ndarray
    allowed_SI: np.ndarray

    def matrix(self, rows: pd.Series) -> sp.csr_matrix:
        """1 for each (user, item) of some events, float32 (U, I)."""
        part = self.events[rows]
        shape = (len(self.users), len(self.items))
        found = sp.csr_matrix((np.ones(len(part), np.float32), (part["user"], part["item"])), shape=shape)
        found.data[:] = 1.0
        return found


def past(events: pd.DataFrame, day: float, lists: pd.DataFrame, own_items: set[str]) -> Past:
    """`events`: scenario, user_id, item_id, day, weight, all before `day`; `lists`: scenario, user_id; `own_items`: the
    scenarios whose lists hold only items with an event there."""
    users, items, scenarios = (pd.Index(sorted(events[n].unique())) for n in ("user_id", "item_id", "scenario"))
    flat = pd.DataFrame({
        "user": users.get_indexer(events["user_id"]),
        "item": items.get_indexer(events["item_id"]),
        "scenario": scenarios.get_indexer(events["scenario"]),
        "age": day - events["day"].to_numpy(),
        "positive": events["weight"].to_numpy() > 0,
    })  # fmt: skip
    allowed = np.ones((len(scenarios), len(items)), dtype=bool)
    for at, name in enumerate(scenarios):
        if name in own_items:
            allowed[at] = False
            allowed[at, flat.loc[flat["scenario"] == at, "item"]] = True
    user, scenario = users.get_indexer(lists["user_id"]), scenarios.get_indexer(lists["scenario"])
    return Past(users, items, scenarios, flat, user, scenario, allowed)


def top_lists(known: Past, lists: pd.DataFrame, k: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, rows scenario, user_id, item_id, rank) of every rival."""
    seen_UI = known.matrix(known.events["age"] > -np.inf)
    for name, score in scorers(known):
        parts = []
        for low in range(0, len(lists), LISTS_A_BLOCK):
            block = np.arange(low, min(low + LISTS_A_BLOCK, len(lists)))
            scores = np.array(score(block), dtype=np.float64)
            scores[~known.allowed_SI[known.scenario[block]]] = -np.inf
            scores[seen_UI[known.user[block]].nonzero()] = -np.inf
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            parts.append(pd.DataFrame({
                "scenario": np.repeat(lists["scenario"].to_numpy()[block], best.shape[1]),
                "user_id": np.repeat(lists["user_id"].to_numpy()[block], best.shape[1]),
                "item_id": known.items.to_numpy()[best.ravel()],
                "rank": np.tile(np.arange(1, best.shape[1] + 1), len(block)),
            }))  # fmt: skip
        yield name, pd.concat(parts)


def scorers(known: Past) -> Iterator[tuple[str, Score]]:
    """(name, scores of lists) of every rival that can be had here; what cannot is said in a line."""
    positive_UI = known.matrix(known.events["positive"])
    popular_SI = {days: popularity(known, days) for days in POPULARITY_DAYS}
    for days, counts in popular_SI.items():
        yield f"popular_{days}", lambda block, counts=counts: counts[known.scenario[block]]
        everywhere = counts.sum(axis=0)
        yield f"popular_{days}_everywhere", lambda block, all_=everywhere: np.tile(all_, (len(block), 1))
    near = cosine_neighbours(positive_UI)
    yield "item_knn", lambda block: (positive_UI[known.user[block]] @ near).toarray()
    if len(known.items) <= EASE_ITEMS:
        weights = ease(positive_UI)
        yield "ease", lambda block: positive_UI[known.user[block]] @ weights
        likes = np.log1p(popular_SI[90])
        yield (
            "ease_x_popular_90",
            lambda block: np.maximum(positive_UI[known.user[block]] @ weights, 0) * likes[known.scenario[block]],
        )
        yield "ease_own", own_ease(known)
    else:
        print(f"ease: left out, {len(known.items)} items are more than {EASE_ITEMS}", flush=True)
    if importlib.util.find_spec("implicit") is None:
        print("als, bm25: left out, implicit is not installed; uv run --group peers", flush=True)
        return
    yield from peers(known, positive_UI)


def popularity(known: Past, days: int) -> np.ndarray:
    """Positive events of each item in each scenario within the last `days`, float64 (S, I)."""
    part = known.events[(known.events["age"] <= days) & known.events["positive"]]
    counts = np.zeros((len(known.scenarios), len(known.items)))
    np.add.at(counts, (part["scenario"].to_numpy(), part["item"].to_numpy()), 1.0)
    return counts


def cosine_neighbours(positive_UI: sp.csr_matrix) -> sp.csr_matrix:
    """Cosine with shrunk norms, the KNN_NEIGHBOURS most similar items of each item (I, I)."""
    pairs = (positive_UI.T @ positive_UI).tocsr()
    norm = 1.0 / np.sqrt(pairs.diagonal() + KNN_SHRINKAGE)
    pairs.setdiag(0)
    pairs = (sp.diags(norm) @ pairs @ sp.diags(norm)).tocsr()
    for row in np.flatnonzero(np.diff(pairs.indptr) > KNN_NEIGHBOURS):
        part = pairs.data[pairs.indptr[row] : pairs.indptr[row + 1]]
        part[part < np.partition(part, -KNN_NEIGHBOURS)[-KNN_NEIGHBOURS]] = 0
    pairs.eliminate_zeros()
    return pairs


def ease(positive_UI: sp.csr_matrix) -> np.ndarray:
    """The weights of Steck 2019 by a general inverse, float32 (I, I)."""
    gram = (positive_UI.T @ positive_UI).toarray().astype(np.float64)
    gram[np.diag_indices(len(gram))] += EASE_L2
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights, dtype=np.float32)


def own_ease(known: Past) -> Score:
    """EASE learnt and scored within each scenario."""
    learnt: dict[int, tuple[sp.csr_matrix, np.ndarray, np.ndarray]] = {}
    for scenario in np.unique(known.scenario):
        here = known.matrix(known.events["positive"] & (known.events["scenario"] == scenario))
        items = np.unique(here.indices)
        learnt[scenario] = (here[:, items], items, ease(here[:, items]) if len(items) else np.zeros((0, 0)))

    def score(block: np.ndarray) -> np.ndarray:
        out = np.zeros((len(block), len(known.items)), dtype=np.float32)
        for scenario in np.unique(known.scenario[block]):
            at = np.flatnonzero(known.scenario[block] == scenario)
            own_UI, items, weights = learnt[scenario]
            out[np.ix_(at, items)] = own_UI[known.user[block[at]]] @ weights
        return out

    return score


def peers(known: Past, positive_UI: sp.csr_matrix) -> Iterator[tuple[str, Score]]:
    """ALS and BM25 of the library `implicit`, with its defaults."""
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import BM25Recommender

    als = AlternatingLeastSquares(factors=ALS_FACTORS, random_state=0)
    als.fit(positive_UI, show_progress=False)
    yield "als", lambda block: als.user_factors[known.user[block]] @ als.item_factors.T
    bm25 = BM25Recommender(K=BM25_NEIGHBOURS)
    bm25.fit(positive_UI, show_progress=False)
    yield "bm25", lambda block: (positive_UI[known.user[block]] @ bm25.similarity.T).toarray()
