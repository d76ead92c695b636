"""model_metrics: figures of every mode on the newest closed window and of published lists; the gate's decisions.

The gate has the lists of as many closed windows as the rankers left to it, newest first (model_metrics.num_windows).
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import gate, model_folder
from recspark.arrays import Array
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.stages import lists
from recspark.stages.candidates import blocks as candidate_blocks
from recspark.stages.model_metrics import evaluation
from recspark.stages.ranker import scorer
from recspark.stages.ranker.modes import ALONE, mode_of, transferring_modes
from recspark.stages.retriever.bundle import open_bundle
from recspark.summary import Summary
from recspark.tables import candidates, index, recommendations
from recspark.tables import model_metrics as table
from recspark.tables.histories import DEFAULT_USER_IDX
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.model_metrics import ALL, COLD_DAYS, DECISION, EARLIER, EVERYONE, POOR_LISTS, PUBLISHED, TABLE
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_of_day, window_end

log = logging.getLogger(__name__)

NOUN, RETRIEVER = "model_metrics", "retriever"
POPULAR = "popular"
TOP = 10  # the cutoff by which the gate compares modes, lower if lists are shorter


@dataclass(frozen=True)
class MetricsInput:
    """What is measured tonight.

    `scorers`: as_of of each judged window, newest first -> the models evaluated on it. `earlier`: (run_date, run_id) of
    the published lists to measure. `published`: scenario -> the mode of its newest published lists.
    """

    run_date: date
    scorers: dict[date, scorer.Scorer]
    earlier: list[tuple[date, str]]
    published: dict[str, str]

    @property
    def window(self) -> date:
        return next(iter(self.scorers))

    @property
    def modes(self) -> tuple[str, ...]:
        return self.scorers[self.window].modes


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Measure all modes and decide, unless candidates, models, events and earlier lists are the same as last time.

    Raises: DataError if there are no candidates for run_date.
    """
    night = _input(store, config, run_date)
    fingerprint = _fingerprint(store, config, night)
    if not force and store.is_fresh(TABLE, fingerprint, run_date=run_date):
        return Summary("model_metrics", skipped=True)
    judged = [row for window in night.scorers for row in window_rows(store, config, night, window, force)]
    measured = [row for row in judged if row.window == str(night.window)]
    measured += list(measure_earlier(store, config, night))
    decisions = decide(store, judged, night, transferring_modes(config))
    k = cutoffs_of(config.recommendations.k)[0]
    num_items = _eligible_items(store, config, night)
    rows = [*_metric_rows(measured, num_items), *_decision_rows(decisions, f"gain_ndcg@{k}")]
    frame = store.spark.createDataFrame([(run_date, store.run_id, *row) for row in rows], TABLE.schema)
    where = f"{c.RUN_DATE} = '{run_date}'"
    metadata = {artifacts.FINGERPRINT: fingerprint, "run_date": str(run_date)}
    version = store.replace(TABLE, frame.coalesce(1), where=where, metadata=metadata)
    note = summarise(measured, judged, decisions, k)
    log.info("model_metrics: %s", note)
    return Summary("model_metrics", rows_out=len(rows), note=note, version=version)


def _input(store: Store, config: Config, run_date: date) -> MetricsInput:
    scorers = scorer.evaluated(store, config, run_date)
    earlier, published = [], {}
    if store.exists(recommendations.TABLE):
        rows = store.read(recommendations.TABLE).where(F.col(c.RUN_DATE) < F.lit(run_date))
        nights = rows.select(c.RUN_DATE, c.RUN_ID).distinct().collect()
        since = run_date - timedelta(days=config.training_examples.label_days)
        earlier = sorted((row[0], row[1]) for row in nights if row[0] >= since)
        last = max((row[0] for row in nights), default=None)
        modes = rows.where(F.col(c.RUN_DATE) == F.lit(last)).select(c.SCENARIO, c.MODEL).distinct().collect()
        # beside its mode, a scenario has rows by popularity, which the mode did not score
        published = {row[0]: row[1] for row in sorted(modes, key=lambda row: row[1] != POPULAR)}
    return MetricsInput(run_date, scorers, earlier, published)


