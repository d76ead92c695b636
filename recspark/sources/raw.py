"""Reading the raw rows of a configured source, a fingerprint of them, and each mistake as one line."""

import hashlib
import os
import re
import time
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

ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".xlsx", ".xls")
# Quotes are doubled inside quotes, as spreadsheets write them; each file's header is compared with the first one's; all
# columns are parsed, since else a row of another width is not noticed.
CSV = {"escape": '"', "enforceSchema": "false", "columnNameOfCorruptRecord": CORRUPT, "columnPruning": "false"}
ITEMS = "source.items"  # its texts may hold line breaks; files that are read so cannot be split, which events must be
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
            return " ".join(_delta_version(DeltaTable.forPath(spark, p)) for p in _resolved(spark, source))
    except AnalysisException as error:
        raise _unreadable(source, section, error) from error
    listed = [_list(spark, path) for path in _resolved(spark, source)]
    for path, files in zip(source.paths, listed, strict=True):
        if not files:
            raise ConfigError(_missing(path, section))
    return " ".join(sorted(file for files in listed for file in files))


def first_file(spark: SparkSession, source: Source, section: str) -> tuple[str, ...]:
    """The first file of a source.

    Raises: ConfigError if there is none.
    """
    listed = sorted(file for path in _resolved(spark, source) for file in _list(spark, path))
    if not listed:
        raise ConfigError(_missing(place(source), section))
    return (listed[0].rsplit(":", 2)[0],)


def about_rows(spark: SparkSession, source: Source, section: str) -> int | None:
    """About how many rows the source has, `where` left aside, without reading them: from the files' footers, or from
    their sizes and the length of the first lines. None for a table, of which only reading would tell.

    Raises: as `read`.
    """
    if source.format in ("parquet", "delta"):
        return _load(spark, source, section).count()
    if source.format == "table":
        return None
    files = [file.rsplit(":", 2) for path in _resolved(spark, source) for file in _list(spark, path)]
    lines = spark.read.text(list(first_file(spark, source, section))).limit(1000)
    length = lines.agg(F.avg(F.length("value"))).collect()[0][0] or 1.0
    size = sum(int(size) * (PACKED if path.endswith(".gz") else 1) for path, size, _ in files)
    return round(size / (length + 1))


def _load(spark: SparkSession, source: Source, section: str) -> DataFrame:
    packed = [path for path in source.paths if path.lower().endswith(ARCHIVES)]
    if packed:
        raise ConfigError(f"{section}.paths: {packed[0]} is an archive, which is not read; unpack it, or use gzip")
    try:
        if source.format == "table":
            return spark.table(str(source.table))
        options = {**(CSV if source.format == "csv" else {}), **source.options}
        if source.format == "csv" and section == ITEMS:
            options.setdefault("multiLine", "true")
        reader = spark.read.format(source.format).options(**options)
        rows = reader.load(_paths(spark, source))
        if source.format == "csv":  # again, with the text of each row whose number of values is another
            schema = T.StructType([*rows.schema.fields, T.StructField(CORRUPT, T.StringType())])
            rows = reader.schema(schema).load(_paths(spark, source))
    except FAILURES as error:
        raise _unreadable(source, section, error) from error
    if rows.columns == [CORRUPT]:
        hint = 'a file that is one list of objects needs `options: {multiLine: "true"}`'
        raise DataError(f"{section}: {place(source)} has no row of JSON with one object a line; {hint}")
    return rows


def _paths(spark: SparkSession, source: Source) -> Any:
    paths = _resolved(spark, source)
    return paths[0] if len(paths) == 1 else paths  # delta takes one path only


def _resolved(spark: SparkSession, source: Source) -> list[str]:
    """Relative local paths start at the working directory of this process, which may not be the JVM's."""
    local = str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS")).startswith("file:")
    return [os.path.abspath(p) if local and ":" not in p.split("/")[0] else p for p in source.paths]


def _list(spark: SparkSession, pattern: str) -> list[str]:
    """`path:size:mtime` of every file below a path or glob, through Hadoop, so any URL that Spark can read."""
    context = spark.sparkContext
    jvm = context._jvm
    assert jvm is not None  # None only before the context has started
    path = jvm.org.apache.hadoop.fs.Path(pattern)
    system = path.getFileSystem(context._jsc.hadoopConfiguration())
    found = []
    for root in system.globStatus(path) or ():
        files = system.listFiles(root.getPath(), True)
        while files.hasNext():
            file = files.next()
            if not file.getPath().getName().startswith(("_", ".")):  # Spark does not read those either
                found.append(f"{file.getPath()}:{file.getLen()}:{file.getModificationTime()}")
    return found


def _table_version(spark: SparkSession, name: str) -> str:
    try:
        return _delta_version(DeltaTable.forName(spark, name))
    except AnalysisException:  # a table of another format, or a view
        files = [status for uri in spark.table(name).inputFiles() for status in _list(spark, uri)]
        return " ".join((*sorted(files), _plan(spark, name))) if files else f"{name}:{time.time_ns()}"


def _plan(spark: SparkSession, name: str) -> str:
    """Hash of what a view does to its files, without the numbers that Spark gives to columns."""
    text = spark.table(name)._jdf.queryExecution().analyzed().toString()
    return hashlib.sha256(re.sub(r"#\d+L?", "", text).encode()).hexdigest()[:16]


def _delta_version(table: DeltaTable) -> str:
    return f"{table.detail().select('id').first()[0]}@{table.history(1).select('version').first()[0]}"


def _missing(path: str, section: str) -> str:
    return (
        f"{section}.paths: {path} does not exist (working directory {os.getcwd()}); "
        f"fix it in the YAML file or give --set {section}.paths=[...]"
    )


def _unreadable(source: Source, section: str, error: PySparkException | Py4JJavaError) -> RecsparkError:
    """What went wrong while opening a source, as one line; the full message is chained as its cause."""
    condition = (error.getCondition() if isinstance(error, PySparkException) else None) or ""
    if "PATH_NOT_FOUND" in condition or "MISSING_TABLE" in condition or "PATH_DOES_NOT_EXIST" in condition:
        return ConfigError(_missing(place(source), section))
    if "TABLE_OR_VIEW_NOT_FOUND" in condition:
        return ConfigError(f"{section}.table: {source.table} does not exist; expected catalog.schema.name of a table")
    if "UNABLE_TO_INFER_SCHEMA" in condition:
        return DataError(f"{section}: {place(source)} holds no {source.format} file; check the path and `format`")
    differing = differing_file(str(error))
    if differing is not None:
        return DataError(f"{section}: {differing}")
    found = f"{section}: {place(source)} cannot be read as {source.format} ({first_line(error)})"
    return DataError(f"{found}; check `format` and `options`")
