"""Reading the raw rows of a configured source, a fingerprint of them, and each mistake as one line."""

import hashlib
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import expressions
from recspark.columns import quoted
from recspark.config.sources import Source
from recspark.errors import ConfigError, DataError, RecsparkError, differing_file
from recspark.expressions import CORRUPT, FAILURES, first_line
from recspark.sources import json_values
from recspark.sources.paths import hidden, left_out, list_files, literal, resolved

ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".xlsx", ".xls")
# Quotes are doubled inside quotes, as spreadsheets write them; each file's header is compared with the first one's; all
# columns are parsed, since else a row of another width is not noticed.
CSV = {"escape": '"', "enforceSchema": "false", "columnPruning": "false"}
ITEMS = "source.items"  # its texts may hold line breaks; files that are read so cannot be split, which events must be
RELATION = "LogicalRelation"  # Spark's name of a table in a plan
PACKED = 5  # a text is about this many times smaller in gzip


def read(spark: SparkSession, source: Source, section: str) -> DataFrame:
    """All raw rows that match `where`; `section` is the dotted key, for messages (source.interactions).

    Raises: ConfigError for a missing path or table and for SQL that does not parse, SchemaError for an unknown column,
    DataError when there is no row or the rows are not of the configured format.
    """
    rows = opened(spark, source, section)
    try:
        empty = rows.isEmpty()
    except FAILURES as error:
        raise _unreadable(source, section, error) from error
    if empty:
        how = f"no row matches `{source.where}`" if source.where else "no row in it"
        raise DataError(
            f"{section}: {place(source)} is empty ({how}), expected at least one row; check the path and whether the "
            "day's data has arrived"
        )
    return rows


def opened(spark: SparkSession, source: Source, section: str) -> DataFrame:
    """As `read`, without looking whether there is a row: only the schema is read, of JSON all rows.

    Raises: as `read`, except for a source without rows.
    """
    rows = _load(spark, source, section)
    if source.where is None:
        return rows
    return rows.where(expressions.column(rows, source.where, "condition", f"{section}.where", place(source)))


def whole_row(rows: DataFrame) -> Column:
    """All raw columns as one struct; rejected_events keeps it as JSON."""
    return F.struct("*")


def malformed(rows: DataFrame) -> Column:
    """Has the row another number of values than its file's header? Which value is which is then not known."""
    return F.col(CORRUPT).isNotNull() if CORRUPT in rows.columns else F.lit(False)


def num_malformed(rows: DataFrame) -> int:
    """How many rows are so. Reads them all, where the format has such rows."""
    if CORRUPT not in rows.columns:
        return 0
    first = F.count(F.col(quoted(rows.columns[0])))  # Spark refuses to read CORRUPT alone
    return int(rows.agg(F.count_if(malformed(rows)), first).collect()[0][0])


def place(source: Source) -> str:
    """Where the source lies, for messages."""
    return source.table or ", ".join(source.paths)


def fingerprint(spark: SparkSession, source: Source, section: str) -> str:
    """Identifies the source's present content without reading it: path, size and time of each file, or the table's
    version. A source without files (a JDBC table) gets the time of now, so it is always read again.

    Raises: ConfigError for a missing path or table.
    """
    try:
        if source.format == "table":
            return _table_version(spark, str(source.table))
        if source.format == "delta":
            return " ".join(_delta_version(DeltaTable.forPath(spark, p)) for p in resolved(spark, source))
    except AnalysisException as error:
        raise _unreadable(source, section, error) from error
    listed = [list_files(spark, path) for path in resolved(spark, source)]
    for path, files in zip(source.paths, listed, strict=True):
        if not files:
            raise ConfigError(_missing(path, section))
    return " ".join(sorted(file.state for files in listed for file in files))


def first_file(spark: SparkSession, source: Source, section: str) -> tuple[str, ...]:
    """The first file of a source.

    Raises: ConfigError if there is none.
    """
    listed = sorted(file.path for path in resolved(spark, source) for file in list_files(spark, path))
    if not listed:
        raise ConfigError(_missing(place(source), section))
    return (listed[0],)