def _fingerprint(store: Store, config: Config, night: MetricsInput) -> str:
    stamp = store.stamp(candidates.TABLE, as_of=night.run_date)
    if stamp is None:
        raise DataError(
            f"no candidates as of {night.run_date}, or others have changed the table since; run jobs/candidates.py or "
            "jobs/nightly.py first"
        )
    events = store.digest(INTERACTIONS, c.EVENT_DATE, night.run_date)
    windows = [_window_fingerprint(store, config, night, window) for window in night.scorers]
    inputs = (night.run_date, stamp[artifacts.FINGERPRINT], events, *windows, night.earlier)
    return artifacts.fingerprint(NOUN, config, *inputs)


def _window_fingerprint(store: Store, config: Config, night: MetricsInput, window: date) -> str:
    """Hash of all inputs of the figures on a closed window, by which the other nights of the week find them."""
    stamp = store.stamp(candidates.TABLE, as_of=window)
    end = window_end(window, config.training_examples.label_days)
    events = store.digest(INTERACTIONS, c.EVENT_DATE, end)
    inputs = (window, stamp and stamp[artifacts.FINGERPRINT], events, night.scorers[window].names)
    return artifacts.fingerprint(NOUN, config.of_past_dates(), *inputs)


def window_rows(store: Store, config: Config, night: MetricsInput, window: date, force: bool) -> list[Row]:
    """`measure_window`, computed once and then read from a model folder: a few rows for each scenario, and in each the
    window."""
    path = artifacts.folder(store, NOUN, f"{window}-{_window_fingerprint(store, config, night, window)}")
    if force or not model_folder.exists(path):
        measured = [row.asDict() for row in measure_window(store, config, night, window)]
        model_folder.save(path, {"window": str(window), "rows": measured})
    return [Row(**row, window=str(window)) for row in model_folder.read_manifest(path)["rows"]]


def measure_window(store: Store, config: Config, night: MetricsInput, as_of: date) -> Iterable[Row]:
    """Figures of every mode on what users did in a closed window; lists are as of the date when it opened."""
    end = window_end(as_of, config.training_examples.label_days)
    before = store.events(INTERACTIONS, None, as_of)
    task = config.training_examples.tasks[0]
    weights = config.interactions.event_weights
    done = table.positives(store.events(INTERACTIONS, as_of, end), task, weights)
    expected = recommendations.eligible(before, config.scenarios, None, default_user=False)
    truth = with_numbers(store, table.truth(done, before, expected, config.scenarios)).persist()
    try:
        counts = truth.where(F.col("slice") == ALL).groupBy(c.SCENARIO).agg(F.count_distinct(c.USER_IDX)).collect()
        rows = store.read(candidates.TABLE).where(F.col(c.AS_OF) == F.lit(as_of))
        scored = lists.scored(measured_lists(rows, truth), night.scorers[as_of], night.modes)
        poor = frozenset(scenario for scenario, num_lists in counts if num_lists < POOR_LISTS)
        settings = replace(_settings(store, config, night.modes, as_of), poor=poor)
        return evaluation.evaluate(evaluation.with_truth(as_served(scored, truth), truth), settings).collect()
    finally:
        truth.unpersist()


def measured_lists(rows: DataFrame, truth: DataFrame) -> DataFrame:
    """The candidates of lists in which something is to be found, and those of `__default__`."""
    keys = [c.SCENARIO, c.USER_IDX]
    found = truth.select(*keys).distinct()
    default = found.select(c.SCENARIO, F.lit(DEFAULT_USER_IDX).alias(c.USER_IDX)).distinct()
    return rows.join(found.unionByName(default), on=keys, how="left_semi")


def as_served(scored: DataFrame, truth: DataFrame) -> DataFrame:
    """The scored candidates with their slice: those of known users in ALL, and for each user of the other slices of
    `truth` the candidates that `__default__` has in that scenario."""
    strangers = truth.where(F.col("slice") != ALL).select("slice", c.SCENARIO, c.USER_IDX).distinct()
    known = scored.where(F.col(c.USER_IDX) >= 0).withColumn("slice", F.lit(ALL))
    default = scored.where(F.col(c.USER_IDX) < 0).drop(c.USER_IDX)
    # both have one row for each list and item: a stranger has one list in a scenario
    return known.unionByName(strangers.join(F.broadcast(default), on=c.SCENARIO, how="inner"))


