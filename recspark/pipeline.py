"""A night: its stages in order, run while holding the warehouse's lease."""

import importlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from recspark.config.schema import Config
from recspark.errors import HELD, ConfigError, described
from recspark.progress import watch
from recspark.session import ended_when_stopped, get_session, stop
from recspark.summary import Summary

if TYPE_CHECKING:  # it imports Spark, which execute() does after the session is made
    from recspark.warehouse.lease import Held
    from recspark.warehouse.stage_log import StageLog
    from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

# artefact -> the module whose refresh() builds it, in the order of a night. Imported when run, so that a job without
# torch does not import it.
STAGES = {
    "interactions": "recspark.stages.interactions",
    "items": "recspark.stages.items",
    "night_statistics": "recspark.stages.night_statistics",
    "item_facts": "recspark.stages.item_facts",
    "time_scales": "recspark.stages.time_scales",
    "given_features": "recspark.stages.given_features",
    "text_adapter": "recspark.stages.text_adapter",
    "item_embeddings": "recspark.stages.item_embeddings.stage",
    "retriever": "recspark.stages.retriever.stage",
    "candidates": "recspark.stages.candidates.stage",
    "training_examples": "recspark.stages.training_examples",
    "ranker": "recspark.stages.ranker.stage",
    "model_metrics": "recspark.stages.model_metrics.stage",
    "recommendations": "recspark.stages.recommendations",
}
# run by themselves, not in a night
OTHERS = {"maintenance": "recspark.stages.maintenance", "unpublish": "recspark.stages.unpublish"}

# these read no time-scale; the first two write the events and items that the time-scales come from
WITHOUT_TIME_SCALES = ("interactions", "items", "night_statistics", "item_facts", "time_scales", "unpublish")
# these hold a night whose figures are unlike those of earlier nights, unless they are accepted
HOLDING = ("night_statistics", "recommendations")
FEW = 10  # rows that are worth a commit of stage_runs: a night has more, a single stage has one

Advance = Callable[[str], None]  # called with the name of each stage when it begins
Finished = Callable[[Summary, float], None]  # called with a stage's summary and its seconds when it has ended


def choose(stages: Sequence[str], from_: str | None, only: str | None) -> list[str]:
    """The stages selected by --from and --only.

    Raises: ConfigError for a stage that does not exist.
    """
    for name in (from_, only):
        if name is not None and name not in stages:
            raise ConfigError(f"no stage `{name}`; the stages in order: {', '.join(stages)}")
    if only is not None:
        return [only]
    return list(stages[list(stages).index(from_) :]) if from_ else list(stages)


def execute(
    stages: Sequence[str],
    config: Config,
    run_date: date,
    run_id: str,
    force: bool,
    advance: Advance,
    finished: Finished,
    wait_s: float = 0.0,
    accept: bool = False,
) -> None:
    """Run the stages in order while holding the warehouse's lease. If one raises an error, earlier ones are kept.

    `wait_s`: how long another run may take to give the lease back. `accept`: figures that would hold the night pass.
    """
    spark, owned = get_session(config.spark, s3=config.is_on_s3)
    from recspark.stages import time_scales
    from recspark.stages.check import configuration, expressions_of_sources
    from recspark.warehouse import catalog, unfinished
    from recspark.warehouse.lease import hold
    from recspark.warehouse.store import Store

    try:
        if len(stages) > 1:
            configuration(spark, config)  # a mistake that would be found after minutes of other stages
        if len(stages) > 1 and "interactions" in stages:
            expressions_of_sources(spark, config, run_date)
        place = catalog.place(spark, config.catalog) if config.catalog else None
        with (
            hold(config.warehouse, run_id, wait_s, place, config.lease.hung_after_s) as held,
            ended_when_stopped(spark, owned),
            watch(spark, held.moved),
        ):
            store = Store(spark, config, run_id, held)
            _begin(store, config, held.taken_over)
            if is_night := len(stages) > 1:
                unfinished.begin(config.warehouse, run_date)
            with _written_down(store, held, run_date) as stage_log:
                for name in stages:
                    advance(name)
                    held.at(name)
                    held.check()  # commits check it themselves; model folders are written without
                    began = time.monotonic()
                    stage_log.begin(name)
                    if name not in WITHOUT_TIME_SCALES:
                        config = time_scales.settle(store, config, run_date)
                    module = importlib.import_module({**STAGES, **OTHERS}[name])
                    options = {"accept": accept} if name in HOLDING else {}
                    summary = replace(module.refresh(store, config, run_date, force, **options), stage=name)
                    store.save_states()
                    stage_log.end(summary)
                    finished(summary, time.monotonic() - began)
                if is_night:
                    unfinished.end(config.warehouse, run_date)
    finally:
        if owned:  # a session of a notebook or a test is not stopped here
            stop(spark)


