"""All table I/O: the location of a table, replacing a slice of it, reading a version of it, fingerprints."""

import hashlib
import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import DataError, SchemaError
from recspark.warehouse import erased, state
from recspark.warehouse.digests import day_digests
from recspark.warehouse.lease import Held
from recspark.warehouse.state import FORMAT, WRITTEN_FORMAT, Commit, TableState

log = logging.getLogger(__name__)

STAGED = "_staged"  # folder of rows that are checked before they are committed
LEASE = "lease"  # in a commit's metadata: the number of the lease that its run held
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


@dataclass(frozen=True)
class Table:
    """A table's contract: columns in order (DDL), the unique key, partition columns and check constraints."""

    noun: str
    ddl: str
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    checks: tuple[tuple[str, str], ...] = ()  # (name, condition), for tables created from now on
    row: str = ""  # what a row is
    comments: Mapping[str, str] = field(default_factory=dict)  # column -> meaning, before columns.COMMENTS

    @property
    def schema(self) -> T.StructType:
        schema = T.StructType.fromDDL(self.ddl)
        assert isinstance(schema, T.StructType)
        return schema

    @property
    def columns(self) -> list[str]:
        return self.schema.fieldNames()

    def comment(self, column: str) -> str:
        """What a column means; empty if nothing is said."""
        return self.comments.get(column) or c.COMMENTS.get(column, "")

    @property
    def ranged(self) -> list[str]:
        """Columns with minimum and maximum in Delta's file statistics: key and dates.

        Delta's default is the first 32 columns, which takes as long as writing them.
        """
        wanted = {*self.key, *(field.name for field in self.schema if isinstance(field.dataType, T.DateType))}
        return [name for name in self.columns if name in wanted and name not in self.partition_by]