def measure_earlier(store: Store, config: Config, night: MetricsInput) -> Iterable[Row]:
    """Figures of the lists published in the last `label_days`, on what users did from their run_date until tonight."""
    if not night.earlier:
        return []
    nights = [run_date for run_date, _ in night.earlier]
    lists_ = store.read(recommendations.TABLE).where(F.col(c.RUN_DATE).isin(nights))
    task, weights = config.training_examples.tasks[0], config.interactions.event_weights
    days = store.spark.createDataFrame([(day,) for day in nights], f"{c.RUN_DATE} date")
    since = store.events(INTERACTIONS, min(nights), night.run_date).join(
        F.broadcast(days), on=F.col(c.EVENT_DATE) >= F.col(c.RUN_DATE), how="inner"
    )
    events = store.events(INTERACTIONS, None, night.run_date)
    first = events.groupBy(c.USER_ID, c.ITEM_ID).agg(F.min(c.EVENT_DATE).alias("first_date"))
    expected = lists_.select(c.RUN_DATE, c.SCENARIO, c.USER_ID).distinct()
    done = table.positives(since, task, weights, by=(c.RUN_DATE,))
    truth = table.earlier_truth(done, first, expected, config.scenarios)
    label = F.concat(F.lit(EARLIER), F.col(c.RUN_DATE).cast("string"))
    numbered, done = (with_numbers(store, rows).withColumn("slice", label) for rows in (lists_, truth))
    settings = _settings(store, config, (PUBLISHED,), night.run_date)
    return evaluation.ranked_lists(numbered, done, settings).collect()


def with_numbers(store: Store, rows: DataFrame) -> DataFrame:
    """Replace user_id and item_id by their numbers; rows without a number are dropped."""
    # both indices are unique by id, so no row is doubled
    numbered = rows.join(store.read(index.USER_INDEX), on=c.USER_ID, how="inner")
    numbered = numbered.join(store.read(index.ITEM_INDEX), on=c.ITEM_ID, how="inner")
    return numbered.drop(c.USER_ID, c.ITEM_ID)


def _settings(store: Store, config: Config, modes: tuple[str, ...], as_of: date) -> evaluation.Settings:
    bundle = artifacts.require(store, config, RETRIEVER, as_of, RETRIEVER)
    return evaluation.Settings(
        modes=modes,
        trained=tuple(mode for mode in modes if mode not in RETRIEVERS and mode != PUBLISHED),
        cutoffs=cutoffs_of(config.recommendations.k),
        num_replicates=config.model_metrics.bootstrap,
        seed=config.seed,
        tie_rank=partial(model_folder.open_array, bundle, "tie_rank"),
        fresh=partial(_fresh_items, bundle, as_of) if PUBLISHED not in modes else None,
    )


def cutoffs_of(k: int) -> tuple[int, ...]:
    """Where lists are cut for the metrics: the gate's cutoff, then the whole list of `k` places if that is longer."""
    return (TOP, k) if k > TOP else (k,)


def _fresh_items(bundle: str, as_of: date) -> Array:
    """bool (I,): items first seen less than COLD_DAYS before the date, or never."""
    first_time = np.asarray(model_folder.open_array(bundle, "stats_first_time"))
    return np.asarray(~(first_time <= as_of_day(as_of) - COLD_DAYS))


def decide(
    store: Store, judged: Sequence[Row], night: MetricsInput, transferring: Sequence[str] = ()
) -> list[gate.Decision]:
    """The gate's decision for every scenario that gets lists tonight, from the `window_rows` of all judged windows.

    With the mode `ranker_alone` the reasons also name the `transferring` modes that do worse than it.
    """
    rows = store.read(candidates.TABLE).where(F.col(c.AS_OF) == F.lit(night.run_date))
    scenarios = sorted(row[0] for row in rows.select(c.SCENARIO).distinct().collect())
    users = _gain_moments(judged, scenarios, len(night.modes))
    simple = [mode for mode in night.modes if mode in RETRIEVERS]
    decisions = gate.decide(scenarios, night.modes, users, night.published, simple)
    alone = mode_of(ALONE)
    if alone not in night.modes:
        return decisions
    return gate.name_negative_transfer(decisions, night.modes, users, alone, transferring)


