"""The time-scales that fit the data, for those that the YAML leaves out: how long a label window is, how many windows
the rankers learn from, and how fast popularity fades.

Chosen from events before a Monday, so they stay for a week; kept with what was measured in a model folder. A label
window is the shortest one in which ENOUGH_LISTS users do something new. The newest windows, until they hold
JUDGED_LISTS, are for judging the modes, and those before them, until they hold LEARNT_LISTS, for learning what is
judged. Popularity has the half-life under which its part of the candidates was best on past windows.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import reduce
from typing import Any

import numpy as np
import scipy.sparse as sp
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.cells import key_of
from recspark.config.schema import Config
from recspark.models.retrievers import popular
from recspark.models.retrievers.popular import Popular
from recspark.models.topk import top_k
from recspark.summary import Summary
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.interactions import event_weight
from recspark.tables.training_examples import label_column, labels
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import closed_windows

log = logging.getLogger(__name__)

NOUN = "time_scales"
LABEL, WINDOWS = "training_examples.label_days", "training_examples.num_windows"
JUDGED, HALF_LIFE = "model_metrics.num_windows", "retriever.popular.half_life_days"
KEYS = (LABEL, WINDOWS, JUDGED, HALF_LIFE)
LABEL_DAYS = (14, 28, 56, 91)  # whole weeks, so that windows stay on the grid of Mondays
HALF_LIVES = (1.75, 3.5, 7.0, 14.0, 28.0, 56.0, 112.0, 224.0, 448.0)  # days
ENOUGH_LISTS = 800  # in a window, to learn from one season and not from many
JUDGED_LISTS = 2_000  # for the gate to tell two modes apart
LEARNT_LISTS = 8_000  # the time of a night grows with them: see docs/decisions/windows.md
MIN_WINDOWS, MAX_WINDOWS = 3, 10
HISTORY_SHARE = 0.2  # of all events must lie before a window, for its retrievers to know something
JUDGED_WINDOWS = 3  # that half-lives are compared on
# days: of a user's first positive of the first task with an item, of the first event with it in any scenario, and of
# the first event in the scenario
FIRST, TOUCHED, START = "first", "touched", "start"


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Choose, unless that was done this week from the same events, or the YAML names everything."""
    path = _folder(store, config, run_date)
    if path is None:
        return Summary(NOUN, skipped=True, note="all named in the YAML" if not unnamed(config) else "no event")
    there = model_folder.exists(path) and not force
    if not there:
        model_folder.save(path, measure(store, config, monday_of(run_date)))
    found = model_folder.read_manifest(path)
    return Summary(NOUN, rows_out=len(found["chosen"]), skipped=there, note=found["note"])


def settle(store: Store, config: Config, run_date: date) -> Config:
    """The configuration with the time-scales of a night filled in where the YAML names none; itself without events."""
    path = _folder(store, config, run_date)
    if path is None:
        return config
    if not model_folder.exists(path):
        log.info("time_scales: %s", refresh(store, config, run_date).note)
    found = model_folder.read_manifest(path)
    return with_values(config, {name: found["chosen"][name] for name in unnamed(config)})


def _folder(store: Store, config: Config, run_date: date) -> str | None:
    """The model folder of this week's choice; None if there is nothing to choose, or to choose from."""
    asked, monday = unnamed(config), monday_of(run_date)
    if not asked or not store.exists(INTERACTIONS):
        return None
    events = store.digest(INTERACTIONS, c.EVENT_DATE, monday)
    return artifacts.folder(store, NOUN, f"{monday}-{artifacts.fingerprint(NOUN, config, asked, monday, events)}")


def monday_of(run_date: date) -> date:
    """The Monday of the week of a date."""
    return run_date - timedelta(days=run_date.weekday())


