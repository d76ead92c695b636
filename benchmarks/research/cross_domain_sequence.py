"""Next event in a mixed sequence of two domains: `python -m benchmarks cross_domain_sequence --data DIR --seeds 3`.

DIR/events.csv: user_id, item_id, domain, timestamp (seconds), position (the order). Protocol of ABXI (Bian et al.
2025): the last 50 events of a user; the last one is the test, the last but one the validation; its domain says where it
counts. The true item stands among 999 random items of its domain that the user has no event with. Retrievers
learn from train events only, validation events fit the fusion, test events are looked at once. A tie ranks the true
item last.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.research import fusion, list_fusion, transitions
from benchmarks.research.event_time_features import Lists
from benchmarks.research.scoreboard import gain, spread, table
from recspark.config.rankers import Gbdt
from recspark.histories import Histories
from recspark.models.retrievers.catalogue import Catalogue

LENGTH = 50
NEGATIVES = 999
FUSION_NEGATIVES = 250  # of a validation list: the trees learn as well from fewer
QUICK_USERS = 800
BASELINES = {  # line of the table -> feature that it ranks by
    "popular, all days": "item_count",
    "popular, 30 days before": "item_count_30",
    "co-occurrence in sequence": "near_recent",
    "item kNN": "whole",
}


@dataclass(frozen=True)
class Data:
    """All events in order of user and position, the last `LENGTH` of each; `from_end` 0 = test, 1 = validation."""

    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    day: np.ndarray
    from_end: np.ndarray
    domains: tuple[str, ...]

    @property
    def num_items(self) -> int:
        return int(self.item.max()) + 1

    def histories(self, before: int) -> Histories:
        """Every user's events that stand further from the end than `before`."""
        kept = self.from_end > before
        num_users = int(self.user.max()) + 1
        offsets = np.concatenate(([0], np.cumsum(np.bincount(self.user[kept], minlength=num_users))))
        ones, unknown = np.ones(int(kept.sum())), np.full(int(kept.sum()), np.nan)
        return Histories(offsets, self.item[kept], self.domain[kept], self.day[kept], ones, unknown, unknown)


def read(folder: str, quick: bool) -> Data:
    """The events of users with at least three; `quick`: some users only."""
    events = pd.read_csv(Path(folder) / "events.csv", dtype={"user_id": str, "item_id": str})
    events = events.sort_values(["user_id", "position"], kind="stable")
    events["from_end"] = events.groupby("user_id").cumcount(ascending=False)
    several = events.groupby("user_id")["from_end"].transform("max") >= 2
    events = events[several & (events["from_end"] < LENGTH)]
    if quick:
        events = events[events["user_id"].isin(events["user_id"].unique()[:QUICK_USERS])]
    domain, names = pd.factorize(events["domain"], sort=True)
    user, item = (pd.factorize(events[name], sort=True)[0] for name in ("user_id", "item_id"))
    day = events["timestamp"].to_numpy() / 86400.0
    return Data(user, item, domain, day, events["from_end"].to_numpy(), tuple(names))


def questions(data: Data, target: int, num_negatives: int, seed: int) -> Lists:
    """The event `target` from the end of every user, above random items of its domain without events of the user."""
    rng = np.random.default_rng((seed, target))
    at = data.from_end == target
    item, domain = data.item[at], data.domain[at]
    pools = [np.unique(data.item[data.domain == d]) for d in range(len(data.domains))]
    starts = np.searchsorted(data.user, np.arange(len(item) + 1))
    lists = np.empty((len(item), num_negatives + 1), dtype=np.int64)
    lists[:, 0] = item
    for user, d in enumerate(domain):
        unseen = np.setdiff1d(pools[d], data.item[starts[user] : starts[user + 1]])
        lists[user, 1:] = rng.choice(unseen, num_negatives, replace=len(unseen) < num_negatives)
    offsets = np.arange(len(item) + 1) * (num_negatives + 1)
    return Lists(data.histories(target), domain, data.day[at], offsets, lists.ravel())


def figures(scores: np.ndarray, lists: Lists, data: Data) -> dict[str, float]:
    """HR@10, NDCG@10 and MRR for each domain; the true item is the first of each list, of equal length."""
    scores, domain = np.nan_to_num(scores, nan=-np.inf).reshape(len(lists.time), -1), lists.scenario_idx
    rank = (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    found = {}
    for d, name in enumerate(data.domains):
        r = rank[domain == d]
        found[f"{name}_hr@10"] = float((r < 10).mean())
        found[f"{name}_ndcg@10"] = float(gain(r).mean())
        found[f"{name}_mrr"] = float((1.0 / (r + 1.0)).mean())
    return found


def one_seed(data: Data, seed: int) -> dict[str, dict[str, float]]:
    """Every line of the scoreboard for one seed."""
    train = data.histories(1)
    catalogue = Catalogue(data.num_items, len(data.domains))
    valid, test = questions(data, 1, FUSION_NEGATIVES, seed), questions(data, 0, NEGATIVES, seed)
    model = transitions.fit(train, catalogue, transitions.Settings(), seed)
    print(f"seed {seed}: retrievers fitted", flush=True)
    learn, rank = (list_fusion.rows(model, train, lists) for lists in (valid, test))
    first = np.isin(np.arange(len(valid.item_idx)), valid.offsets[:-1]).astype(np.float32)
    everybody, lines = np.arange(len(valid.time)), {}
    for name, (seen, testing) in {
        "ours": (learn, rank), "ours, no time": (learn.without_time(), rank.without_time())
    }.items():  # fmt: skip
        trees = fusion.fit(seen.features, seen.names, valid, first, everybody, (Gbdt(),), seed)
        print(f"seed {seed}: {name}, NDCG@10 of held-out validation lists {trees.held_out_ndcg:.4f}", flush=True)
        lines[name] = figures(fusion.predict(trees, testing.features), test, data)
        print("  ".join(f"{figure} {value:.4f}" for figure, value in lines[name].items()), flush=True)
    for name, column in BASELINES.items():
        lines[name] = figures(rank.column(column), test, data)
    return lines


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """Figures of ours, mean over the seeds; prints all lines."""
    started = time.monotonic()
    events = read(data, quick)
    print(f"{events.user.max() + 1} users, {events.num_items} items of {', '.join(events.domains)}", flush=True)
    runs = [one_seed(events, seed) for seed in range(seeds)]
    seconds = time.monotonic() - started
    table(runs, f"cross_domain_sequence, {seeds} seeds, {seconds / seeds:.0f} s a seed")
    result = {name: spread(runs, "ours", name)[0] for name in runs[0]["ours"]}
    result |= {f"no_time_{name}": spread(runs, "ours, no time", name)[0] for name in runs[0]["ours, no time"]}
    return {**result, "seeds": seeds, "seconds_a_seed": round(seconds / seeds, 1)}
