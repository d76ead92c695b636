"""Several markets with the same items and different users, by NDCG@10: one scenario a market.

DIR holds `<market>_5core.txt` (userId itemId rate date, separated by blanks). Per user by date (ties in the file's
order) the last event is the test, the last but one validation; 99 random items of the same market that the user has no
event with stand beside the true one. Retrievers learn from train rows; validation lists fit the fusion and every
choice; the test lists are scored once. Windows count train events strictly before the day of the query.

Where DIR holds `<market>_candidates.csv`, `.txt` (separated by blanks) or `.parquet` with user_id, item_id and perhaps
split (valid / test; without it all are test), those rows are the market's lists instead of random ones: the true item
is not added, and a list without it counts as zero.
"""

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.research import choose, fusion, given_lists, scenario_linear, scenario_popular, scoreboard
from benchmarks.research import event_time_features as moments
from benchmarks.research.leave_one_out import Data, figures, histories, sampled, say
from recspark.config.rankers import Gbdt
from recspark.config.retrievers import CoOccurrence, Linear, MatrixFactorization
from recspark.models.retrievers import co_occurrence, matrix_factorization
from recspark.models.retrievers.catalogue import Catalogue

NUM_NEGATIVES = 99
SETS = 1  # validation lists of a user, each with negatives of its own; a second one did not help
QUICK_ROWS = 30_000  # --quick: the smallest markets, up to so many events
TREES = tuple(
    Gbdt(max_rows=4_000_000, max_rounds=300, learning_rate=0.08, objective=objective)
    for objective in ("lambdarank", "rank_xendcg")
)
NO_DECAY = float("inf")  # half-life


def pooled(l2: float) -> scenario_linear.Settings:
    return scenario_linear.Settings(Linear(l2=l2, half_life_days=NO_DECAY))


def own(own_l2: float, half_life_days: float = NO_DECAY) -> scenario_linear.Settings:
    return scenario_linear.Settings(Linear(half_life_days=half_life_days), own_l2=own_l2, own_share=1.0)


def pairs(days: float = NO_DECAY, shrinkage: float = 5.0) -> CoOccurrence:
    return CoOccurrence(pair_half_life_days=days, half_life_days=days, shrinkage=shrinkage, neighbours=500)


# the settings to choose from in each family, on validation; a family of one is always used
FAMILIES = {
    "popular": (scenario_popular, (scenario_popular.Settings(),)),
    "linear": (scenario_linear, tuple(pooled(l2) for l2 in (300.0, 1000.0, 3000.0))),
    "linear_own": (scenario_linear, tuple(own(l2) for l2 in (100.0, 300.0, 1000.0))),
    "linear_recent": (scenario_linear, tuple(own(l2, days) for l2, days in ((100.0, 60.0), (300.0, 365.0)))),
    "co_occurrence": (co_occurrence, tuple(pairs(shrinkage=s) for s in (5.0, 20.0, 80.0))),
    "co_occurrence_own": (co_occurrence, (pairs(),)),
    "co_occurrence_60": (co_occurrence, (pairs(60.0),)),
    "co_occurrence_3": (co_occurrence, (pairs(3.0),)),
    "factors": (
        matrix_factorization,
        tuple(MatrixFactorization(num_factors=f, half_life_days=NO_DECAY) for f in (64, 192)),
    ),
}
OWN_PAIRS = ("co_occurrence_own",)  # families with similarities for each market


def strongest(model: Any) -> Any:
    """The same weights; a score is the largest of the user's items, not their sum."""
    return replace(model, strongest=True)


def decayed(half_life_days: float) -> Callable[[scenario_linear.Model], scenario_linear.Model]:
    """The same weights, with another half-life when they score."""

    def change(model: scenario_linear.Model) -> scenario_linear.Model:
        section = model.settings.linear.model_copy(update={"half_life_days": half_life_days})
        return replace(model, settings=replace(model.settings, linear=section))

    return change


# further retrievers: the chosen weights, scored in another way
READ = {
    "linear_strongest": ("linear", strongest),
    "linear_3": ("linear", decayed(3.0)),
    "linear_60": ("linear", decayed(60.0)),
    "co_occurrence_strongest": ("co_occurrence", strongest),
}
TIMED = ("linear_recent", "linear_3", "linear_60", "co_occurrence_60", "co_occurrence_3")