def unnamed(config: Config) -> tuple[str, ...]:
    """The time-scales that the YAML leaves to the night."""
    return tuple(
        key for key in KEYS if key.rsplit(".")[-1] not in reduce(getattr, key.split(".")[:-1], config).model_fields_set
    )


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with these time-scales, as if the YAML named them."""
    for key, value in values.items():
        config = _with(config, key.split("."), value)
    return config


def _with(section: Any, path: Sequence[str], value: object) -> Any:
    """A copy of a section of the configuration in which the key at `path` has a value."""
    name, *rest = path
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})


def measure(store: Store, config: Config, monday: date) -> dict[str, Any]:
    """The choice from events before a Monday, what it was chosen from, and a note.

    Memory: the driver holds one row for each day, and one for each scenario and item with an event.
    """
    before = store.events(INTERACTIONS, None, monday)
    events = before.withColumn(c.WEIGHT, event_weight(before, config.interactions.event_weights))
    days = {row[0]: row[1] for row in events.groupBy(c.EVENT_DATE).count().collect()}
    new = positives(events, config).persist()
    try:
        lengths = LABEL_DAYS if LABEL in unnamed(config) else (config.training_examples.label_days,)
        lists = {length: lists_in(new, windows_of(days, monday, length), length) for length in lengths}
        label_days, num_windows, judged = choose_windows(lists, config)
        as_ofs = closed_windows(monday, label_days, JUDGED_WINDOWS)
        known = [as_of for as_of in as_ofs if as_of in windows_of(days, monday, label_days)]
        found = [half_lives_at(events, new, as_of, label_days, config) for as_of in known]
    finally:
        new.unpersist()
    depth = config.candidates.depth
    quality = np.mean(found, axis=0) if found else np.zeros(len(HALF_LIVES))
    order = np.argsort(-quality.round(9), kind="stable")
    half_life = HALF_LIVES[order[0]] if quality.any() else config.retriever.popular.half_life_days
    chosen = {LABEL: label_days, WINDOWS: num_windows, JUDGED: judged, HALF_LIFE: half_life}
    note = f"{num_windows} windows of {label_days} days, {judged} of them to judge on; "
    note += f"popularity halves in {half_life:g} days"
    if quality.any():
        best, second = order[:2]
        note += f" (DCG@{depth} {quality[best]:.4f}; {HALF_LIVES[second]:g} days: {quality[second]:.4f})"
    return {
        "monday": str(monday),
        "chosen": chosen,
        "lists_in_windows": {str(length): found for length, found in lists.items()},
        "popularity_dcg": dict(zip(map(str, HALF_LIVES), quality.round(6).tolist(), strict=True)),
        "note": note,
    }


def positives(events: DataFrame, config: Config) -> DataFrame:
    """(scenario, user_id, item_id, FIRST, TOUCHED, START) of all that users did with an item after they were known in
    the scenario. `events`: with their weight. The label of a day stands for that of a window."""
    key, task = [c.SCENARIO, c.USER_ID], config.training_examples.tasks[0]
    daily = labels(events, (*key, c.ITEM_ID, c.EVENT_DATE), [task]).where(F.col(label_column(task.name)) > 0)
    first = daily.groupBy(*key, c.ITEM_ID).agg(F.min(c.EVENT_DATE).alias(FIRST))
    touched = events.groupBy(c.USER_ID, c.ITEM_ID).agg(F.min(c.EVENT_DATE).alias(TOUCHED))
    start = events.groupBy(*key).agg(F.min(c.EVENT_DATE).alias(START))
    # one row for each user and item, and for each user and scenario, on the right
    found = first.join(touched, on=[c.USER_ID, c.ITEM_ID], how="inner").join(start, on=key, how="inner")
    return found.where(F.col(START) < F.col(FIRST))


def windows_of(days: Mapping[date, int], monday: date, label_days: int) -> tuple[date, ...]:
    """The newest closed windows, newest first, as far back as HISTORY_SHARE of the events in `days` lie before one."""
    ordered = sorted(days)
    before = np.concatenate(([0], np.cumsum([days[day] for day in ordered])))
    found = []
    for as_of in closed_windows(monday, label_days, MAX_WINDOWS):
        if (
            before[np.searchsorted(np.array(ordered, "datetime64[D]"), np.datetime64(as_of))]
            < HISTORY_SHARE * before[-1]
        ):
            break
        found.append(as_of)
    return tuple(found)


def lists_in(new: DataFrame, as_ofs: Sequence[date], label_days: int) -> list[int]:
    """For each window how many lists, of users known in the scenario before it, have something new in it."""
    if not as_ofs:
        return []
    age = F.datediff(F.lit(as_ofs[0] + timedelta(days=label_days - 1)), FIRST)
    opened = F.date_sub(F.lit(as_ofs[0]), F.col("window") * label_days)
    known = new.withColumn("window", F.floor(age / label_days).cast("int"))
    known = known.where((age >= 0) & (F.col(START) < opened) & (F.col(TOUCHED) >= opened))
    counts = known.groupBy("window").agg(F.count_distinct(c.SCENARIO, c.USER_ID).alias("lists")).collect()
    found = {row["window"]: row["lists"] for row in counts}
    return [found.get(n, 0) for n in range(len(as_ofs))]


def choose_windows(lists: Mapping[int, Sequence[int]], config: Config) -> tuple[int, int, int]:
    """The values of LABEL, WINDOWS and JUDGED from the lists in the windows of each length, newest first; those of the
    configuration where no length has two windows."""
    settings, asked = config.training_examples, unnamed(config)
    possible = {length: found for length, found in lists.items() if len(found) >= 2 and any(found)}
    if not possible:
        return settings.label_days, settings.num_windows, config.model_metrics.num_windows
    rich = [length for length, found in possible.items() if np.mean(found[:JUDGED_WINDOWS]) >= ENOUGH_LISTS]
    length = min(rich) if rich else max(possible)
    found = possible[length]
    judged = int(np.searchsorted(np.cumsum(found), JUDGED_LISTS)) + 1
    learnt = int(np.searchsorted(np.cumsum(found[judged:]), LEARNT_LISTS)) + 1
    windows = min(len(found), max(MIN_WINDOWS, judged + learnt)) if WINDOWS in asked else settings.num_windows
    return length, windows, max(1, min(judged, windows // 2))


def half_lives_at(events: DataFrame, new: DataFrame, as_of: date, label_days: int, config: Config) -> Array:
    """For each of HALF_LIVES the DCG of each scenario's most popular items before a date, as many as `popular` gives to
    the rankers, on what known users did for the first time in the window after it: a mean over these (user, item)
    pairs, float64 (len(HALF_LIVES),)."""
    age = F.datediff(F.lit(as_of), c.EVENT_DATE)
    faded = [(f"decayed_{n}", F.pow(F.lit(2.0), -age / days)) for n, days in enumerate(HALF_LIVES)]
    known = events.where((F.col(c.EVENT_DATE) < F.lit(as_of)) & (F.col(c.WEIGHT) != 0))
    # of each user as popular.net_of_pairs has it, with whole days
    largest = F.max(F.abs(F.col(c.WEIGHT)))
    of_users = known.groupBy(c.SCENARIO, c.ITEM_ID, c.USER_ID).agg(
        *(F.sum(F.col(c.WEIGHT) * fade).alias(name) for name, fade in faded),
        *((largest * F.max(fade)).alias(f"most_{name}") for name, fade in faded),
    )
    sums = [
        F.sum(F.greatest(F.least(F.col(name), F.col(f"most_{name}")), -F.col(f"most_{name}"))).alias(name)
        for name, _ in faded
    ]
    counts = of_users.groupBy(c.SCENARIO, c.ITEM_ID).agg(*sums)
    end = as_of + timedelta(days=label_days)
    inside = (F.col(FIRST) >= F.lit(as_of)) & (F.col(FIRST) < F.lit(end))
    done = new.where(inside & (F.col(START) < F.lit(as_of)) & (F.col(TOUCHED) >= F.lit(as_of)))
    wanted = done.groupBy(c.SCENARIO, c.ITEM_ID).agg(F.count("*").alias("wanted"))
    # both sides have one row for each scenario and item
    table = counts.join(wanted, on=[c.SCENARIO, c.ITEM_ID], how="full").fillna(0).toArrow()
    scenarios, row = np.unique(table[c.SCENARIO].to_numpy(), return_inverse=True)
    items, column = np.unique(table[c.ITEM_ID].to_numpy(), return_inverse=True)
    wanted_SI = sp.csr_matrix((table["wanted"].to_numpy(), (row, column)), shape=(len(scenarios), len(items)))
    sizes, shrinkage = (len(scenarios), len(items)), config.retriever.popular.shrinkage
    found = []
    for name, _ in faded:
        fitted = popular.fit(key_of(row, column, len(items)), table[name].to_numpy(), *sizes, shrinkage)
        found.append(dcg(fitted, wanted_SI, config.candidates.depth))
    return np.array(found)


def dcg(popularity: Popular, wanted_SI: sp.csr_matrix, k: int) -> float:
    """Sum over the first k items of each scenario of wanted / log2(rank + 1), over the sum of all that is wanted."""
    gain = 0.0
    for scenario in np.flatnonzero(np.diff(wanted_SI.indptr)):
        best = top_k(popularity.of_group(scenario)[None], k)[0][0]
        best = best[best >= 0]
        gain += wanted_SI[scenario].toarray()[0, best] @ (1.0 / np.log2(np.arange(2, len(best) + 2)))
    return float(gain / max(wanted_SI.sum(), 1.0))
