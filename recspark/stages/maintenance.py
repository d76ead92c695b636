"""Housekeeping of a warehouse: compact small files, vacuum, delete candidates, models and vectors of old nights,
and what stages did more than a year ago."""

import json
import logging
import re
from collections.abc import Iterable
from datetime import date, timedelta

import fsspec
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.model_folder import MANIFEST
from recspark.summary import Summary
from recspark.tables import (
    candidates,
    item_embeddings,
    model_metrics,
    published_runs,
    recommendation_facts,
    recommendations,
    rejected_events,
    stage_runs,
    training_examples,
)
from recspark.tables.reference import TABLES
from recspark.warehouse import artifacts, erased
from recspark.warehouse.old_versions import forget_log, setting, vacuum
from recspark.warehouse.state import slice_of
from recspark.warehouse.store import Store, Table

log = logging.getLogger(__name__)

FILE_BYTES = 128 << 20
RETRIEVER = "retriever"
DATED = re.compile(r"^(\d{4}-\d{2}-\d{2})-")  # <date>-<fingerprint>, and the files that name a date's folder


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Delete expired dates, models and vectors, then OPTIMIZE, comments of columns and VACUUM. All other rows stay.

    No other run may use the warehouse: this job holds its lease. After VACUUM, time travel further back than
    maintenance.retention_hours fails.
    """
    del force  # not needed: maintenance is never skipped, and a second run changes nothing
    examples = training_examples.table(config.training_examples.tasks)
    dropped = sum(drop_dates(store, table, run_date, config) for table in (candidates.TABLE, examples))
    nights = sum(drop_nights(store, table, run_date, days) for table, days in _kept_days(config))
    encoders = drop_embeddings(store, run_date, config)
    folders = drop_models(store, run_date, config)
    stage_runs.drop_old(store, run_date)
    model_folder.evict_copies()
    present = [table for table in TABLES if store.exists(table)]
    # examples keep their files: the feed needs several of them, in hash order
    compacted = sum(compact(store, table) for table in present)
    for table in [*present, *([examples] if store.exists(examples) else [])]:
        store.comment(table)
        vacuum(store, table, config.maintenance.retention_hours)
    for table in [*present, examples]:  # after VACUUM: without log entries, no old version can be read
        if table.noun in erased.due(store.warehouse, config.maintenance.retention_hours):
            forget_log(store, table)
            erased.done(store.warehouse, table.noun)
    note = (
        f"{compacted} files compacted, {dropped} old dates, {nights} old nights, {folders} old model folders and "
        f"the vectors of {encoders} old encoders dropped"
    )
    log.info("maintenance: %s", note)
    return Summary("maintenance", note=note)


def expired(dates: Iterable[date], run_date: date, config: Config) -> list[date]:
    """Dates that no later night needs.

    The last `keep_nights` are kept. Mondays, on which past windows open, are kept as long as a kept night may have a
    window that opens there.
    """
    last = run_date - timedelta(days=config.maintenance.keep_nights)
    settings = config.training_examples
    last_window = last - timedelta(days=settings.label_days * settings.num_windows + 7)
    return sorted(day for day in dates if day < (last_window if day.weekday() == 0 else last))


def drop_dates(store: Store, table: Table, run_date: date, config: Config) -> int:
    """Delete the expired as_of dates of a table, whole partitions; returns how many. Without any, no commit."""
    if not store.exists(table):
        return 0
    dates = [row[0] for row in store.read(table).select(c.AS_OF).distinct().collect()]
    old = expired(dates, run_date, config)
    if old:
        store.delete(table, F.col(c.AS_OF).isin(old), [slice_of({c.AS_OF: day}) for day in old])
    return len(old)


def _kept_days(config: Config) -> list[tuple[Table, int]]:
    lists, records = config.maintenance.keep_lists_days, config.maintenance.keep_records_days
    return [
        *((table, lists) for table in (recommendations.TABLE, recommendation_facts.TABLE)),
        *((table, records) for table in (model_metrics.TABLE, published_runs.TABLE, rejected_events.TABLE)),
    ]


def drop_nights(store: Store, table: Table, run_date: date, days: int) -> int:
    """Delete the rows of nights more than so many days ago, but for the newest one; returns how many nights."""
    if not store.exists(table):
        return 0
    nights = sorted(row[0] for row in store.read(table).select(c.RUN_DATE).distinct().collect())
    old = [night for night in nights[:-1] if night < run_date - timedelta(days=days)]
    if old:
        store.delete(table, F.col(c.RUN_DATE).isin(old), [slice_of({c.RUN_DATE: night}) for night in old])
    return len(old)


def model_folders(store: Store, run_date: date, config: Config) -> tuple[list[str], list[str]]:
    """The expired and the kept folders under models/<noun>/, without the file system's protocol.

    Folders without a date in their name are in neither list and never deleted here.
    """
    fs, root = fsspec.core.url_to_fs(f"{store.warehouse}/models")
    if not fs.exists(root):
        return [], []
    folders = [path for noun in fs.ls(root, detail=False) if fs.isdir(noun) for path in fs.ls(noun, detail=False)]
    dated = [
        (date.fromisoformat(match[1]), path) for path in folders if (match := DATED.match(artifacts.name_of(path)))
    ]
    old = set(expired({day for day, _ in dated}, run_date, config))
    return [path for day, path in dated if day in old], [path for day, path in dated if day not in old]


def drop_models(store: Store, run_date: date, config: Config) -> int:
    """Delete the expired model folders; returns how many."""
    fs, _ = fsspec.core.url_to_fs(store.warehouse)
    gone, _ = model_folders(store, run_date, config)
    for path in gone:
        if fs.isfile(path):
            fs.rm_file(path)
            continue
        model_folder.remove(fs.unstrip_protocol(path))
    return sum(not path.endswith(".txt") for path in gone)


def drop_embeddings(store: Store, run_date: date, config: Config) -> int:
    """Delete the vectors of encoders that expired retrievers used and no kept one uses; returns how many encoders.

    These are text adapters and models of facts, which are trained again every week. Call it before drop_models.
    """
    gone, kept = (_encoders(store, folders) for folders in model_folders(store, run_date, config))
    unused = sorted(gone - kept)
    if not unused or not kept or not store.exists(item_embeddings.TABLE):
        return 0
    store.delete(item_embeddings.TABLE, F.col(c.ENCODER).isin(unused))
    return len(unused)


def _encoders(store: Store, folders: Iterable[str]) -> set[str]:
    """The encoders used by the retrievers among some model folders."""
    fs, _ = fsspec.core.url_to_fs(store.warehouse)
    files = [f"{path}/{MANIFEST}" for path in folders if f"/{RETRIEVER}/" in path]
    return {name for file in files if fs.exists(file) for name in json.loads(fs.cat_file(file)).get("encoders", ())}


def compact(store: Store, table: Table) -> int:
    """Compact small files; returns how many were replaced. Delta commits nothing if there is nothing to do."""
    with setting(store, "spark.databricks.delta.optimize.maxFileSize", str(FILE_BYTES)):
        metrics = store.delta(table).optimize().executeCompaction().select("metrics.numFilesRemoved").first()
    return int(metrics[0])