def about_rows(spark: SparkSession, source: Source, section: str) -> int | None:
    """About how many rows the source has, `where` left aside, without reading them: from the files' footers, or from
    their sizes and the length of the first lines. None for a table, of which only reading would tell.

    Raises: as `read`.
    """
    if source.format in ("parquet", "delta"):
        return _load(spark, source, section).count()
    if source.format == "table":
        return None
    files = [file for path in resolved(spark, source) for file in list_files(spark, path)]
    lines = spark.read.text([literal(spark, path) for path in first_file(spark, source, section)]).limit(1000)
    length = lines.agg(F.avg(F.length("value"))).collect()[0][0] or 1.0
    size = sum(int(file.state.rsplit(":", 2)[1]) * (PACKED if file.path.endswith(".gz") else 1) for file in files)
    return round(size / (length + 1))


def _load(spark: SparkSession, source: Source, section: str) -> DataFrame:
    packed = [path for path in source.paths if path.lower().endswith(ARCHIVES)]
    if packed:
        raise ConfigError(f"{section}.paths: {packed[0]} is an archive, which is not read; unpack it, or use gzip")
    try:
        if source.format == "table":
            return spark.table(str(source.table))
        paths = resolved(spark, source)
        if source.format != "delta":
            _require_all_read(spark, source, section, paths)
        rows = _rows(spark, source, section, paths)
        if source.format == "json":
            json_values.require_one_value(spark, paths, source.options, section)
    except FAILURES as error:
        raise _unreadable(source, section, error) from error
    if source.format == "json":
        _require_json(source, section, rows)
    if source.format == "csv":
        _require_text(source, section, rows)
    return rows


def _rows(spark: SparkSession, source: Source, section: str, paths: Sequence[str]) -> DataFrame:
    where: Any = paths[0] if len(paths) == 1 else list(paths)  # delta takes one path only
    options = {**(CSV if source.format == "csv" else {}), "columnNameOfCorruptRecord": CORRUPT, **source.options}
    if source.format == "csv" and section == ITEMS:
        options.setdefault("multiLine", "true")
    reader = spark.read.format(source.format).options(**options)
    rows = reader.load(where)
    if source.format == "csv":  # again, with the text of each row whose number of values is another
        rows = reader.schema(T.StructType([*rows.schema.fields, T.StructField(CORRUPT, T.StringType())])).load(where)
    return rows


def _require_all_read(spark: SparkSession, source: Source, section: str, paths: Sequence[str]) -> None:
    """Raises ConfigError if Spark would read only some of the files that lie below a path."""
    for path in paths:
        lost = left_out(source, list_files(spark, path))
        if lost:
            more = f" and {len(lost) - 1} more files" if len(lost) > 1 else ""
            raise ConfigError(
                f"{section}.paths: {lost[0]}{more} would not be read: Spark reads either the files of a folder or "
                "those in its folders key=value; name the folders that hold files, or set "
                '`options: {recursiveFileLookup: "true"}`'
            )


def _require_json(source: Source, section: str, rows: DataFrame) -> None:
    """Raises DataError where no line is an object, and where a file that is read as a whole is broken."""
    if CORRUPT not in rows.columns:
        return
    if json_values.is_whole(source.options):
        raise DataError(
            f"{section}: a file of {place(source)} is not one list of JSON objects, or is cut off, and none of its "
            "rows can be read; deliver it again, or take it out of `paths`"
        )
    if rows.columns == [CORRUPT]:
        hint = 'a file that is one list of objects needs `options: {multiLine: "true"}`'
        raise DataError(f"{section}: {place(source)} has no row of JSON with one object a line; {hint}")


def _require_text(source: Source, section: str, rows: DataFrame) -> None:
    """Raises DataError if the first line cannot be the names of columns, or there is none."""
    names = "".join(rows.columns)
    if rows.columns == [CORRUPT]:
        raise DataError(f"{section}: {place(source)} is empty (no line in it), expected at least one row")
    if "\x00" in names or ("\ufffd" in names and re.search(r"[\x01-\x1f]", names)):
        raise DataError(
            f"{section}: {place(source)} is not text in UTF-8; check `format`, give a gzip file a name that ends in "
            ".gz, and another encoding as `options: {encoding: ...}`"
        )