@contextmanager
def _written_down(store: "Store", held: "Held", run_date: date) -> Iterator["StageLog"]:
    """What the stages do, in a file as they go and in the table stage_runs at the end; see warehouse/stage_log.py.

    A few rows wait for the next run, unless this one ends badly. A fault in here changes nothing of the run.
    """
    from recspark.warehouse import stage_log

    entries = stage_log.StageLog(store.warehouse, store.run_id, run_date)
    try:
        yield entries
    except Exception as error:
        text, code = described(error)
        if _still(held):
            entries.fail(stage_log.HELD if code == HELD else stage_log.FAILED, text)
            _put(store, entries)
        raise
    except KeyboardInterrupt as signal:  # a process that is to end has no time for a commit
        if _still(held):
            entries.fail(stage_log.KILLED, f"stopped by {str(signal) or 'SIGINT'}")
        raise
    if len(entries.rows) >= FEW and _still(held):
        _put(store, entries)


def _put(store: "Store", entries: "StageLog") -> None:
    from recspark.tables import stage_runs

    try:
        stage_runs.append(store, entries.rows)
        entries.clear()
    except Exception as error:  # the file keeps them for the next run
        log.warning("stage_runs was not written: %s", described(error)[0])


def _still(held: "Held") -> bool:
    """Does this run still hold the warehouse?"""
    try:
        held.check()
    except Exception as error:  # of any storage's client, too
        log.warning("what the stages did is not written down: %s", described(error)[0])
        return False
    return True


def check(config: Config, run_date: date) -> Iterator[str]:
    """Yield a line for each part of the configuration and each source that a night of this date could use.

    Raises: as a night does.
    """
    spark, owned = get_session(config.spark, s3=config.is_on_s3)
    from recspark.stages.check import configuration, night, sources
    from recspark.warehouse.store import Store

    try:
        yield from configuration(spark, config)
        yield from sources(spark, config, run_date)
        yield from night(Store(spark, config, "check"), config, run_date)
    finally:
        if owned:
            stop(spark)


def erase(config: Config, users: Sequence[str], at_once: bool, run_id: str, wait_s: float = 0.0) -> Iterator[str]:
    """Yield the lines of a report while these users are taken out of the warehouse, whose lease is held.

    `at_once`: old versions of the tables are removed, too.
    """
    spark, owned = get_session(config.spark, s3=config.is_on_s3)
    from recspark.stages.erase import erase as erase_users
    from recspark.warehouse import catalog
    from recspark.warehouse.lease import hold
    from recspark.warehouse.store import Store

    try:
        place = catalog.place(spark, config.catalog) if config.catalog else None
        with (
            hold(config.warehouse, run_id, wait_s, place, config.lease.hung_after_s) as held,
            ended_when_stopped(spark, owned),
            watch(spark, held.moved),
        ):
            held.at("erase")
            store = Store(spark, config, run_id, held)
            _begin(store, config, held.taken_over)
            try:
                yield from erase_users(store, config, users, at_once)
            finally:
                store.save_states()
    finally:
        if owned:
            stop(spark)


def _begin(store: "Store", config: Config, taken_over: bool) -> None:
    """End what the run before may still be writing, if it has lost the lease; correct what a crash has left; bring
    tables of an earlier version up to date."""
    from recspark.stages import recommendations
    from recspark.tables import items, training_examples
    from recspark.tables.reference import TABLES

    if taken_over:
        store.fence((*TABLES, training_examples.table(config.training_examples.tasks)))
    store.clear_staged()
    recommendations.repair(store)
    store.add_columns(items.TABLE)
    _warn_of_rebuilds_after_upgrade(store)


def _warn_of_rebuilds_after_upgrade(store: "Store") -> None:
    """Log one line in the first run on a warehouse that an earlier version wrote."""
    from recspark.tables import candidates
    from recspark.warehouse.state import FORMAT

    stamp = store.stamp(candidates.TABLE)
    if stamp is not None and FORMAT not in stamp:
        log.warning(
            "%s was written by an earlier version: retrievers, candidates, training examples, rankers and metrics are "
            "built again in this run; events, items, embeddings, indices and published lists stay",
            store.warehouse,
        )
