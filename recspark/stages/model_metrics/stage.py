"""model_metrics: every mode on the newest closed window, earlier lists on what users did since, and the gate."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import gate, model_folder
from recspark.config.schema import RETRIEVERS, Config
from recspark.errors import DataError
from recspark.stages import lists
from recspark.stages.candidates import blocks as candidate_blocks
from recspark.stages.model_metrics import evaluation
from recspark.stages.ranker import scorer
from recspark.stages.ranker import stage as ranker
from recspark.stages.retriever import stage as retriever
from recspark.summary import Summary
from recspark.tables import candidates, index, recommendations
from recspark.tables import model_metrics as table
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.model_metrics import ALL, DECISION, EARLIER, EVERYONE, PUBLISHED, TABLE
from recspark.warehouse.store import Store
from recspark.windows import closed_windows, window_end

log = logging.getLogger(__name__)

TOP = 10  # places that are judged, fewer where lists are shorter


@dataclass(frozen=True)
class Night:
    """Where things lie tonight.

    `window`: as_of of the newest closed one; `earlier`: (run_date, run_id) of the lists to judge; `published`: scenario
    -> the mode of its last list before tonight.
    """

    run_date: date
    window: date
    scorer: scorer.Scorer
    earlier: list[tuple[date, str]]
    published: dict[str, str]

    @property
    def modes(self) -> tuple[str, ...]:
        return self.scorer.modes


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Measure and decide, unless candidates, models, events and earlier lists are those of the last time.

    Raises DataError when tonight has no candidates.
    """
    night = _night(store, config, run_date)
    fingerprint = _fingerprint(store, config, night)
    if not force and store.is_fresh(TABLE, fingerprint, run_date=run_date):
        return Summary("model_metrics", skipped=True)
    measured = window_rows(store, config, night, force) + list(measure_earlier(store, config, night))
    decisions = decide(store, measured, night, ranker.transferring(config))
    k = min(TOP, config.recommendations.k)
    shares = _eligible_items(store, config, night)
    rows = [*_metric_rows(measured, shares), *_decision_rows(decisions, f"gain_ndcg@{k}")]
    frame = store.spark.createDataFrame([(run_date, store.run_id, *row) for row in rows], TABLE.schema)
    where = f"{c.RUN_DATE} = '{run_date}'"
    metadata = {"fingerprint": fingerprint, "run_date": str(run_date)}
    version = store.replace(TABLE, frame.coalesce(1), where=where, metadata=metadata)
    note = summarise(measured, decisions, k)
    log.info("model_metrics: %s", note)
    return Summary("model_metrics", rows_out=len(rows), note=note, version=version)


def _night(store: Store, config: Config, run_date: date) -> Night:
    settings = config.training_examples
    window = closed_windows(run_date, settings.label_days, 1)[0]
    found = scorer.scorer(store, config, run_date, window, ranker.EVALUATED)
    earlier, published = [], {}
    if store.exists(recommendations.TABLE):
        rows = store.read(recommendations.TABLE).where(F.col(c.RUN_DATE) < F.lit(run_date))
        nights = rows.select(c.RUN_DATE, c.RUN_ID).distinct().collect()
        since = run_date - timedelta(days=settings.label_days)
        earlier = sorted((row[0], row[1]) for row in nights if row[0] >= since)
        last = max((row[0] for row in nights), default=None)
        modes = rows.where(F.col(c.RUN_DATE) == F.lit(last)).select(c.SCENARIO, c.MODEL).distinct()
        published = {row[0]: row[1] for row in modes.collect()}
    return Night(run_date, window, found, earlier, published)


def _fingerprint(store: Store, config: Config, night: Night) -> str:
    stamp = store.stamp(candidates.TABLE, as_of=night.run_date)
    if stamp is None:
        raise DataError(f"no candidates as of {night.run_date}; run jobs/candidates.py or jobs/nightly.py first")
    events = store.digest(INTERACTIONS, c.EVENT_DATE, night.run_date)
    window = _window_fingerprint(store, config, night)
    return store.fingerprint(night.run_date, stamp["fingerprint"], events, window, night.earlier)


