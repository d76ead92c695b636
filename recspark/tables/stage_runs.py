"""stage_runs: what each stage of each run did, and how long it took. Written in one commit at the end of a run."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from pyspark.sql import functions as F

from recspark import columns as c
from recspark.warehouse.stage_log import StageRun
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="stage_runs",
    ddl=f"{c.RUN_ID} string, {c.RUN_DATE} date, stage string, status string, started_at timestamp, ended_at timestamp, "
    "rows_in bigint, rows_out bigint, rejected bigint, version bigint, note string, error string",
    key=(c.RUN_ID, "stage"),
    row="A stage of a run, also of one that failed or was killed. Stages that a run did not come to have no row.",
    comments={
        c.RUN_ID: "The run. Example: 2011-12-10-20111211T020003-2f0c7c",
        "stage": "Stage of the night, in the order of started_at. Example: retriever",
        "status": "done; skipped: nothing it depends on had changed; held: figures unlike earlier ones, or a failed "
        "check; failed: see error; killed: the run was ended from outside. Example: done",
        "started_at": "When the stage began, UTC. Example: 2011-12-11 02:03:12",
        "ended_at": "When it ended, UTC; null: killed at a time that nobody knows. Example: 2011-12-11 02:04:40",
        "rows_in": "Rows that were read, where the stage counts them. Example: 541909",
        "rows_out": "Rows that were written. Example: 392732",
        "rejected": "Rows that were rejected, with reasons in rejected_events. Example: 135080",
        "version": "Version of the table that was written; null: none, or a model. Example: 12",
        "note": "What the stage said of its work.",
        "error": "Why it was held, failed or killed; null for all others.",
    },
)
KEPT = timedelta(days=365)  # rows are small, and a year shows how a night grows


def append(store: Store, rows: Sequence[StageRun]) -> None:
    """Add rows in one commit. Those of other runs may be there already: a run can die between this commit and the note
    that it was made."""
    of_others = sorted({one.run_id for one in rows if one.run_id != store.run_id})
    there = _keys(store, of_others) if of_others and store.exists(TABLE) else set()
    new = [_row(one) for one in rows if (one.run_id, one.stage) not in there]
    if new:
        store.record(TABLE, store.spark.createDataFrame(new, TABLE.schema).coalesce(1))


def _keys(store: Store, run_ids: Sequence[str]) -> set[tuple[str, str]]:
    rows = store.read(TABLE)
    return {(row[0], row[1]) for row in rows.where(rows[c.RUN_ID].isin(run_ids)).select(*TABLE.key).collect()}


def _row(one: StageRun) -> tuple[Any, ...]:
    ended = None if one.ended_at is None else datetime.fromisoformat(one.ended_at)
    times = datetime.fromisoformat(one.started_at), ended
    numbers = one.rows_in, one.rows_out, one.rejected, one.version
    run_date = date.fromisoformat(one.run_date)
    return (one.run_id, run_date, one.stage, one.status, *times, *numbers, one.note, one.error)


def drop_old(store: Store, today: date) -> bool:
    """Delete rows of stages that began more than KEPT ago; without any, no commit and False."""
    if not store.exists(TABLE):
        return False
    is_old = F.col("started_at") < F.lit(today - KEPT)
    if store.read(TABLE).where(is_old).isEmpty():
        return False
    store.delete(TABLE, is_old)
    return True
