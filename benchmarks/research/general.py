"""One scenario without any time: every item ranked, R@10 and NDCG@10.

DIR holds `interactions.parquet` (user_id, movie_id, rating). A rating of at least 3 is a positive, the rest is left
out; each user's positives are split 8:1:1 at random. Retrievers learn from train rows; validation rows make every
choice and fit the fusion over the pool of all retrievers' best items; the test is ranked once, with the user's train
and validation items left out. Recall is over all test items of a user; users without one are left out.
"""

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.research import event_time_features as moments
from benchmarks.research import fusion, scenario_linear, scenario_popular, scoreboard
from benchmarks.research.leave_one_out import histories, say
from recspark.config.rankers import Gbdt
from recspark.config.retrievers import CoOccurrence, Linear, MatrixFactorization
from recspark.histories import Histories, ranges
from recspark.metrics import ndcg_at_k, offsets_of, recall_at_k
from recspark.models.retrievers import affinity, co_occurrence, matrix_factorization
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.pool import pool
from recspark.models.topk import top_k

K, POOLED, MIN_RATING = 10, 60, 3
QUICK_USERS = 2000
TREES = tuple(
    Gbdt(max_rows=4_000_000, max_rounds=300, learning_rate=0.08, objective=objective)
    for objective in ("lambdarank", "rank_xendcg")
)
NO_DECAY = float("inf")  # half-life: times are unknown


def linear(l2: float, power: float = 0.0, dropout: float = 0.0) -> scenario_linear.Settings:
    return scenario_linear.Settings(Linear(l2=l2, half_life_days=NO_DECAY), power=power, dropout=dropout)


# the settings to choose from in each family, on validation
FAMILIES = {
    "popular": (scenario_popular, (scenario_popular.Settings(),)),
    "co_occurrence": (
        co_occurrence,
        tuple(CoOccurrence(half_life_days=NO_DECAY, shrinkage=s, neighbours=500) for s in (5.0, 50.0)),
    ),
    "factors": (
        matrix_factorization,
        tuple(MatrixFactorization(num_factors=f, half_life_days=NO_DECAY) for f in (32, 64, 128)),
    ),
    "linear": (scenario_linear, tuple(linear(l2) for l2 in (200.0, 400.0, 700.0, 1000.0))),
    "linear_scaled": (scenario_linear, tuple(linear(l2, power=0.5) for l2 in (20.0, 50.0, 100.0))),
    "linear_dropout": (
        scenario_linear,
        tuple(linear(l2, dropout=p) for l2, p in ((100.0, 0.25), (100.0, 0.4), (300.0, 0.25), (300.0, 0.4))),
    ),
}


@dataclass(frozen=True)
class Split:
    """Histories of the same users: to train on, to choose on, and to test on."""

    train: Histories
    valid: Histories
    test: Histories
    num_items: int


def read(folder: str, seed: int, quick: bool) -> Split:
    """Positives, split at random: of a user's n, n // 10 (rounded) each for test and validation."""
    rows = pq.read_table(f"{folder}/interactions.parquet", columns=["user_id", "movie_id", "rating"]).to_pandas()
    rows = rows[rows["rating"] >= MIN_RATING].drop_duplicates(["user_id", "movie_id"])
    user = np.unique(rows["user_id"], return_inverse=True)[1]
    if quick:
        rows, user = rows[user < QUICK_USERS], user[user < QUICK_USERS]
    names, item = np.unique(rows["movie_id"], return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(user)), user))
    size = np.bincount(user)
    place = ranges(size)
    tenth = np.rint(size / 10).astype(int)[user[order]]
    part = np.where(place < tenth, 2, np.where(place < 2 * tenth, 1, 0))
    zeros, unknown, rating = np.zeros(len(user), int), np.full(len(user), np.nan), rows["rating"].to_numpy(float)
    columns = (item, zeros, unknown, rating)
    parts = [order[part == p] for p in range(3)]
    train, valid, test = (histories(user[at], *(c[at] for c in columns), len(size)) for at in parts)
    return Split(train, valid, test, len(names))


def ranked(scores_UI: np.ndarray, truth: Histories, seen: list[Histories]) -> dict[str, float]:
    """R@10 and NDCG@10 of dense scores over the users with something to find."""
    masked = sum(affinity.seen(h.offsets, h.item_idx, scores_UI.shape[1]) for h in seen)
    return found(top_k(scores_UI, K, masked.tocsr())[0], truth, scores_UI.shape[1])