def _table_version(spark: SparkSession, name: str) -> str:
    try:
        return _delta_version(DeltaTable.forName(spark, name))
    except AnalysisException:  # a table of another format, or a view
        rows = spark.table(name)
        files = [file.state for uri in rows.inputFiles() for file in list_files(spark, uri)]
        return " ".join((*sorted(files), _plan(rows), *_deltas(rows))) if files else f"{name}:{time.time_ns()}"


def _deltas(rows: DataFrame) -> list[str]:
    """The versions of the Delta tables under a view: a row may be deleted there without a change of its file."""
    leaves = rows._jdf.queryExecution().analyzed().collectLeaves()
    relations = [leaf.relation() for n in range(leaves.size()) if (leaf := leaves.apply(n)).nodeName() == RELATION]
    paths = {one.location().path().toString() for one in relations if ".delta." in one.getClass().getName()}
    return [f"{path}@{_delta_version(DeltaTable.forPath(rows.sparkSession, path))}" for path in sorted(paths)]


def _plan(rows: DataFrame) -> str:
    """Hash of what a view does to its files, without the numbers that Spark gives to columns."""
    text = rows._jdf.queryExecution().analyzed().toString()
    return hashlib.sha256(re.sub(r"#\d+L?", "", text).encode()).hexdigest()[:16]


def _delta_version(table: DeltaTable) -> str:
    return f"{table.detail().select('id').first()[0]}@{table.history(1).select('version').first()[0]}"


def _missing(path: str, section: str) -> str:
    if hidden(_name(path)):
        return f"{section}.paths: Spark does not read {path}, since its name begins with _ or .; rename it"
    return (
        f"{section}.paths: {path} does not exist or holds no file (working directory {os.getcwd()}); "
        f"fix it in the YAML file or give --set {section}.paths=[...]"
    )


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _unreadable(source: Source, section: str, error: PySparkException | Py4JJavaError) -> RecsparkError:
    """What went wrong while opening a source, as one line; the full message is chained as its cause."""
    known = _of_condition(source, section, error) if isinstance(error, PySparkException) else None
    if known is not None:
        return known
    differing = differing_file(str(error))
    if differing is not None:
        return DataError(f"{section}: {differing}")
    found = f"{section}: {place(source)} cannot be read as {source.format} ({first_line(error)})"
    return DataError(f"{found}; check `format` and `options`")


def _of_condition(source: Source, section: str, error: PySparkException) -> RecsparkError | None:
    """Of the conditions that Spark has a name for."""
    condition, parameters = error.getCondition() or "", error.getMessageParameters() or {}
    if "PATH_NOT_FOUND" in condition or "MISSING_TABLE" in condition or "PATH_DOES_NOT_EXIST" in condition:
        return ConfigError(_missing(place(source), section))
    if "TABLE_OR_VIEW_NOT_FOUND" in condition:
        return ConfigError(f"{section}.table: {source.table} does not exist; expected catalog.schema.name of a table")
    if "UNABLE_TO_INFER_SCHEMA" in condition:
        unread = [_missing(path, section) for path in source.paths if hidden(_name(path))]
        no_file = f"{section}: {place(source)} holds no {source.format} file; check the path and `format`"
        return DataError(unread[0] if unread else no_file)
    what = None
    if "COLUMN_ALREADY_EXISTS" in condition:
        name = parameters.get("columnName", "?").strip("`")
        what = f"has two columns named {name} (capital letters do not count); rename one of them"
    if "PARQUET_TYPE_ILLEGAL" in condition:
        kind = parameters.get("parquetType", "?")
        what = f"has a column of type {kind}, which Spark does not read; write it as another type: times in "
        what += "microseconds (pandas: coerce_timestamps='us')"
    return DataError(f"{section}: {place(source)} {what}") if what else None
