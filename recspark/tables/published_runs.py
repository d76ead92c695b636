"""published_runs: one row a run, published or held; written after the commit on recommendations, repaired from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any

from recspark import columns as c
from recspark.warehouse.state import metadata_of
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="published_runs",
    ddl=f"{c.RUN_DATE} date, {c.RUN_ID} string, published_at timestamp, status string, {c.REASON} string, "
    "config_hash string, model_versions map<string,string>, input_versions map<string,string>",
    key=(c.RUN_ID,),
    row="A run that published lists or held them back.",
    comments={
        "published_at": "When, UTC. Example: 2011-12-10 02:14:07",
        "status": "published, held (a check failed: readers keep the night before) or withdrawn. Example: published",
        c.REASON: "What was published, or why it was held. Example: 8,390 rows, 839 lists of 10",
        "config_hash": "Hash of the configuration.",
        "model_versions": "Mode -> folders of its models; empty where retrievers order all lists.",
        "input_versions": "Table -> version that was read.",
    },
    checks=(("known_status", "status IN ('published', 'held', 'withdrawn')"),),
)
PUBLISHED, HELD, WITHDRAWN = "published", "held", "withdrawn"  # the last also in a commit's metadata: its run_ids
RUNS = "runs"  # in the metadata of a commit: the published run_ids that it wrote


@dataclass(frozen=True)
class Versions:
    """What a list was made from."""

    config_hash: str
    models: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Metadata for the commit on recommendations: enough to write the row later."""
        return {"config_hash": self.config_hash, "models": dict(self.models), "inputs": dict(self.inputs)}


def write(store: Store, run_date: date, status: str, reason: str, versions: Versions) -> None:
    """The row of this run; a second one for the same run replaces it."""
    row = (run_date, store.run_id, datetime.now(timezone.utc), status, reason, *_versions(versions.metadata()))
    _merge(store, [row])


def withdraw(store: Store, run_ids: list[str]) -> list[str]:
    """Mark runs whose lists were taken back; returns those that were not marked yet."""
    if not store.exists(TABLE):
        return []
    rows = store.read(TABLE)
    found = rows.where(rows[c.RUN_ID].isin(run_ids) & (rows["status"] == PUBLISHED)).collect()
    if found:
        _merge(store, [tuple({**row.asDict(), "status": WITHDRAWN}.values()) for row in found])
    return sorted(row[c.RUN_ID] for row in found)


def repair(store: Store, published: Table) -> list[str]:
    """Add the rows that are missing since a run crashed after its commit on the table `published`, and mark those whose
    lists were taken back; returns their run_ids.

    Reads the commit logs of both tables (Delta keeps 30 days of them), and rows only where this one's log is too short.
    """
    if not store.exists(published):
        return []
    commits = [(row, metadata_of(row.userMetadata)) for row in store.history(published)]
    stamped = {found[c.RUN_ID]: (row, found) for row, found in commits if c.RUN_DATE in found}
    known = _logged(store) if store.exists(TABLE) else set()
    if store.exists(TABLE) and not known.issuperset(stamped):
        known |= _known(store, list(stamped))
    missing = {run_id: commit for run_id, commit in stamped.items() if run_id not in known}
    if missing:
        _merge(store, [_row(row, found) for row, found in missing.values()])
    taken_back = [run_id for _, found in commits for run_id in found.get(WITHDRAWN, ())]
    marked = withdraw(store, taken_back) if taken_back else []
    return sorted({*missing, *marked})


def _logged(store: Store) -> set[str]:
    """The published runs named in the metadata of this table's commits; no row is read."""
    stamps = (metadata_of(row.userMetadata) for row in store.history(TABLE))
    return {run_id for stamp in stamps for run_id in json.loads(stamp.get(RUNS, "[]"))}


def _known(store: Store, run_ids: list[str]) -> set[str]:
    rows = store.read(TABLE).select(c.RUN_ID)
    return {row[0] for row in rows.where(rows[c.RUN_ID].isin(run_ids)).collect()}


def _row(commit: Any, found: Mapping[str, Any]) -> tuple[Any, ...]:
    run_date = date.fromisoformat(found[c.RUN_DATE])
    reason = f"repaired from commit {commit.version} of recommendations"
    return (run_date, found[c.RUN_ID], commit.timestamp, PUBLISHED, reason, *_versions(found))


def _versions(found: Mapping[str, Any]) -> tuple[Any, ...]:
    return found.get("config_hash"), found.get("models", {}), found.get("inputs", {})


def _merge(store: Store, rows: list[tuple[Any, ...]]) -> None:
    runs = [row[1] for row in rows if row[3] == PUBLISHED]
    store.merge(TABLE, store.spark.createDataFrame(rows, TABLE.schema).coalesce(1), {RUNS: json.dumps(runs)})