def _window_fingerprint(store: Store, config: Config, night: Night) -> str:
    """Of everything that the figures on the closed window follow from; the next nights of a week find them by it."""
    stamp = store.stamp(candidates.TABLE, as_of=night.window)
    settings = config.of_past_dates().digest(
        "model_metrics", "recommendations", "scenarios", "interactions", "training_examples", "seed"
    )
    end = window_end(night.window, config.training_examples.label_days)
    events = store.digest(INTERACTIONS, c.EVENT_DATE, end)
    models = str(night.scorer.models).rsplit("/ranker/", 1)[-1]
    return store.fingerprint(settings, night.window, stamp and stamp["fingerprint"], events, models)


def window_rows(store: Store, config: Config, night: Night, force: bool) -> list[Row]:
    """`measure_window`, measured once and then kept: a few rows a scenario, beside the models they are about."""
    kept = f"{store.models('model_metrics')}/{night.window}-{_window_fingerprint(store, config, night)}"
    if force or not model_folder.exists(kept):
        found = [row.asDict() for row in measure_window(store, config, night)]
        model_folder.save(kept, {"window": str(night.window), "rows": found})
    return [Row(**row) for row in model_folder.read_manifest(kept)["rows"]]


def measure_window(store: Store, config: Config, night: Night) -> Iterable[Row]:
    """Figures of every mode on what users did in the newest closed window, with what was known when it opened."""
    as_of, end = night.window, window_end(night.window, config.training_examples.label_days)
    before = store.events(INTERACTIONS, None, as_of)
    task = config.training_examples.tasks[0]
    weights = config.interactions.event_weights
    done = table.positives(store.events(INTERACTIONS, as_of, end), task, weights)
    owed = recommendations.eligible(before, config.scenarios, None, default_user=False)
    truth = with_numbers(store, table.truth(done, before, owed, config.scenarios)).withColumn("slice", F.lit(ALL))
    rows = store.read(candidates.TABLE).where((F.col(c.AS_OF) == F.lit(as_of)) & (F.col(c.USER_IDX) >= 0))
    found = lists.scored(rows, night.scorer, night.modes).withColumn("slice", F.lit(ALL))
    return evaluation.evaluate(
        evaluation.together(found, truth), _settings(store, config, night.modes, as_of)
    ).collect()


def measure_earlier(store: Store, config: Config, night: Night) -> Iterable[Row]:
    """The same for the lists published in the last `label_days`, on what users did from their run_date to tonight."""
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
    due = lists_.select(c.RUN_DATE, c.SCENARIO, c.USER_ID).distinct()
    done = table.positives(since, task, weights, by=(c.RUN_DATE,))
    truth = table.earlier_truth(done, first, due, config.scenarios)
    label = F.concat(F.lit(EARLIER), F.col(c.RUN_DATE).cast("string"))
    found, done = (with_numbers(store, rows).withColumn("slice", label) for rows in (lists_, truth))
    settings = _settings(store, config, (PUBLISHED,), night.run_date)
    return evaluation.ranked_lists(found, done, settings).collect()


def with_numbers(store: Store, rows: DataFrame) -> DataFrame:
    """Replace user_id and item_id by their numbers; both indices are unique by id. Users without a number drop out."""
    numbered = rows.join(store.read(index.USER_INDEX), on=c.USER_ID, how="inner")
    numbered = numbered.join(F.broadcast(store.read(index.ITEM_INDEX)), on=c.ITEM_ID, how="inner")
    return numbered.drop(c.USER_ID, c.ITEM_ID)


def _settings(store: Store, config: Config, modes: tuple[str, ...], as_of: date) -> evaluation.Settings:
    return evaluation.Settings(
        modes=modes,
        learnt=tuple(mode for mode in modes if mode not in RETRIEVERS and mode != PUBLISHED),
        cutoffs=(min(TOP, config.recommendations.k),),
        num_replicates=config.model_metrics.bootstrap,
        seed=config.seed,
        tie_rank=partial(model_folder.open_array, retriever.folder(store, config, as_of), "tie_rank"),
    )


