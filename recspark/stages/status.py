"""What an engineer on call wants to know of a warehouse: is a run going, how the last nights went, what is published.

Read without Spark where the tables are folders (see warehouse/snapshot.py), so it answers in a second, also when Spark
does not start. It writes nothing and needs no lease.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import fsspec

from recspark import columns as c
from recspark.config.schema import Config
from recspark.session import get_session
from recspark.tables import model_metrics, published_runs, stage_runs
from recspark.warehouse import lease, snapshot, stage_log
from recspark.warehouse.lease_files import LeaseFolder
from recspark.warehouse.stage_log import DONE, FAILED, HELD, KILLED, RUNNING, SKIPPED
from recspark.warehouse.store import Store, Table

Row = Mapping[str, Any]

# by name: a contract's own list of its columns needs Spark
OF_RUNS = (c.RUN_ID, c.RUN_DATE, "stage", "status", "started_at", "ended_at", "error")
OF_PUBLISHED = (
    c.RUN_ID, c.RUN_DATE, "status", "published_at", c.REASON, "config_hash", "model_versions", "input_versions",
)  # fmt: skip
NIGHTS = 7  # that are shown
NAMED = 12  # scenarios of one mode that are named
BESIDE = ("maintenance", "unpublish")  # runs that are no part of a night
WHAT_TO_DO = {
    HELD: "correct the source and run the night again; or let it pass: recspark run ... --run-date {night} --accept",
    FAILED: "do what the line says, then: recspark run ... --run-date {night}; what is done is skipped",
    KILLED: "recspark run ... --run-date {night}; what is done is skipped",
}


def lines(config: Config) -> Iterator[str]:
    """The report, line by line."""
    yield f"warehouse {config.warehouse}" + (f", catalog {config.catalog}" if config.catalog else "")
    now = time.time()
    holder = _holder(config)
    yield f"now: {_is_running(holder, now) if holder else 'no run'}"
    runs = [*rows(config, stage_runs.TABLE, OF_RUNS), *_not_stored(config, holder)]
    found = nights(runs)
    yield "last nights:" if found else "no night yet: recspark run ..."
    for night in sorted(found, reverse=True)[:NIGHTS]:
        yield from _of_night(night, found[night])
    tidied = [row["started_at"] for row in runs if row["stage"] == "maintenance" and row["status"] == DONE]
    if found:
        yield (
            f"maintained: {max(tidied):%Y-%m-%d}" if tidied else "maintained: never; recspark maintain ... once a week"
        )
    yield from _published(config)


def rows(
    config: Config, table: Table, columns: Sequence[str], where: tuple[str, str] | None = None
) -> list[dict[str, Any]]:
    """Rows of a small table, without Spark if it can be; none if it does not exist. `where`: see `snapshot.read`."""
    if config.catalog is None:
        folder = f"{config.warehouse.rstrip('/')}/{config.tables.get(table.noun, table.noun)}"
        found = snapshot.read(folder, columns, where)
        if found is not None:
            return found
    spark, _ = get_session(config.spark, s3=config.is_on_s3)
    store = Store(spark, config, "status")
    if not store.exists(table):
        return []
    asked = store.read(table)
    asked = asked if where is None else asked.where(asked[where[0]] == where[1])
    return [{name: _utc(value) for name, value in row.asDict().items()} for row in asked.select(*columns).collect()]


def _utc(value: Any) -> Any:
    """Spark gives times by this machine's clock; the files have UTC, without saying so."""
    return value.astimezone(timezone.utc).replace(tzinfo=None) if isinstance(value, datetime) else value


def nights(runs: Iterable[Row]) -> dict[str, list[Row]]:
    """Run date -> the newest row of each stage, in the order in which they began. A night may be several runs."""
    newest: dict[str, dict[str, Row]] = {}
    for row in sorted(runs, key=lambda row: row["started_at"]):
        if row["stage"] not in BESIDE:
            night = newest.setdefault(str(row[c.RUN_DATE]), {})
            night.pop(row["stage"], None)  # again, at the end
            night[row["stage"]] = row
    return {night: list(stages.values()) for night, stages in newest.items()}