def found(top_UK: np.ndarray, truth: Histories, num_items: int) -> dict[str, float]:
    """The same of lists of item numbers (U, K), best first, -1 for an empty place."""
    wanted = affinity.seen(truth.offsets, truth.item_idx, num_items)
    users = np.repeat(np.arange(len(top_UK)), top_UK.shape[1])
    hits = (np.asarray(wanted[users, top_UK.ravel()]).ravel() > 0) & (top_UK.ravel() >= 0)
    offsets, relevant = offsets_of(users, len(top_UK)), np.diff(wanted.indptr)
    recall = recall_at_k(hits.astype(float), offsets, relevant, K)
    return {
        "R@10": float(np.nanmean(recall)),
        "N@10": float(np.nanmean(ndcg_at_k(hits.astype(float), offsets, relevant, K))),
    }


def choose(split: Split, seed: int) -> dict[str, np.ndarray]:
    """Dense scores float32 (U, I) of every family's best settings by validation NDCG@10."""
    catalogue, zeros = Catalogue(split.num_items, 1), np.zeros(len(split.train.offsets) - 1, dtype=int)
    chosen = {}
    for family, (module, variants) in FAMILIES.items():
        tried = []
        for settings in variants:
            model = module.fit(split.train, catalogue, settings, seed)
            dense = module.scores(model, split.train, zeros, np.full(len(zeros), np.nan))
            figures = ranked(dense, split.valid, [split.train])
            say(f"seed {seed}: {settings}: validation {figures}")
            tried.append((figures["N@10"], dense))
        chosen[family] = max(tried, key=lambda pair: pair[0])[1]
    return chosen


def pooled(dense: dict[str, np.ndarray], split: Split, seen: list[Histories]) -> tuple[moments.Lists, np.ndarray]:
    """Every retriever's best unseen items of each user as one list, and all retrievers' scores of them (n, R)."""
    num_users = len(split.train.offsets) - 1
    masked = sum(affinity.seen(h.offsets, h.item_idx, split.num_items) for h in seen).tocsr()
    rows = pool([top_k(scores, POOLED, masked)[0] for scores in dense.values()], num_users, split.num_items)
    offsets = offsets_of(rows.list_pos, num_users)
    lists = moments.Lists(
        split.train, np.zeros(num_users, dtype=int), np.full(num_users, np.nan), offsets, rows.item_idx
    )
    return lists, np.stack([scores[rows.list_pos, rows.item_idx] for scores in dense.values()], axis=1)


def fused(dense: dict[str, np.ndarray], split: Split, settings: Sequence[Gbdt], seed: int) -> np.ndarray:
    """The fusion's ten best items of every user (U, 10), -1 for an empty place; trained on validation rows."""
    record = moments.record(split.train, split.num_items, 1)
    lists, scores = pooled(dense, split, [split.train])
    names, features = moments.features(scores, list(dense), lists, record, time_features=False)
    valid = affinity.seen(split.valid.offsets, split.valid.item_idx, split.num_items)
    labels = np.asarray(valid[lists.owner, lists.item_idx]).ravel()
    model = fusion.fit(features, names, lists, labels, np.arange(len(lists.time)), settings, seed)
    rounds, taken = [fold.num_rounds for fold in model.folds], model.settings.objective
    say(f"seed {seed}: fusion of {features.shape}, {taken}, validation {model.held_out_ndcg:.4f}, {rounds} rounds")
    lists, scores = pooled(dense, split, [split.train, split.valid])
    features = moments.features(scores, list(dense), lists, record, time_features=False)[1]
    values = fusion.predict(model, features)
    order = np.lexsort((-values, lists.owner))
    place = np.arange(len(order)) - lists.offsets[lists.owner]
    top = np.full((len(lists.time), K), -1)
    top[lists.owner[place < K], place[place < K]] = lists.item_idx[order][place < K]
    return top


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """Mean over the seeds of the fusion's figures; prints every line beside them."""
    started, runs = clock.perf_counter(), []
    settings = [one.model_copy(update={"max_rounds": 60}) for one in TREES] if quick else TREES
    for seed in range(seeds):
        split = read(data, seed, quick)
        say(f"seed {seed}: {len(split.train.item_idx)} train rows, {split.num_items} items")
        dense = choose(split, seed)
        lines = {name: ranked(scores, split.test, [split.train, split.valid]) for name, scores in dense.items()}
        lines["fusion"] = found(fused(dense, split, settings, seed), split.test, split.num_items)
        runs.append(lines)
    seconds = (clock.perf_counter() - started) / seeds
    scoreboard.table(runs, f"general, {seeds} seeds, {seconds:.0f} s a seed")
    means = {line: {f: scoreboard.spread(runs, line, f)[0] for f in runs[0][line]} for line in runs[0]}
    return {"lines": means, **means["fusion"], "seeds": seeds, "seconds_a_seed": round(seconds, 1)}