def _gain_moments(judged: Iterable[Row], scenarios: list[str], num_modes: int) -> gate.GainMoments:
    """The moments over the windows; zeros for scenarios in which no user was measured."""
    by_scenario = {scenario: np.zeros(1 + num_modes + num_modes**2) for scenario in scenarios}
    for row in judged:
        if row.metric == evaluation.MOMENTS and row.slice == ALL and row[c.SCENARIO] in by_scenario:
            by_scenario[row[c.SCENARIO]] += np.asarray(row.data)
    data = np.stack(list(by_scenario.values()))
    cross = data[:, 1 + num_modes :].reshape(-1, num_modes, num_modes)
    return gate.GainMoments(data[:, 0], data[:, 1 : 1 + num_modes], cross)


def _eligible_items(store: Store, config: Config, night: MetricsInput) -> dict[tuple[str, str], int]:
    """(slice, scenario) -> number of eligible items: as of the window, and as of tonight for earlier lists."""
    num_items: dict[tuple[str, str], int] = {}
    rules = config.of_past_dates().scenarios
    slices = {night.window: [ALL], night.run_date: [f"{EARLIER}{day}" for day, _ in night.earlier]}
    for as_of, names in slices.items():
        path = artifacts.find(store, config, RETRIEVER, as_of)
        if not names or path is None:
            continue
        bundle = open_bundle(path)
        sizes = {EVERYONE: int(np.count_nonzero(bundle.known))}
        for scenario in bundle.scenarios:
            sizes[scenario] = int(np.count_nonzero(candidate_blocks.eligible(bundle, rules, scenario)))
        num_items |= {(name, scenario): size for name in names for scenario, size in sizes.items()}
    return num_items


def _metric_rows(measured: Iterable[Row], num_items: Mapping[tuple[str, str], int]) -> list[tuple[Any, ...]]:
    """Rows of TABLE, from its column `model` on; figures without a value are left out."""
    rows = []
    for r in measured:
        value = r.value
        if r.metric == evaluation.COVERAGE:
            size = num_items.get((r.slice, r[c.SCENARIO]), 0)
            value = value / size if size else None
        if r.metric != evaluation.MOMENTS and value is not None:
            rows.append((r.model, "", r[c.SCENARIO], r.slice, r.metric, value, r.lower, r.upper, r.num_users, None))
    return rows


def _decision_rows(decisions: list[gate.Decision], gain: str) -> list[tuple[Any, ...]]:
    """Two rows for each scenario, both with the reason: the challenger's gain, and the mode that orders its lists."""
    rows: list[tuple[Any, ...]] = []
    for d in decisions:
        figures = [x if math.isfinite(x) else None for x in (d.gain, d.lower, d.upper)]
        rows.append((d.challenger, d.incumbent, d.scenario, ALL, gain, *figures, d.num_users, d.reason))
        rows.append((d.mode, d.incumbent, d.scenario, ALL, DECISION, 1.0, None, None, d.num_users, d.reason))
    return rows


def summarise(measured: Iterable[Row], judged: Iterable[Row], decisions: list[gate.Decision], k: int) -> str:
    """One line: NDCG of the modes over all scenarios, and the number of scenarios that each of them orders."""
    overall = [r for r in measured if r.metric == f"ndcg@{k}" and r[c.SCENARIO] == EVERYONE and r.slice == ALL]
    everyone = [r for r in judged if r[c.SCENARIO] == EVERYONE and r.slice == ALL]
    num_lists = [r.data[0] for r in everyone if r.metric == evaluation.MOMENTS]
    figures = ", ".join(f"{r.model} {r.value:.4f}" for r in sorted(overall, key=lambda r: -r.value))
    modes = [d.mode for d in decisions]
    chosen = ", ".join(f"{modes.count(mode)} {mode}" for mode in sorted(set(modes), key=lambda m: -modes.count(m)))
    users = f" over {max(r.num_users for r in overall):,} users" if overall else ""
    windows = f"{len(num_lists)} window" + "s" * (len(num_lists) != 1)
    by = f"scenarios by mode, from {sum(num_lists):,.0f} lists of {windows}"
    return f"ndcg@{k}{users}: {figures or 'no user to measure on'}; {by}: {chosen}"