@dataclass(frozen=True)
class QueryLists:
    """Lists, their labels (n,), and the user of each, `people` (Q,)."""

    lists: moments.Lists
    labels: np.ndarray
    people: np.ndarray


def read(folder: str, quick: bool) -> Data:
    """The markets' events; users in order of market and id, their events in order of day."""
    files = sorted(Path(folder).glob("*_5core.txt"))
    if not files:
        raise FileNotFoundError(f"{folder}/*_5core.txt")
    frames = [pd.read_csv(file, sep=r"\s+", dtype={"userId": str, "itemId": str}) for file in files]
    if quick:
        order = np.argsort([len(frame) for frame in frames])
        sizes = np.cumsum([len(frames[i]) for i in order])
        kept = sorted(order[: max(1, int(np.searchsorted(sizes, QUICK_ROWS, side="right")))])
        files, frames = [files[i] for i in kept], [frames[i] for i in kept]
    rows = pd.concat([frame.assign(scenario=s) for s, frame in enumerate(frames)], ignore_index=True)
    day = (pd.to_datetime(rows["date"]) - pd.Timestamp(0)) / pd.Timedelta(days=1)
    rows = rows.assign(day=day.to_numpy(float)).sort_values(["scenario", "userId", "day"], kind="stable")
    rows = rows[rows.groupby(["scenario", "userId"])["userId"].transform("size") >= 3]
    user = rows.groupby(["scenario", "userId"], sort=True).ngroup().to_numpy()
    markets = tuple(file.name.split("_")[0] for file in files)
    given = pd.concat(
        [given_lists.read(folder, market).assign(scenario=s) for s, market in enumerate(markets)], ignore_index=True
    )
    names = np.unique(np.concatenate((rows["itemId"].to_numpy(str), given["item_id"].to_numpy(str))))
    item = np.searchsorted(names, rows["itemId"].to_numpy(str))
    keys = rows.assign(user=user)[["scenario", "userId", "user"]].drop_duplicates()
    given = given.merge(keys, left_on=["scenario", "user_id"], right_on=["scenario", "userId"])
    given = given.assign(item=np.searchsorted(names, given["item_id"].to_numpy(str)))
    columns = (item, rows["scenario"].to_numpy(), rows["day"].to_numpy(), rows["rate"].to_numpy(float))
    held = rows.groupby(["scenario", "userId"]).cumcount(ascending=False).to_numpy() < 2
    everything = histories(user, *columns, user.max() + 1)
    train = histories(user[~held], *(column[~held] for column in columns), user.max() + 1)
    scenario = everything.scenario_idx[everything.offsets[:-1]]
    return Data(everything, train, scenario, len(names), markets, given)


def query_lists(data: Data, back: int, drop: int, seed: int) -> QueryLists:
    """One list a user about the event `back` from the end: random negatives, or the rows that came with the data."""
    lists, labels = sampled(data, back, drop, NUM_NEGATIVES, seed)
    if data.given is not None and len(data.given):
        mine = data.given[data.given["split"] == (given_lists.TEST if back == 1 else given_lists.VALID)]
        lists, labels = given_lists.put(lists, labels, mine, set(mine["scenario"]))
    return QueryLists(lists, labels, np.arange(len(lists.time)))


def validation_lists(data: Data, seed: int) -> list[QueryLists]:
    """Validation lists, each with negatives of its own. The test is two events ahead of the history, because the
    validation event between them stays hidden; so are these, without the newest train event."""
    return [query_lists(data, 2, 1, 1000 * seed + r) for r in range(1, SETS + 1)]


