"""View, cart and buy as three tasks of one model: `python -m benchmarks funnel --data DIR --seeds 3`.

DIR/events.csv: user_id, item_id, event (view, cart, buy), timestamp (seconds); DIR/test_buys.csv: user_id, item_id, one
later buy a user, of an item that the user has no event with. Every item that the user had not is ranked. An item counts
once a user, when first met, as the deepest thing that happened to it. Validation is each user's last bought item,
without which everything is fitted and by which every choice is made; test buys are looked at once.
`buy only` and `multi-task` are the same transformer over all events; one learns what is bought next, the other what is
viewed, put into the cart and bought.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.scoreboard import difference, spread, table
from recspark.features import Histories, take
from recspark.models.retrievers import affinity, co_occurrence, scenario_popular, sequence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.training import sequence_training
from recspark.training.sequence_training import Plan

EVENTS = ("view", "cart", "buy")
BUY = EVENTS.index("buy")
QUICK_USERS = 400
BLOCK = 256
L2 = (30.0, 100.0, 300.0, 1000.0)
SETTINGS = sequence.Settings()
QUICK_SETTINGS = sequence.Settings(dim=16, layers=1, negatives=64, max_epochs=4)

Score = Callable[[Histories], np.ndarray]  # histories of some users -> (users, items)


@dataclass(frozen=True)
class Asked:
    """What is known of users and the item that each of them bought, (U,)."""

    known: Histories
    truth: np.ndarray


def read(folder: str, quick: bool) -> tuple[Asked, Asked, Catalogue]:
    """(validation, test, catalogue); items are all of both files."""
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
    last = met[met["depth"] == BUY].drop_duplicates("user_id", keep="last")
    several = met.groupby("user_id")["item"].transform("size").loc[last.index] > 1
    last = last[several]
    everybody = np.arange(len(tests))
    test = Asked(histories(met, everybody), items.get_indexer(tests["item_id"]))
    valid = Asked(histories(met.drop(last.index), last["user"].to_numpy()), last["item"].to_numpy())
    return valid, test, Catalogue(len(items), len(EVENTS))


def histories(met: pd.DataFrame, users: np.ndarray) -> Histories:
    """The items that some users met, a row of histories each."""
    rows = met[met["user"].isin(users)]
    sizes = np.bincount(rows["user"], minlength=int(users.max()) + 1)[users]
    ones, unknown = np.ones(len(rows)), np.full(len(rows), np.nan)
    offsets, days = np.concatenate(([0], np.cumsum(sizes))), rows["time"].to_numpy() / 86400.0
    return Histories(offsets, rows["item"].to_numpy(), rows["depth"].to_numpy(), days, ones, unknown, unknown)


def gains(score: Score, asked: Asked, num_items: int) -> np.ndarray:
    """NDCG@10 of each user's true item among all that the user has no event with, (U,); a tie ranks it last."""
    found = []
    for low in range(0, len(asked.truth), BLOCK):
        users = np.arange(low, min(low + BLOCK, len(asked.truth)))
        block = take(asked.known, users)
        scores = np.nan_to_num(score(block), nan=-np.inf)
        seen = affinity.seen(block.offsets, block.item_idx, num_items)
        own = scores[np.arange(len(users)), asked.truth[users]][:, None]
        scores[np.repeat(np.arange(len(users)), np.diff(seen.indptr)), seen.indices] = -np.inf
        place = (scores >= own).sum(axis=1) - 1
        found.append(np.where(place < 10, 1.0 / np.log2(np.maximum(place, 0) + 2.0), 0.0))
    return np.concatenate(found)


def asking(module, model) -> Score:  # type: ignore[no-untyped-def]
    """What a retriever says is bought next."""

    def score(block: Histories) -> np.ndarray:
        users = len(block.offsets) - 1
        return module.scores(model, block, np.full(users, BUY), np.full(users, np.nan))

    return score


def bought(histories: Histories) -> Histories:
    """The buys alone."""
    return sequence_training.of_scenarios(histories, lambda scenario: scenario == BUY)