def newest_published(config: Config, run_date: str | None = None) -> Row | None:
    """The row of published_runs whose lists readers see, of the newest night or of one night; None without lists."""
    where = None if run_date is None else (c.RUN_DATE, run_date)
    found = rows(config, published_runs.TABLE, OF_PUBLISHED, where)
    lists = [row for row in found if row["status"] == published_runs.PUBLISHED]
    return max(lists, key=lambda row: (str(row[c.RUN_DATE]), row["published_at"]), default=None)


def decisions(config: Config, run_date: str) -> dict[str, Row]:
    """Scenario -> the gate's row of a night: `model` orders its lists, `baseline` did before, `note` says why."""
    wanted = (c.RUN_DATE, c.SCENARIO, c.MODEL, "baseline", "metric", "note")
    found = rows(config, model_metrics.TABLE, wanted, (c.RUN_DATE, run_date))
    return {row[c.SCENARIO]: row for row in found if row["metric"] == model_metrics.DECISION}


def _holder(config: Config) -> lease.Lease | None:
    """The run that has the warehouse; nothing is written to find out."""
    fs, root = fsspec.core.url_to_fs(config.warehouse.rstrip("/"))
    folder = LeaseFolder(fs, f"{root}/{lease.FOLDER}")
    return next((one for one in lease.leases(folder, folder.newest()) if not one.is_free()), None)


def _is_running(holder: lease.Lease, now: float) -> str:
    where = f"in {holder.stage}" if holder.stage else "starting"
    text = (
        f"run {holder.run_id} {where}, for {_span(now - holder.since)}, last heartbeat {_span(now - holder.alive)} ago"
    )
    if holder.may_be_gone(now):
        return f"{text}: it seems to have died; the next run finds out and goes on"
    return text


def _not_stored(config: Config, holder: lease.Lease | None) -> Iterator[dict[str, Any]]:
    """Rows that are not in the table yet; of a run that has no lease any more, `running` means killed."""
    for one in stage_log.read(config.warehouse):
        texts = {name: getattr(one, name) for name in ("started_at", "ended_at")}
        times = {name: text and _utc(datetime.fromisoformat(text)) for name, text in texts.items()}
        lives = holder is not None and holder.run_id == one.run_id
        status = KILLED if one.status == RUNNING and not lives else one.status
        yield {**one.__dict__, **times, "status": status}


def _of_night(night: str, stages: Sequence[Row]) -> Iterator[str]:
    last = stages[-1]
    seconds = sum((row["ended_at"] - row["started_at"]).total_seconds() for row in stages if row["ended_at"])
    states = [row["status"] for row in stages]
    state = last["status"] if last["status"] not in (DONE, SKIPPED) else DONE
    built = f"{states.count(DONE)} stages built, {states.count(SKIPPED)} skipped, {_span(seconds)}"
    begun = min(row["started_at"] for row in stages if row[c.RUN_ID] == last[c.RUN_ID])
    yield f"  {night}  {state:8} {built}, begun {begun:%Y-%m-%d %H:%M}, run {last[c.RUN_ID]}"
    if state == RUNNING:
        yield f"      in {last['stage']}"
    if state in WHAT_TO_DO:
        yield f"      {last['stage']}: {last['error'] or 'killed'}"
        yield f"      to do: {WHAT_TO_DO[state].format(night=night)}"


def _published(config: Config) -> Iterator[str]:
    published = newest_published(config)
    if published is None:
        yield "published: nothing"
        return
    night = str(published[c.RUN_DATE])
    yield f"published: lists of {night}, {published[c.REASON]}, run {published[c.RUN_ID]}"
    of_mode: dict[str, list[str]] = {}
    for scenario, row in sorted(decisions(config, night).items()):
        of_mode.setdefault(row[c.MODEL], []).append(scenario)
    for mode, scenarios in sorted(of_mode.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        more = f" and {len(scenarios) - NAMED} more" if len(scenarios) > NAMED else ""
        yield f"  {mode} in {len(scenarios)}: {', '.join(scenarios[:NAMED])}{more}"


def _span(seconds: float) -> str:
    """12 s, 7 min, 3.5 h."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
