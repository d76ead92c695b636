"""The only table I/O: where a table lies, how a slice of it is replaced, and at which version it is read."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError, SchemaError

log = logging.getLogger(__name__)

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
# Operations that leave the rows as they are; a fingerprint must not move when maintenance ran.
HOUSEKEEPING = ("OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "FSCK", "COMPUTE STATS")


@dataclass(frozen=True)
class Table:
    """A table's contract: columns in order (DDL), the key that is unique, and the folder columns if it has any."""

    noun: str
    ddl: str
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()

    @property
    def schema(self) -> T.StructType:
        return T.StructType.fromDDL(self.ddl)

    @property
    def columns(self) -> list[str]:
        return self.schema.fieldNames()

    @property
    def ranged(self) -> list[str]:
        """Columns whose range in every file Delta notes, for filters: key and dates. Its default is the first 32, which
        costs as much as writing them."""
        wanted = {*self.key, *(field.name for field in self.schema if isinstance(field.dataType, T.DateType))}
        return [name for name in self.columns if name in wanted and name not in self.partition_by]


class Store:
    """The tables of one warehouse, as folders or in a catalog."""

    def __init__(self, spark: SparkSession, config: Config, run_id: str) -> None:
        self.spark = spark
        self.run_id = run_id
        self.warehouse = config.warehouse.rstrip("/")
        self._catalog = config.catalog
        self._names = config.tables
        self._history: dict[str, list[Any]] = {}
        self._digests: dict[tuple[str, int, tuple[str, ...]], dict[str, str]] = {}

    # -- places ------------------------------------------------------------------------------------------------------

    def name(self, noun: str) -> str:
        """`catalog.schema.table`, or the table's folder."""
        table = self._names.get(noun, noun)
        return f"{self._catalog}.{table}" if self._catalog else f"{self.warehouse}/{table}"

    def models(self, noun: str) -> str:
        """The folder of all models of one noun."""
        return f"{self.warehouse}/models/{noun}"

    def exists(self, table: Table) -> bool:
        if self._catalog:
            return self.spark.catalog.tableExists(self.name(table.noun))
        return DeltaTable.isDeltaTable(self.spark, self.name(table.noun))

    def delta(self, table: Table) -> DeltaTable:
        """The table's handle, for maintenance."""
        name = self.name(table.noun)
        return DeltaTable.forName(self.spark, name) if self._catalog else DeltaTable.forPath(self.spark, name)

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """All rows, as of a version if one is given.

        Raises DataError when the table does not exist, naming the job that makes it.
        """
        if not self.exists(table):
            raise DataError(
                f"table {self.name(table.noun)} does not exist; run jobs/{table.noun}.py or jobs/nightly.py first"
            )
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        name = self.name(table.noun)
        return reader.table(name) if self._catalog else reader.load(name)

    def events(self, table: Table, start: date | None, end: date) -> DataFrame:
        """Interactions with start <= event_time < end (UTC days). Nothing else reads that table."""
        rows = self.read(table).where(F.col(c.EVENT_DATE) < F.lit(end))
        return rows if start is None else rows.where(F.col(c.EVENT_DATE) >= F.lit(start))

    def files(self, table: Table, version: int, slices: Mapping[str, object] | None = None) -> list[str]:
        """The data files of one version, of one folder slice if given: exactly what a reader outside Spark may open."""
        paths = self.read(table, version).inputFiles()
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
        """Replace the rows that match `where` (all without it) in one commit; returns the new version.

        Raises SchemaError when the table on disk has other columns.
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

    def merge(self, table: Table, rows: DataFrame, metadata: Mapping[str, Any] | None = None) -> int:
        """Insert rows whose key is new and overwrite those whose key exists; returns the new version."""
        if not self.exists(table):
            return self.append(table, rows, metadata)
        matched = " AND ".join(f"old.{key} <=> new.{key}" for key in table.key)
        merging = self.delta(table).alias("old").merge(rows.select(table.columns).alias("new"), matched)
        with self._stamped(metadata):
            merging.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        self._history.pop(table.noun, None)
        return self.version(table)

    def _writer(self, table: Table, rows: DataFrame) -> DataFrameWriter:
        found = [(f.name, f.dataType.simpleString()) for f in rows.schema]
        expected = [(f.name, f.dataType.simpleString()) for f in table.schema]
        assert found == expected, f"{table.noun}: built {found}, the contract is {expected}"
        writer = rows.write.format("delta")
        if not self.exists(table):
            # feed.py reads the files themselves, so a deleted row must be gone from its file
            writer = writer.option("delta.enableDeletionVectors", "false").partitionBy(*table.partition_by)
            writer = writer.option("delta.dataSkippingStatsColumns", ",".join(table.ranged))
        return writer

    @contextmanager
    def _stamped(self, metadata: Mapping[str, Any] | None) -> Iterator[None]:
        """Commits inside carry the metadata. Set on the session: saveAsTable loses the option when it makes a table."""
        stamp = json.dumps({"run_id": self.run_id, **(metadata or {})}, sort_keys=True, default=str)
        self.spark.conf.set(USER_METADATA, stamp)
        try:
            yield
        finally:
            self.spark.conf.unset(USER_METADATA)

    def _commit(self, table: Table, writer: DataFrameWriter, metadata: Mapping[str, Any] | None) -> int:
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
        self._history.pop(table.noun, None)
        return self.version(table)

    # -- versions and fingerprints -----------------------------------------------------------------------------------

    def history(self, table: Table) -> list[Any]:
        """Commits that changed rows, newest first: (version, operation, userMetadata, timestamp)."""
        if table.noun not in self._history:
            rows = self.delta(table).history().select("version", "operation", "userMetadata", "timestamp").collect()
            self._history[table.noun] = [row for row in rows if row.operation not in HOUSEKEEPING]
        return self._history[table.noun]

    def version(self, table: Table) -> int:
        """The newest version that changed rows."""
        return int(self.history(table)[0].version)

    def token(self, table: Table) -> str:
        """Names the table's present content: its id and last data-changing version; `absent` without a table."""
        if not self.exists(table):
            return "absent"
        return f"{self.delta(table).detail().select('id').first()[0]}@{self.version(table)}"

    def stamp(self, table: Table, **wanted: object) -> dict[str, Any] | None:
        """Metadata of the newest commit whose metadata has all the wanted values."""
        if not self.exists(table):
            return None
        for row in self.history(table):
            found = json.loads(row.userMetadata) if row.userMetadata else {}
            if all(found.get(key) == str(value) for key, value in wanted.items()):
                return {**found, "version": int(row.version)}
        return None

    def is_fresh(self, table: Table, fingerprint: str, **slice_: object) -> bool:
        """Was this slice last written from the same inputs by the same code and configuration?"""
        newest = self.stamp(table, **slice_) if slice_ else self.stamp(table)
        return newest is not None and newest.get("fingerprint") == fingerprint

    def digest(self, table: Table, date_column: str, before: date, without: tuple[str, ...] = ()) -> str:
        """Content hash of the rows whose date is before a date, some columns left out: a past as_of keeps it when new
        days arrive.

        One aggregation over the table a night; the driver holds one row a day.
        """
        key = (table.noun, self.version(table), without)
        if key not in self._digests:
            self._digests[key] = day_digests(self.read(table).drop(*without), date_column)
        days = {day: value for day, value in self._digests[key].items() if day < before.isoformat()}
        return hashlib.sha256(json.dumps(days, sort_keys=True).encode()).hexdigest()[:16]

    def remember_days(self, table: Table, days: dict[str, str]) -> None:
        """`day_digests` of the table's present rows, for whoever has just written them."""
        self._digests[table.noun, self.version(table), ()] = days

    @cached_property
    def code_hash(self) -> str:
        """Hash of the package's sources: other code, other fingerprints."""
        root = Path(__file__).resolve().parents[1]
        digest = hashlib.sha256()
        for file in sorted(root.rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
        return digest.hexdigest()[:16]

    def fingerprint(self, *inputs: object) -> str:
        """Hash of a stage's inputs and of the code."""
        return hashlib.sha256(json.dumps([self.code_hash, *map(str, inputs)]).encode()).hexdigest()[:16]


def row_hash(rows: DataFrame) -> Any:
    """64-bit hash of all columns. Spark's hash skips nulls, so which columns are null goes in as well."""
    return F.xxhash64(*map(_hashable, rows.schema), F.array(*(_quoted(name).isNull() for name in rows.columns)))


def _hashable(field: T.StructField) -> Any:
    """A map goes in as sorted entries, since it has no order; what may hold maps deeper down as JSON."""
    column, nested = _quoted(field.name), (T.MapType, T.StructType, T.ArrayType)
    if isinstance(field.dataType, T.MapType) and not isinstance(field.dataType.valueType, nested):
        return F.sort_array(F.map_entries(column))
    return F.to_json(column) if isinstance(field.dataType, nested) else column


def _quoted(name: str) -> Any:
    return F.col("`" + name.replace("`", "``") + "`")


def day_digests(rows: DataFrame, date_column: str) -> dict[str, str]:
    """day -> `count:hash`, whatever the order and the files."""
    days = rows.groupBy(F.col(date_column).cast("date").cast("string").alias("day"))
    return {str(r.day): f"{r.n}:{r.h}" for r in days.agg(F.count("*").alias("n"), rows_hash(rows).alias("h")).collect()}


def rows_hash(rows: DataFrame) -> Any:
    """Aggregate: the rows' hashes, summed without overflow as decimals."""
    return F.sum(row_hash(rows).cast("decimal(38,0)"))