def ease(known: Histories, num_items: int, l2: float) -> Score:
    """EASE (Steck 2019) where users are fewer than items: with P = (X'X + l2)^-1 = (1 - X'MX) / l2, M = (XX' + l2)^-1,
    the scores x (1 - P / diag P) need no matrix of items x items."""
    matrix_UI = affinity.positives(known.offsets, known.item_idx, known.weight, num_items).astype(np.float64)
    inverse_UU = np.linalg.inv((matrix_UI @ matrix_UI.T).toarray() + l2 * np.eye(matrix_UI.shape[0]))
    mixed_UI = np.asarray(matrix_UI.T @ inverse_UU).T  # M X; M is symmetric
    diagonal_I = (1.0 - np.asarray(matrix_UI.multiply(mixed_UI).sum(axis=0)).ravel()) / l2

    def score(block: Histories) -> np.ndarray:
        had = affinity.positives(block.offsets, block.item_idx, block.weight, num_items).astype(np.float64)
        projected = (had.toarray() - (had @ matrix_UI.T) @ mixed_UI) / l2
        return had.toarray() - projected / diagonal_I

    return score


def baselines(valid: Asked, test: Asked, catalogue: Catalogue) -> dict[str, np.ndarray]:
    """Gains of what has no seed; fitted without the validation items, by which the settings are chosen."""
    found, num_items = {}, catalogue.num_items
    for name, part in {"": lambda h: h, " of buys": bought}.items():
        known = part(valid.known)
        popular = scenario_popular.fit(known, catalogue, scenario_popular.Settings(float("inf"), 0.0))
        pairs = co_occurrence.fit(known, catalogue, co_occurrence.Settings())
        figures = {l2: gains(ease(known, num_items, l2), valid, num_items).mean() for l2 in L2}
        l2 = max(figures, key=lambda value: figures[value])
        print(f"EASE{name}: validation", {value: round(x, 4) for value, x in figures.items()}, flush=True)
        found[f"popular{name}"] = gains(asking(scenario_popular, popular), test, num_items)
        found[f"co-occurrence{name}"] = gains(asking(co_occurrence, pairs), test, num_items)
        found[f"EASE{name}"] = gains(ease(known, num_items, l2), test, num_items)
    return found


def one_seed(
    valid: Asked, test: Asked, catalogue: Catalogue, seed: int, settings: sequence.Settings
) -> dict[str, np.ndarray]:
    """Gains of both transformers; trained without the validation items, stopped by them."""
    found = {}
    for name, predicted in {"buy only": (BUY,), "multi-task": None}.items():
        plan = Plan(mode="joint", predicted=predicted, every=1, patience=3)

        def ndcg(model: sequence.Model) -> float:
            return float(gains(asking(sequence, model), valid, catalogue.num_items).mean())

        with tempfile.TemporaryDirectory() as folder:
            model = sequence_training.train(valid.known, catalogue, settings, plan, seed, folder, ndcg, print)
        found[name] = gains(asking(sequence, model), test, catalogue.num_items)
        print(f"seed {seed}: {name} {found[name].mean():.4f}", flush=True)
    return found


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """NDCG@10 of bought items; prints all lines, and the interval of the gain of the tasks."""
    started = time.monotonic()
    valid, test, catalogue = read(data, quick)
    print(f"{len(test.truth)} users, {catalogue.num_items} items, {len(valid.truth)} validation buys", flush=True)
    fixed = baselines(valid, test, catalogue)
    settings = QUICK_SETTINGS if quick else SETTINGS
    runs = [fixed | one_seed(valid, test, catalogue, seed, settings) for seed in range(seeds)]
    lines = [{name: {"ndcg@10": float(values.mean())} for name, values in found.items()} for found in runs]
    seconds = time.monotonic() - started
    table(lines, f"funnel, {seeds} seeds, {seconds / seeds:.0f} s a seed")
    pair = [np.mean([found[name] for found in runs], axis=0) for name in ("multi-task", "buy only")]
    mean, low, high = difference(*pair)
    print(f"multi-task - buy only = {mean:.4f} [{low:.4f}, {high:.4f}], {len(pair[0])} users", flush=True)
    result = {name: spread(lines, name, "ndcg@10")[0] for name in lines[0]}
    return {**result, "gain": mean, "gain, lower": low, "gain, upper": high, "seeds": seeds}
