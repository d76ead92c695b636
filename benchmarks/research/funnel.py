"""View, cart and buy as three tasks of one ranker: `python -m benchmarks funnel --data DIR --seeds 3`.

DIR/events.csv: user_id, item_id, event (view, cart, buy), timestamp (seconds); DIR/test_buys.csv: user_id, item_id, one
later buy a user, of an item that the user has no event with. All items without events of the user are
ranked. An item counts once a user, at its first event, as its deepest event. Each user's last bought item and the
`AHEAD` last others are for validation: retrievers do not know them, rankers learn from them, they decide every choice;
test buys are looked at once. `buy only` and `multi-task` are the same torch ranker over the same candidates and
features; one learns from buys, the other from view, cart given view, and buy given cart.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.research import event_time_features as moments
from benchmarks.research import fusion, scenario_popular, transitions
from benchmarks.research.event_time_features import Lists
from benchmarks.research.scoreboard import difference, gain, spread, table
from recspark import columns as c
from recspark import histories as history_files
from recspark import model_folder
from recspark.config.rankers import Gbdt, Ranker, Task
from recspark.config.retrievers import CoOccurrence
from recspark.errors import TrainingError
from recspark.histories import Histories, keep, take
from recspark.models.retrievers import affinity, co_occurrence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.pool import pool
from recspark.models.topk import top_k
from recspark.training import entry
from recspark.training.ranking import fit, scoring
from recspark.training.ranking import job as trainer

EVENTS = ("view", "cart", "buy")
BUY = EVENTS.index("buy")
AHEAD = 3  # items of a user beside the last bought one that the rankers learn from
QUICK_USERS = 400
BLOCK = 256
L2 = (30.0, 100.0, 300.0, 1000.0)
POOLS = {"ease": 150, "near_weak": 80, "spectral_recent": 60, "popular": 40}  # what ranks all items -> candidates
SCORED = (*transitions.VIEWS, "ease")  # what becomes a feature
TASKS = {  # learner -> (task, the task before it in the funnel); the first one ranks
    "buy only": (("buy", None),),
    "multi-task": (("buy", "cart"), ("cart", "view"), ("view", None)),
}
SETTINGS = Ranker(embedding_dim=16, max_epochs=20, patience=3, batch_size=2048)

Score = Callable[[Histories], np.ndarray]  # histories of some users -> (users, items)


@dataclass(frozen=True)
class Queries:
    """What is known of users, and of the items that come next: user (n,), item (n,), depth (n,), by user."""

    known: Histories
    user: np.ndarray
    item: np.ndarray
    depth: np.ndarray


def read(folder: str, quick: bool) -> tuple[Queries, Queries, Catalogue]:
    """(validation, test, catalogue), both with all users; items are all of both files."""
    events = pd.read_csv(Path(folder) / "events.csv")
    tests = pd.read_csv(Path(folder) / "test_buys.csv").drop_duplicates("user_id").sort_values("user_id")
    items = pd.Index(np.union1d(events["item_id"], tests["item_id"]))
    tests = tests[tests["user_id"].isin(events["user_id"])]
    tests = tests[:QUICK_USERS] if quick else tests
    events = events[events["user_id"].isin(tests["user_id"])]
    events["depth"] = pd.Index(EVENTS).get_indexer(events["event"])
    met = events.groupby(["user_id", "item_id"], as_index=False).agg(time=("timestamp", "min"), depth=("depth", "max"))
    met = met.sort_values(["user_id", "time", "item_id"], ignore_index=True)
    met["user"] = pd.Index(tests["user_id"]).get_indexer(met["user_id"])
    met["item"] = items.get_indexer(met["item_id"])
    held = held_out(met)
    complete, rest, ahead = histories(met, len(tests)), histories(met[~held], len(tests)), met[held]
    valid = Queries(rest, *(ahead[name].to_numpy() for name in ("user", "item", "depth")))
    users = np.arange(len(tests))
    test = Queries(complete, users, items.get_indexer(tests["item_id"]), np.full(len(users), BUY))
    return valid, test, Catalogue(len(items), len(EVENTS))


def held_out(met: pd.DataFrame) -> np.ndarray:
    """Each user's last bought item and the AHEAD last others, as long as the user keeps as many, bool (rows,)."""
    bought = met["depth"] == BUY
    last = ~met[bought].duplicated("user", keep="last")
    others = met[~met.index.isin(last.index[last])]
    place, size = others.groupby("user").cumcount(ascending=False), others.groupby("user")["item"].transform("size")
    found = np.zeros(len(met), dtype=bool)
    found[others.index[(place < AHEAD) & (place < size // 2)]] = True
    several = met.groupby("user")["item"].transform("size") > 1
    found[last.index[last]] = True
    return found & several.to_numpy()


def histories(met: pd.DataFrame, num_users: int) -> Histories:
    """The items that users met, in order of time; scenario is how deep each went."""
    sizes = np.bincount(met["user"], minlength=num_users)
    ones, unknown = np.ones(len(met)), np.full(len(met), np.nan)
    offsets, days = np.concatenate(([0], np.cumsum(sizes))), met["time"].to_numpy() / 86400.0
    return Histories(offsets, met["item"].to_numpy(), met["depth"].to_numpy(), days, ones, unknown, unknown)


def bought(histories: Histories) -> Histories:
    """The buys alone."""
    return keep(histories, histories.scenario_idx == BUY)


# -- retrievers --------------------------------------------------------------------------------------------------------


def ease(known: Histories, num_items: int, l2: float) -> Score:
    """EASE (Steck 2019) where users are fewer than items: with P = (X'X + l2)^-1 = (1 - X'MX) / l2, M = (XX' + l2)^-1,
    the scores x (1 - P / diag P) need no matrix of items x items."""
    matrix_UI = affinity.positives(known.offsets, known.item_idx, known.weight, num_items).astype(np.float64)
    inverse_UU = np.linalg.inv((matrix_UI @ matrix_UI.T).toarray() + l2 * np.eye(matrix_UI.shape[0]))
    mixed_UI = np.asarray(matrix_UI.T @ inverse_UU).T  # M X; M is symmetric
    diagonal_I = (1.0 - np.asarray(matrix_UI.multiply(mixed_UI).sum(axis=0)).ravel()) / l2

    def score(block: Histories) -> np.ndarray:
        items_UI = affinity.positives(block.offsets, block.item_idx, block.weight, num_items).astype(np.float64)
        projected = (items_UI.toarray() - (items_UI @ matrix_UI.T) @ mixed_UI) / l2
        return (items_UI.toarray() - projected / diagonal_I).astype(np.float32)

    return score


def asking(module, model) -> Score:
    """A retriever's scores of what is bought next."""

    def score(block: Histories) -> np.ndarray:
        users = len(block.offsets) - 1
        return np.asarray(module.scores(model, block, np.full(users, BUY), np.full(users, np.nan)))

    return score


def gains(score: Score, queries: Queries, num_items: int) -> np.ndarray:
    """NDCG@10 of each bought item among all that its user has no event with; a tie ranks it last."""
    buys, found = np.flatnonzero(queries.depth == BUY), []
    for low in range(0, len(buys), BLOCK):
        at = buys[low : low + BLOCK]
        block, rows = take(queries.known, queries.user[at]), np.arange(len(at))
        scores = np.array(score(block))
        own = scores[rows, queries.item[at]][:, None]
        seen = affinity.seen(block.offsets, block.item_idx, num_items)
        scores[np.repeat(rows, np.diff(seen.indptr)), seen.indices] = -np.inf
        found.append((scores >= own).sum(axis=1) - 1)
    return gain(np.concatenate(found))


def best_ease(known: Histories, valid: Queries, num_items: int, name: str) -> Score:
    """The one that is best for the buys of the validation."""
    figures = {l2: gains(ease(known, num_items, l2), valid, num_items).mean() for l2 in L2}
    print(f"{name}: validation", {l2: round(value, 4) for l2, value in figures.items()}, flush=True)
    return ease(known, num_items, max(figures, key=lambda l2: figures[l2]))


# -- candidates and rankers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """Retrievers that know nothing of the validation, and what happened to items by depth."""

    views: transitions.Model
    ease: Score
    record: moments.Record


@dataclass(frozen=True)
class Rows:
    """A list a user: candidates, features float32 (n, F) by name, labels (n,) by event."""

    lists: Lists
    names: list[str]
    features: np.ndarray
    labels_of: dict[str, np.ndarray]


def candidates(world: Fitted, queries: Queries, num_items: int) -> Rows:
    """A list for each user of the queries: the best items of every retriever, with the scores of all retrievers."""
    users, items, scores, sizes = np.unique(queries.user), [], [], []
    for low in range(0, len(users), BLOCK):
        block = take(queries.known, users[low : low + BLOCK])
        size = len(block.offsets) - 1
        found = transitions.views(world.views, block) | {"ease": world.ease(block)}
        found["popular"] = np.broadcast_to(world.views.counts_I, found["ease"].shape)
        seen = affinity.seen(block.offsets, block.item_idx, num_items)
        tops = [top_k(np.where(found[n] > 0, found[n], -np.inf), k, seen)[0] for n, k in POOLS.items()]
        pooled = pool(tops, size, num_items)
        scores.append(np.stack([found[n][pooled.list_pos, pooled.item_idx] for n in SCORED], axis=1))
        items.append(pooled.item_idx)
        sizes.append(np.bincount(pooled.list_pos, minlength=size))
    offsets, count = np.concatenate(([0], np.cumsum(np.concatenate(sizes)))), len(users)
    nowhen = np.full(count, np.nan)
    lists = Lists(take(queries.known, users), np.full(count, BUY), nowhen, offsets, np.concatenate(items))
    names, features = moments.features(np.concatenate(scores), SCORED, lists, world.record, time_features=False)
    return Rows(lists, names, features, labels(lists, queries, num_items))


def labels(lists: Lists, queries: Queries, num_items: int) -> dict[str, np.ndarray]:
    """event -> float32 (n,): did the item go at least so deep."""
    users = np.unique(queries.user)
    key = np.searchsorted(users, queries.user) * num_items + queries.item
    order = np.argsort(key)
    wanted = lists.owner * num_items + lists.item_idx
    at = np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)
    depth = np.where(key[order][at] == wanted, queries.depth[order][at], -1)
    return {event: (depth >= number).astype(np.float32) for number, event in enumerate(EVENTS)}


def write(folder: str, rows: Rows) -> trainer.Window:
    """Examples, histories and an empty content as the trainer reads them; user_idx is the place of the list."""
    lists, known = rows.lists, rows.lists.histories
    users = np.arange(len(known.offsets) - 1)
    history_files.save_shard(
        f"{folder}/histories", 0, users, known.offsets, known.item_idx, known.scenario_idx, known.time
    )
    history_files.finish(f"{folder}/histories", [0], {})
    num_items = int(max(lists.item_idx.max(), known.item_idx.max())) + 1
    model_folder.save(f"{folder}/bundle", {"scenarios": {"shop": 0}}, {"content": np.zeros((num_items, 1), np.float32)})
    nowhere = np.zeros(len(lists.item_idx), np.int32)
    ids = (nowhere, nowhere, lists.owner.astype(np.int32), lists.item_idx.astype(np.int32))
    columns = dict(zip(trainer.INTS, ids, strict=True))
    columns |= {name: rows.features[:, at] for at, name in enumerate(rows.names)}
    columns |= {f"{c.LABEL}_{event}": value for event, value in rows.labels_of.items()}
    columns |= {c.WEIGHT: np.ones(len(nowhere), np.float32), c.FOLD: (lists.owner % 10).astype(np.int32)}
    shuffled = np.random.default_rng(0).permutation(len(nowhere))
    path = f"{folder}/examples.parquet"
    pq.write_table(pa.table(columns).take(pa.array(shuffled)), path, row_group_size=100_000)
    return trainer.Window(0, (f"file://{path}",), f"{folder}/histories", f"{folder}/bundle")


def one_seed(fitting: Rows, testing: Rows, seed: int, settings: Ranker) -> dict[str, np.ndarray]:
    """Gains of the rankers and of gradient boosting on the same candidates."""
    found, lists = {}, testing.lists
    with tempfile.TemporaryDirectory() as folder:
        window, queries = write(f"{folder}/fitting", fitting), write(f"{folder}/testing", testing)
        for name, tasks in TASKS.items():
            model = f"{folder}/{name.replace(' ', '-')}"
            order = trainer.RankerJob(
                models=(trainer.RankerModel(name, model, (window,)),),
                features=tuple(fitting.names),
                tasks=tuple(Task(name=task, kind="binary", sql="none", given=given) for task, given in tasks),
                settings=settings,
                seed=seed,
                reader="arrow",
                threads=os.cpu_count() or 1,
            )
            answer = entry.run(fit.train_all, order)
            if "error" in answer:
                raise TrainingError(answer["error"])
            ids = (np.zeros(len(lists.item_idx), np.int64), lists.owner, lists.item_idx)
            scores = scoring.probabilities(model, queries.histories, queries.bundle, queries.day, testing.features, ids)
            found[name] = listed(testing, scores)
            print(f"seed {seed}: {name} {found[name].mean():.4f}", flush=True)
    everybody = np.arange(len(fitting.lists.time))
    buys = fitting.labels_of["buy"]
    trees = fusion.fit(fitting.features, fitting.names, fitting.lists, buys, everybody, Gbdt(), seed)
    found["gbdt, buy only"] = listed(testing, fusion.predict(trees, testing.features))
    print(f"seed {seed}: gbdt {found['gbdt, buy only'].mean():.4f}, held out {trees.held_out_ndcg:.4f}", flush=True)
    return found


def listed(rows: Rows, scores: np.ndarray) -> np.ndarray:
    """NDCG@10 of each list; 0 where the bought item is no candidate."""
    return np.nan_to_num(fusion.ndcg(scores, rows.labels_of["buy"], rows.lists.offsets))


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """NDCG@10 of bought items; prints all lines, and the interval of the gain of the tasks."""
    started = time.monotonic()
    valid, test, catalogue = read(data, quick)
    known, num_items = valid.known, catalogue.num_items
    print(f"{len(test.user)} users, {num_items} items, {(valid.depth == BUY).sum()} validation buys", flush=True)
    both = best_ease(known, valid, num_items, "EASE")
    popular = scenario_popular.fit(known, catalogue, scenario_popular.Settings(float("inf"), 0.0))
    pairs = co_occurrence.fit(known, catalogue, CoOccurrence(half_life_days=float("inf"), neighbours=500))
    fixed = {
        "popular": gains(asking(scenario_popular, popular), test, num_items),
        "co-occurrence": gains(asking(co_occurrence, pairs), test, num_items),
        "EASE of buys": gains(best_ease(bought(known), valid, num_items, "EASE of buys"), test, num_items),
        "EASE": gains(both, test, num_items),
    }
    views = transitions.fit(known, catalogue, transitions.Settings(), 0)
    world = Fitted(views, both, moments.record(known, catalogue.num_items, catalogue.num_scenarios))
    fitting, testing = (candidates(world, queries, num_items) for queries in (valid, test))
    print(
        f"{len(fitting.features)} rows to fit on, {testing.labels_of['buy'].mean() * len(testing.features):.0f} found",
        flush=True,
    )
    settings = SETTINGS.model_copy(update={"max_epochs": 2}) if quick else SETTINGS
    runs = [fixed | one_seed(fitting, testing, seed, settings) for seed in range(seeds)]
    lines = [{name: {"ndcg@10": float(values.mean())} for name, values in found.items()} for found in runs]
    table(lines, f"funnel, {seeds} seeds, {(time.monotonic() - started) / seeds:.0f} s a seed")
    pair = [np.mean([found[name] for found in runs], axis=0) for name in ("multi-task", "buy only")]
    mean, low, high = difference(*pair)
    print(f"multi-task - buy only = {mean:.4f} [{low:.4f}, {high:.4f}], {len(pair[0])} users", flush=True)
    result = {name: spread(lines, name, "ndcg@10")[0] for name in lines[0]}
    return {**result, "gain": mean, "gain, lower": low, "gain, upper": high, "seeds": seeds}
