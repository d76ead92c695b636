"""Protocol shared by benchmarks: events as histories, the last two of every user held out, sampled lists, figures."""

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.research import fusion
from benchmarks.research.choose import by_scenario
from benchmarks.research.event_time_features import Lists
from recspark.histories import Histories

STARTED = clock.perf_counter()


@dataclass(frozen=True)
class Data:
    """`events`: everything, users in order; user u is in `scenario[u]`. `train`: less the last two events of each."""

    events: Histories
    train: Histories
    scenario: np.ndarray
    num_items: int
    names: tuple[str, ...]
    given: pd.DataFrame | None = None  # user, item (numbers), split: candidate lists that came with the data


def say(text: str) -> None:
    """A line of progress with the seconds since the start."""
    print(f"[{clock.perf_counter() - STARTED:6.0f} s] {text}", flush=True)


def histories(
    user: np.ndarray, item: np.ndarray, scenario: np.ndarray, time: np.ndarray, value: np.ndarray, num_users: int
) -> Histories:
    """Rows in the order wanted within a user (users may be mixed) as histories of users 0 .. num_users - 1."""
    order = np.argsort(user, kind="stable")
    offsets = np.concatenate(([0], np.cumsum(np.bincount(user, minlength=num_users))))
    ones, nothing = np.ones(len(user), dtype=np.float32), np.full(len(user), np.nan)
    rows = (item, scenario, time, ones, value, nothing)
    return Histories(offsets, *(column[order] for column in rows))


def catalogues(data: Data) -> list[np.ndarray]:
    """The items that occur in each scenario, in order."""
    h = data.events
    return [np.unique(h.item_idx[h.scenario_idx == s]) for s in range(len(data.names))]


def sampled(data: Data, back: int, drop: int, num_negatives: int, seed: int) -> tuple[Lists, np.ndarray]:
    """One list a user: the event `back` from the end (1 = last) and `num_negatives` random items of its scenario that
    the user has no event with. Items in order of number, so that the place tells nothing. Lists and labels (n,).

    The histories are the training events, less the newest `drop` of each user.
    """
    h, rng = data.events, np.random.default_rng(seed)
    pools, rows, truths = catalogues(data), [], h.offsets[1:] - back
    for user, truth in enumerate(truths):
        pool = pools[h.scenario_idx[truth]]
        had = h.item_idx[h.offsets[user] : h.offsets[user + 1]]
        drawn = pool[rng.choice(len(pool), min(len(pool), num_negatives + len(had)), replace=False)]
        unseen = drawn[~np.isin(drawn, had)][:num_negatives]
        rows.append(np.sort(np.append(unseen, h.item_idx[truth])))
    known = fusion.take(data.train, np.arange(len(truths)), drop)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    lists = Lists(known, h.scenario_idx[truths], h.time[truths], offsets, np.concatenate(rows))
    labels = (lists.item_idx == h.item_idx[truths][lists.owner]).astype(np.float32)
    return lists, labels


def figures(scores: np.ndarray, labels: np.ndarray, lists: Lists, names: Sequence[str]) -> dict[str, float]:
    """NDCG@10 by scenario and their mean; a list without its true item counts as zero."""
    found = np.nan_to_num(fusion.ndcg(scores, labels, lists.offsets))
    means, _ = by_scenario(found, lists.scenario_idx, len(names))
    return {**dict(zip(names, means.tolist(), strict=True)), "mean": float(np.nanmean(means))}