class Store:
    """The tables of one warehouse, as folders or in a catalog."""

    def __init__(self, spark: SparkSession, config: Config, run_id: str, held: Held | None = None) -> None:
        """`held`: the lease of the run, without which nothing is committed; None for a reader."""
        self.spark = spark
        self.run_id = run_id
        self._held = held
        self.warehouse = config.warehouse.rstrip("/")
        self._catalog = config.catalog
        self._names = config.tables
        self._states: dict[str, TableState] = {}  # as far as this run has looked
        self._stored: dict[str, TableState | None] = {}  # as they are in their files
        self._digests: dict[tuple[str, int, tuple[str, ...]], dict[str, str]] = {}

    # -- locations ---------------------------------------------------------------------------------------------------

    def name(self, noun: str) -> str:
        """`catalog.schema.table`; without a catalog, the table's folder."""
        table = self._names.get(noun, noun)
        return f"{self._catalog}.{table}" if self._catalog else f"{self.warehouse}/{table}"

    def sql_name(self, table: Table) -> str:
        return self.name(table.noun) if self._catalog else f"delta.`{self.name(table.noun)}`"

    def location(self, table: Table) -> str:
        """Spark's URI of the table's folder."""
        return str(self.delta(table).detail().select("location").first()[0])

    def models(self, noun: str) -> str:
        """The folder of all model folders of one artefact."""
        return f"{self.warehouse}/models/{noun}"

    def exists(self, table: Table) -> bool:
        if self._catalog:
            return self.spark.catalog.tableExists(self.name(table.noun))
        return bool(DeltaTable.isDeltaTable(self.spark, self.name(table.noun)))

    def _require(self, table: Table) -> None:
        if not self.exists(table):
            raise DataError(
                f"table {self.name(table.noun)} does not exist; run jobs/{table.noun}.py or jobs/nightly.py first"
            )

    def delta(self, table: Table) -> DeltaTable:
        """The table's handle.

        Raises: DataError if the table does not exist, naming the job that creates it.
        """
        self._require(table)
        name = self.name(table.noun)
        return DeltaTable.forName(self.spark, name) if self._catalog else DeltaTable.forPath(self.spark, name)

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """All rows, of the given version or the newest.

        Raises: DataError if the table does not exist, naming the job that creates it.
        """
        self._require(table)
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        name = self.name(table.noun)
        return reader.table(name) if self._catalog else reader.load(name)

    def events(self, table: Table, start: date | None, end: date) -> DataFrame:
        """Interactions with start <= event_time < end (UTC days). All other code reads that table through this."""
        rows = self.read(table).where(F.col(c.EVENT_DATE) < F.lit(end))
        return rows if start is None else rows.where(F.col(c.EVENT_DATE) >= F.lit(start))

    def files(self, table: Table, version: int, slices: Mapping[str, object] | None = None) -> list[str]:
        """The data files of one version, or of one partition of it: the files that a reader outside Spark must open."""
        current = version == self.version(table)  # later commits have changed no row, and its log may be gone
        paths = self.read(table, None if current else version).inputFiles()
        wanted = [f"/{name}={value}/" for name, value in (slices or {}).items()]
        return sorted(p for p in paths if all(part in p for part in wanted))

    # -- writing -----------------------------------------------------------------------------------------------------

    def replace(
        self,
        table: Table,
        rows: DataFrame,
        where: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        txn: tuple[str, int] | None = None,
    ) -> int:
        """Replace the rows that match `where` (all rows without it) in one commit; returns the new version.

        Raises: SchemaError if the table on disk has other columns.
        """
        writer = self._writer(table, rows)
        if txn is not None:
            writer = writer.option("txnAppId", txn[0]).option("txnVersion", txn[1])
        if self.exists(table):
            writer = writer.mode("overwrite")
            if where is not None:
                writer = writer.option("replaceWhere", where)
        return self._commit(table, writer, metadata)

    def append(self, table: Table, rows: DataFrame, metadata: Mapping[str, Any] | None = None) -> int:
        """Add rows in one commit; returns the new version."""
        return self._commit(table, self._writer(table, rows).mode("append"), metadata)

    def record(self, table: Table, rows: DataFrame) -> None:
        """Add rows in one commit to a table that no stage reads: nobody asks for its version, which takes as long again
        to look up."""
        self._save(table, self._writer(table, rows).mode("append"), None)

    def merge(self, table: Table, rows: DataFrame, metadata: Mapping[str, Any] | None = None) -> int:
        """Insert rows whose key is new and overwrite those whose key exists; returns the new version."""
        if not self.exists(table):
            return self.append(table, rows, metadata)
        matched = " AND ".join(f"old.{key} <=> new.{key}" for key in table.key)
        merging = self.delta(table).alias("old").merge(rows.select(table.columns).alias("new"), matched)
        with self._stamped(metadata):
            merging.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        return self.look(table).changed

    def delete(
        self,
        table: Table,
        condition: Column,
        slices: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Delete rows in one commit. `slices`: those that are gone with them, as `state.slice_of` names them."""
        dropped = {state.DROPPED: sorted(slices)} if slices else {}
        with self._stamped({**dropped, **(metadata or {})}):
            self.delta(table).delete(condition)
        self.look(table)

    def erase(self, table: Table, gone: DataFrame, new: Mapping[str, str] | None = None) -> int:
        """Delete the rows that are equal to a row of `gone` (few rows, unique) in its first column, or set columns of
        theirs to those of `gone` (`new`: column -> column of `gone`); returns how many. What was made from the table
        stays fresh, and no value of `gone` stands in the commit. Without such rows, nothing is committed."""
        name = gone.columns[0]
        gone, count = F.broadcast(gone), self.read(table).join(F.broadcast(gone.select(name)), on=name).count()
        if count:
            merging = self.delta(table).alias("old").merge(gone.alias("gone"), f"old.{name} = gone.{name}")
            values = {column: f"gone.{value}" for column, value in (new or {}).items()}
            with self._stamped({state.DROPPED: []}):
                (merging.whenMatchedUpdate(set=values) if new else merging.whenMatchedDelete()).execute()
            self.look(table)
        return count

    @contextmanager
    def staged(self, table: Table, rows: DataFrame) -> Iterator[DataFrame]:
        """Write rows of a table to files beside it, and read them there: what is checked is then what is committed,
        while Spark may compute a cached row again. Of a killed run they are removed by `clear_staged`."""
        folder = f"{self.warehouse}/{STAGED}/{self.run_id}-{uuid.uuid4().hex[:8]}"
        rows.select(table.columns).write.parquet(folder)
        try:
            yield self.spark.read.schema(table.schema).parquet(folder)
        finally:
            model_folder.remove(folder)

    def clear_staged(self) -> None:
        """Remove what killed runs have staged."""
        model_folder.remove(f"{self.warehouse}/{STAGED}")

    def _writer(self, table: Table, rows: DataFrame) -> DataFrameWriter:
        found = [(f.name, f.dataType.simpleString()) for f in rows.schema]
        expected = [(f.name, f.dataType.simpleString()) for f in table.schema]
        assert found == expected, f"{table.noun}: built {found}, the contract is {expected}"
        if self.exists(table):
            writer = rows.write.format("delta")
        else:
            named = (F.col(n).alias(n, metadata={"comment": table.comment(n)}) for n in table.columns)
            writer = rows.select(*named).write.format("delta")
            # training/feed reads the files without Delta, so a deleted row must not remain in its file
            writer = writer.option("delta.enableDeletionVectors", "false").partitionBy(*table.partition_by)
            writer = writer.option("delta.dataSkippingStatsColumns", ",".join(table.ranged))
            for check, condition in table.checks:
                writer = writer.option(f"delta.constraints.{check}", condition)
        return writer

    def comment(self, table: Table) -> bool:
        """Set the columns' comments of a table that an earlier version made; False if they are there already."""
        found = {field.name: field.metadata.get("comment", "") for field in self.read(table).schema}
        if found == {name: table.comment(name) for name in table.columns}:
            return False
        texts = {name: table.comment(name).replace("\\", "\\\\").replace("'", "\\'") for name in table.columns}
        changes = ", ".join(f"`{name}` COMMENT '{text}'" for name, text in texts.items())
        self.spark.sql(f"ALTER TABLE {self.sql_name(table)} ALTER COLUMN {changes}")
        return True

    def add_columns(self, table: Table) -> None:
        """Add the columns, null in every row, that a table of an earlier version lacks."""
        found = self.read(table).columns if self.exists(table) else table.columns
        added = [f"`{one.name}` {one.dataType.simpleString()}" for one in table.schema if one.name not in found]
        if added:
            with self._stamped(None):
                self.spark.sql(f"ALTER TABLE {self.sql_name(table)} ADD COLUMNS ({', '.join(added)})")

    @contextmanager
    def _stamped(self, metadata: Mapping[str, Any] | None) -> Iterator[None]:
        """Add the metadata to the commits inside. Set on the session: saveAsTable drops the option for a new table.

        Raises: BusyError if this run has lost the lease, before the commit or by the time it failed or was made.
        """
        lease = {} if self._held is None else {LEASE: self._held.number}
        values = {c.RUN_ID: self.run_id, FORMAT: WRITTEN_FORMAT, **lease, **(metadata or {})}
        self._require_lease()
        self.spark.conf.set(USER_METADATA, json.dumps(values, sort_keys=True, default=str))
        try:
            yield
        finally:
            self.spark.conf.unset(USER_METADATA)
            self._require_lease()  # where the commit failed, this is the cause

    def _require_lease(self) -> None:
        if self._held is not None:
            self._held.check()

    def fence(self, tables: Sequence[Table]) -> None:
        """End what a run before has begun to write and not yet committed: Delta refuses a commit if the table's
        properties have changed since it was begun. For a run that has taken the lease over from one that may still be
        alive, such as a machine that slept."""
        for table in tables:
            if self._held is not None and self.exists(table):
                sql = f"ALTER TABLE {self.sql_name(table)} SET TBLPROPERTIES ('recspark.lease' = '{self._held.number}')"
                self.spark.sql(sql)

    def _commit(self, table: Table, writer: DataFrameWriter, metadata: Mapping[str, Any] | None) -> int:
        self._save(table, writer, metadata)
        return self.look(table).changed

    def _save(self, table: Table, writer: DataFrameWriter, metadata: Mapping[str, Any] | None) -> None:
        name = self.name(table.noun)
        try:
            with self._stamped(metadata):
                if self._catalog:
                    writer.saveAsTable(name)
                else:
                    writer.save(name)
        except AnalysisException as error:
            if "schema" in str(error).lower():
                raise SchemaError(
                    f"table {name} on disk has other columns than this version of recspark writes "
                    f"({', '.join(table.columns)}); use a new warehouse, or move the table away and rebuild it"
                ) from error
            raise

    # -- versions and fingerprints -----------------------------------------------------------------------------------

    def history(self, table: Table) -> list[Any]:
        """The commits that the log still has, newest first: (version, operation, userMetadata, timestamp)."""
        return list(self.delta(table).history().select("version", "operation", "userMetadata", "timestamp").collect())

    def look(self, table: Table) -> TableState:
        """Bring what is known of a table up to date with its log."""
        handle = self.delta(table)
        if table.noun not in self._states:
            stored = self._stored[table.noun] = state.read(self.warehouse, table.noun)
            table_id = str(handle.detail().select("id").first()[0])
            is_same = stored is not None and stored.table_id == table_id
            self._states[table.noun] = stored if stored is not None and is_same else TableState(table_id)
        known = self._states[table.noun]
        newest = handle.history(1).select("version", "operation", "userMetadata").collect()
        missing = newest[0].version - known.seen
        if missing < 0:  # the table was put back, with its log, from a copy
            known, missing = TableState(known.table_id), newest[0].version + 1
        if missing > 1:
            newest = handle.history(missing).select("version", "operation", "userMetadata").collect()
        commits = [Commit(*row) for row in newest]
        foreign = [one for one in commits if one.version > known.seen >= 0 and state.is_foreign(one)]
        for one in foreign:
            log.warning(
                "%s: version %d (%s) is not by recspark; what was made from this table before it is made again",
                self.name(table.noun),
                one.version,
                one.operation,
            )
        self._states[table.noun] = state.after(known, commits)
        return self._states[table.noun]

    def _state(self, table: Table) -> TableState:
        return self._states[table.noun] if table.noun in self._states else self.look(table)

    def save_states(self) -> None:
        """Write down what is known of the tables, for the next run. Only a run that holds the warehouse may."""
        self._require_lease()
        for noun, known in self._states.items():
            if known != self._stored.get(noun):
                state.write(self.warehouse, noun, known)
                self._stored[noun] = known

    def version(self, table: Table) -> int:
        """The newest version that changed rows."""
        return self._state(table).changed

    def token(self, table: Table) -> str:
        """A name of the table's present content: its id and newest version with changed rows; `absent` without it."""
        if not self.exists(table):
            return "absent"
        return f"{self._state(table).table_id}@{self.version(table)}"

    def stamp(self, table: Table, **slice_: object) -> dict[str, Any] | None:
        """Metadata of the newest commit on a slice (`as_of=...`), or on the table, and its `version`; None if there is
        none, or if others have changed the table since."""
        if not self.exists(table):
            return None
        found = self._state(table).stamps.get(state.slice_of(slice_))
        return None if found is None else dict(found)

    def is_fresh(self, table: Table, fingerprint: str, **slice_: object) -> bool:
        """Has the newest commit of this slice the same fingerprint (inputs, code and configuration)?"""
        newest = self.stamp(table, **slice_)
        return newest is not None and newest.get("fingerprint") == fingerprint

    def digest(self, table: Table, date_column: str, before: date, without: tuple[str, ...] = ()) -> str:
        """Hash of the content of all rows before a date, without some columns; new days do not change it.

        One aggregation over the table for each run; the driver holds one row for each day.
        """
        key = (table.noun, self.version(table), without)
        if key not in self._digests:
            self._digests[key] = day_digests(self.read(table).drop(*without), date_column)
        found = erased.as_before(self.warehouse, table.noun, self._digests[key])
        days = {day: value for day, value in found.items() if day < before.isoformat()}
        return hashlib.sha256(json.dumps(days, sort_keys=True).encode()).hexdigest()[:16]

    def remember_days(self, table: Table, days: dict[str, str]) -> None:
        """Set the `day_digests` of the table's present rows; called by the code that has just written them."""
        self._digests[table.noun, self.version(table), ()] = days