def decide(
    store: Store, measured: Iterable[Row], night: Night, transferring: Sequence[str] = ()
) -> list[gate.Decision]:
    """The gate, for every scenario that gets lists tonight; with `ranker_alone` it says which of the modes that are
    `transferring` hurt."""
    rows = store.read(candidates.TABLE).where(F.col(c.AS_OF) == F.lit(night.run_date))
    scenarios = sorted(row[0] for row in rows.select(c.SCENARIO).distinct().collect())
    halves = [_moments(measured, scenarios, str(half), len(night.modes)) for half in (0, 1)]
    simple = [mode for mode in night.modes if mode in RETRIEVERS]
    decisions = gate.decide(scenarios, night.modes, halves[0], halves[1], night.published, simple)
    alone = ranker.mode_of(ranker.ALONE)
    if alone not in night.modes:
        return decisions
    return gate.name_negative_transfer(decisions, night.modes, halves, alone, transferring)


def _moments(measured: Iterable[Row], scenarios: list[str], half: str, num_modes: int) -> gate.Moments:
    """Of one half of the users; zeros for scenarios where nobody was measured."""
    wanted = [r for r in measured if r.metric == evaluation.MOMENTS and r.model == half and r.slice == ALL]
    of = {row[c.SCENARIO]: np.asarray(row.data) for row in wanted}
    empty = np.zeros(1 + num_modes + num_modes**2)
    data = np.stack([of.get(scenario, empty) for scenario in scenarios])
    cross = data[:, 1 + num_modes :].reshape(-1, num_modes, num_modes)
    return gate.Moments(data[:, 0], data[:, 1 : 1 + num_modes], cross)


def _eligible_items(store: Store, config: Config, night: Night) -> dict[tuple[str, str], int]:
    """(slice, scenario) -> how many items could be listed: of the window, and of tonight for the earlier lists."""
    found: dict[tuple[str, str], int] = {}
    rules = config.of_past_dates().scenarios
    slices = {night.window: [ALL], night.run_date: [f"{EARLIER}{day}" for day, _ in night.earlier]}
    for as_of, names in slices.items():
        path = retriever.folder(store, config, as_of)
        if not names or not model_folder.exists(path):
            continue
        bundle = retriever.open_bundle(path)
        sizes = {EVERYONE: int(np.count_nonzero(bundle.known))}
        for scenario in bundle.scenarios:
            sizes[scenario] = int(np.count_nonzero(candidate_blocks.eligible(bundle, rules, scenario)))
        found |= {(name, scenario): size for name in names for scenario, size in sizes.items()}
    return found


def _metric_rows(measured: Iterable[Row], num_items: Mapping[tuple[str, str], int]) -> list[tuple[Any, ...]]:
    """Rows of TABLE from `model` on; a figure that is nan is none."""
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
    """Two rows a scenario: the gain that was looked at, and what orders its lists tonight, both with the reason."""
    rows: list[tuple[Any, ...]] = []
    for d in decisions:
        figures = [x if math.isfinite(x) else None for x in (d.gain, d.lower, d.upper)]
        rows.append((d.challenger, d.incumbent, d.scenario, ALL, gain, *figures, d.num_users, d.reason))
        rows.append((d.mode, d.incumbent, d.scenario, ALL, DECISION, 1.0, None, None, d.num_users, d.reason))
    return rows


def summarise(measured: Iterable[Row], decisions: list[gate.Decision], k: int) -> str:
    """One line: NDCG of the modes over all scenarios, and how many scenarios each of them orders."""
    whole = [r for r in measured if r.metric == f"ndcg@{k}" and r[c.SCENARIO] == EVERYONE and r.slice == ALL]
    figures = ", ".join(f"{r.model} {r.value:.4f}" for r in sorted(whole, key=lambda r: -r.value))
    modes = [d.mode for d in decisions]
    chosen = ", ".join(f"{modes.count(mode)} {mode}" for mode in sorted(set(modes), key=lambda m: -modes.count(m)))
    users = f" over {max(r.num_users for r in whole):,} users" if whole else ""
    return f"ndcg@{k}{users}: {figures or 'nobody to measure on'}; scenarios by mode: {chosen}"