class Bench:
    """Fitted retrievers by family and settings; they do not depend on a seed's lists, so one fit serves all."""

    def __init__(self, data: Data) -> None:
        self.data, self.catalogue = data, Catalogue(data.num_items, len(data.names))
        self.record = moments.record(data.train, self.catalogue.num_items, self.catalogue.num_scenarios)
        self.fitted = cache(self._fit)

    def _fit(self, family: str, variant: int) -> fusion.Retriever:
        module, settings = FAMILIES[family]
        options = {"own": True} if family in OWN_PAIRS else {}
        model = module.fit(self.data.train, self.catalogue, settings[variant], 0, **options)
        say(f"fitted {family} {settings[variant]}")
        return fusion.Retriever(module, model)

    def choose(self, queries: QueryLists) -> dict[str, fusion.Retriever]:
        """The best settings of every family on validation lists, and the blend of pooled and own linear weights."""
        chosen = {}
        for family, (_, settings) in FAMILIES.items():
            variants = {str(v): self.fitted(family, v) for v in range(len(settings))}
            best = "0"
            if len(variants) > 1:
                scores = fusion.columns(variants, queries.lists)
                best = choose.best(scores, list(variants), queries.lists, queries.labels)
                say(f"chose {family} {settings[int(best)]}")
            chosen[family] = variants[best]
        halves = fusion.columns({name: chosen[name] for name in ("linear", "linear_own")}, queries.lists)
        shares = choose.own_shares(*halves.T, queries.lists, queries.labels, len(self.data.names))
        say(f"own share by market {dict(zip(self.data.names, shares.tolist(), strict=True))}")
        joined = scenario_linear.join(chosen["linear"].model, chosen["linear_own"].model, shares)
        chosen["linear_blend"] = fusion.Retriever(scenario_linear, joined)
        for name, (family, change) in READ.items():
            chosen[name] = fusion.Retriever(chosen[family].module, change(chosen[family].model))
        return chosen

    def columns(self, chosen: dict[str, fusion.Retriever], queries: QueryLists) -> np.ndarray:
        return fusion.columns(chosen, queries.lists)

    def features(
        self, chosen: dict[str, fusion.Retriever], queries: QueryLists, scores: np.ndarray, timed: bool
    ) -> tuple[list[str], np.ndarray]:
        kept = [r for r, name in enumerate(chosen) if timed or name not in TIMED]
        names = [list(chosen)[r] for r in kept]
        return moments.features(scores[:, kept], names, queries.lists, self.record, timed)


def one_seed(bench: Bench, seed: int, settings: Sequence[Gbdt]) -> dict[str, dict[str, float]]:
    """Every line of the scoreboard for one seed."""
    names = bench.data.names
    queries, test = validation_lists(bench.data, seed), query_lists(bench.data, 1, 0, 1000 * seed)
    say(f"seed {seed}: {len(test.people)} test lists, {sum(len(a.people) for a in queries)} validation lists")
    chosen = bench.choose(queries[0])
    known, found = [bench.columns(chosen, a) for a in queries], bench.columns(chosen, test)
    lines = {name: figures(found[:, r], test.labels, test.lists, names) for r, name in enumerate(chosen)}
    for line, timed in (("fusion without time", False), ("fusion", True)):
        parts = [bench.features(chosen, a, scores, timed) for a, scores in zip(queries, known, strict=True)]
        features, labels = np.concatenate([f for _, f in parts]), np.concatenate([a.labels for a in queries])
        people, columns = np.concatenate([a.people for a in queries]), parts[0][0]
        del parts
        model = fusion.fit(features, columns, stacked(queries), labels, people, settings, seed)
        rounds = [fold.num_rounds for fold in model.folds]
        say(f"seed {seed}: {line}, {model.settings.objective}, validation {model.held_out_ndcg:.4f}, {rounds} rounds")
        scores = fusion.predict(model, bench.features(chosen, test, found, timed)[1])
        lines[line] = figures(scores, test.labels, test.lists, names)
    return lines


def stacked(queries: list[QueryLists]) -> moments.Lists:
    """Several sets of lists as one, for the fusion to learn from; the histories, not read there, are the first's."""
    parts = [a.lists for a in queries]
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return moments.Lists(
        parts[0].histories,
        np.concatenate([part.scenario_idx for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate(([0], np.cumsum(sizes))),
        np.concatenate([part.item_idx for part in parts]),
    )


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """Mean over the seeds of the fusion's figures; prints every line beside them."""
    started = clock.perf_counter()
    bench = Bench(read(data, quick))
    say(f"{bench.data.names}: {len(bench.data.scenario)} users, {bench.data.num_items} items")
    settings = [one.model_copy(update={"max_rounds": 60}) for one in TREES] if quick else TREES
    runs = [one_seed(bench, seed, settings) for seed in range(seeds)]
    seconds = (clock.perf_counter() - started) / seeds
    scoreboard.table(runs, f"cross_market, NDCG@10, {seeds} seeds, {seconds:.0f} s a seed")
    lines = {line: scoreboard.spread(runs, line, "mean")[0] for line in runs[0]}
    markets = {name: scoreboard.spread(runs, "fusion", name)[0] for name in runs[0]["fusion"]}
    return {"ndcg@10": markets, "mean": lines, "seeds": seeds, "seconds_a_seed": round(seconds, 1)}
