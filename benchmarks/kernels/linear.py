"""Item-to-item weights over nearest neighbours beside the closed form: `python -m benchmarks linear --data DIR`.

Quality: for each data set, the 12,000 items with most events; of every user with 5 items or more the last fifth is
hidden, and all items not seen are ranked. Seconds and peak memory: all items of each set, and a planted catalogue of
25,000 and of 100,000 items with 40 events an item. DIR: the folder of all data.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.sparse as sp

from recspark.metrics import ndcg_at_k
from recspark.models.retrievers import linear

ITEMS, L2, K = 12_000, 100.0, 10
SETS: dict[str, Callable[[str], pd.DataFrame]] = {
    "amazon-beauty-electronics": lambda path: pd.read_csv(f"{path}/events.csv").rename(columns={"timestamp": "time"}),
    "amazon-beauty-sports-toys": lambda path: (
        pq.read_table(f"{path}/interactions.parquet")
        .to_pandas()
        .rename(columns={"user": "user_id", "item": "item_id", "pos": "time"})
    ),
    "retail-rocket": lambda path: pd.read_csv(f"{path}/events.csv").rename(columns={"timestamp": "time"}),
}


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """`quick`: 2,000 items, and no planted catalogue of 100,000; `seeds` is not used."""
    quality, costs = [], []
    for name, read in SETS.items():
        events = read(f"{data}/{name}").drop_duplicates(["user_id", "item_id"])
        history_UI, hidden_UI = split(most_used(events, 2_000 if quick else ITEMS))
        gram_II = (history_UI.T @ history_UI).tocsr()
        sparse, exact = linear.fit(gram_II, L2, 0), linear.fit(gram_II, L2, ITEMS)
        near, full = (ndcg(history_UI, weights, hidden_UI) for weights in (sparse, exact))
        quality.append({"data": name, "nearest": near, "closed_form": full, "ratio": near / full})
        print(quality[-1], flush=True)
        costs.append({"catalogue": name, **cost(split(events)[0])})
        print(costs[-1], flush=True)
    for items in (25_000,) if quick else (25_000, 100_000):
        costs.append({"catalogue": f"planted {items}", **cost(planted(items))})
        print(costs[-1], flush=True)
    print(pd.DataFrame(quality).round(4).to_string(index=False))
    print(pd.DataFrame(costs).round(1).to_string(index=False))
    return {"quality": quality, "costs": costs}


def most_used(events: pd.DataFrame, items: int) -> pd.DataFrame:
    """The events with the `items` most used items."""
    best = events["item_id"].value_counts().index[:items]
    return events[events["item_id"].isin(best)]


def split(events: pd.DataFrame) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """(what is learnt from, what is hidden): float64 (U, I) of ones."""
    events = events.sort_values(["user_id", "time"], kind="stable")
    user, item = (pd.factorize(events[name])[0] for name in ("user_id", "item_id"))
    place, size = events.groupby("user_id").cumcount().to_numpy(), np.bincount(user)
    hidden = (size[user] >= 5) & (place >= np.floor(0.8 * size[user]))
    shape = (int(user.max()) + 1, int(item.max()) + 1)
    parts = (sp.csr_matrix((np.ones(rows.sum()), (user[rows], item[rows])), shape=shape) for rows in (~hidden, hidden))
    history_UI, hidden_UI = parts
    return history_UI, hidden_UI


def ndcg(history_UI: sp.csr_matrix, weights_II: Any, hidden_UI: sp.csr_matrix) -> float:
    """Mean NDCG@K over the users with something hidden."""
    users, found = np.flatnonzero(np.diff(hidden_UI.indptr)), []
    for low in range(0, len(users), 256):
        block = users[low : low + 256]
        seen = history_UI[block]
        scores = linear.scores(seen, weights_II)
        scores[seen.nonzero()] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        hits = np.take_along_axis(hidden_UI[block].toarray() > 0, best, axis=1).ravel()
        wanted = np.diff(hidden_UI[block].indptr)
        found.append(ndcg_at_k(hits, np.arange(len(block) + 1) * best.shape[1], wanted, K))
    return float(np.concatenate(found).mean())


def planted(items: int) -> sp.csr_matrix:
    """40 events an item, 40 a user, half of a user's events in the user's own 500 items; popularity falls as 1/rank."""
    rng = np.random.default_rng(0)
    events = 40 * items
    user = np.repeat(np.arange(items), 40)
    popular = np.minimum((items ** rng.random(events)).astype(np.int64), items) - 1
    own = (user % (items // 500)) * 500 + rng.integers(0, 500, events)
    item = np.where(rng.random(events) < 0.5, popular, own)
    matrix = sp.csr_matrix((np.ones(events), (user, item)), shape=(items, items))
    matrix.data[:] = 1.0
    return matrix


def cost(history_UI: sp.csr_matrix) -> dict[str, float]:
    """Seconds and peak GB of the Gram matrix and the weights, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_cost, (history_UI,))


def _cost(history_UI: sp.csr_matrix) -> dict[str, float]:
    began = time.monotonic()
    gram_II = linear.assemble(linear.gram_blocks(history_UI), history_UI.shape[1])
    weights_II = linear.fit(gram_II, L2, 0)
    return {
        "items": history_UI.shape[1],
        "events": history_UI.nnz,
        "pairs": gram_II.nnz,
        "weights": weights_II.nnz,
        "seconds": time.monotonic() - began,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
