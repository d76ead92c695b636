"""Raw rows of a configured source: where they lie, Spark SQL over their columns, and each mistake as one line."""

import difflib
import os
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark.config import Source
from recspark.errors import ConfigError, DataError, RecsparkError, SchemaError

FAILURES = (PySparkException, Py4JJavaError)  # a task that fails to open a file comes as the latter

Kind = Literal["id", "text", "texts", "media", "time", "number", "condition"]

WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.DecimalType)
NUMBERS = (*INTEGERS, T.FloatType, T.DoubleType)
STRINGS = (T.StringType, T.VarcharType, T.CharType)
PLAIN = (*STRINGS, *NUMBERS, T.BooleanType, T.DateType, T.TimestampType, T.NullType)
# What an expression may yield -> what it becomes. A string that is no time or number is a bad row, not a bad column.
KINDS: dict[Kind, tuple[tuple[type, ...], str]] = {
    "id": ((*STRINGS, *INTEGERS), "string"),
    "text": (PLAIN, "string"),
    "texts": (PLAIN, "array<string>"),  # one value is an array of one
    "media": ((*PLAIN, T.BinaryType), "string"),
    "time": ((T.TimestampType, T.TimestampNTZType, T.DateType, *STRINGS), "timestamp"),
    "number": ((*STRINGS, *NUMBERS, T.NullType), "double"),
    "condition": ((T.BooleanType,), "boolean"),
}
EXPECTED: dict[Kind, str] = {
    "id": "a string or a whole number, such as CAST(x AS BIGINT) for ids that were read as 17850.0",
    "text": "one plain value, such as concat_ws(' ', x, y)",
    "texts": "a plain value or an array of them, such as split(x, ',')",
    "media": "where a file lies (a path or an URI), or its content as binary",
    "time": "a timestamp, a date or a string of one; for unix time timestamp_seconds(x) or timestamp_millis(x)",
    "number": "a number or a string of one, such as CAST(x AS DOUBLE)",
    "condition": "a condition, such as x > 0",
}


def read(spark: SparkSession, source: Source, section: str) -> DataFrame:
    """All raw rows that match `where`; `section` is the dotted key, for messages (source.interactions).

    Raises ConfigError for a missing path or table and for SQL that does not parse, SchemaError for an unknown column,
    DataError when nothing is there or it is not of the configured format.
    """
    rows = _load(spark, source, section)
    if source.where is not None:
        rows = rows.where(column(rows, source.where, "condition", f"{section}.where", place(source)))
    try:
        empty = rows.isEmpty()
    except FAILURES as error:
        raise _unreadable(source, section, error) from error
    if empty:
        how = f"no row matches `{source.where}`" if source.where else "no row in it"
        raise DataError(f"{section}: {place(source)} is empty ({how}); check the path and the day's delivery")
    return rows


def column(rows: DataFrame, sql: str, kind: Kind, key: str, where: str) -> Column:
    """The SQL expression over raw rows, cast to what its kind becomes; a value that cannot be cast is null. Content of
    media becomes an URI that holds it (RFC 2397).

    `key` is the expression's dotted key and `where` the source's place. Raises ConfigError (does not parse),
    SchemaError (unknown column, wrong type).
    """
    allowed, target = KINDS[kind]
    if WORD.fullmatch(sql.strip()) and sql.strip().lower() not in ("null", *(name.lower() for name in rows.columns)):
        raise _unknown(rows, sql.strip(), key, where)  # or Spark would take a missing column `user` for its user()
    try:
        found = rows.select(F.expr(sql)).schema[0].dataType
    except (AnalysisException, ParseException) as error:
        raise _explain(rows, sql, key, where, error) from None
    many = kind == "texts" and isinstance(found, T.ArrayType)
    if not isinstance(found.elementType if many else found, allowed):
        raise SchemaError(f"{key}: `{sql}` is of type {found.simpleString()} in {where}; expected {EXPECTED[kind]}")
    if kind == "media" and isinstance(found, T.BinaryType):
        return F.concat(F.lit("data:;base64,"), F.base64(F.expr(sql)))
    value = (F.array(F.expr(sql)) if kind == "texts" and not many else F.expr(sql)).cast(target)
    if kind == "time":  # Spark reads "20713" as a year, which neither Python nor a warehouse could show
        return F.when(F.year(value).between(1, 9999), value)
    return value


def text_map(values: Sequence[tuple[str, Column]]) -> Column:
    """map<string,string> of the named values; a null one has no entry."""
    if not values:
        return F.expr("CAST(map() AS map<string,string>)")
    full = F.create_map(*(part for name, value in values for part in (F.lit(name), value)))
    return F.map_filter(full, lambda _, value: value.isNotNull())


def whole_row(rows: DataFrame) -> Column:
    """All raw columns as one struct; `to_json` of it is what rejected_events keeps."""
    return F.struct("*")


def place(source: Source) -> str:
    """Where the source lies, for messages."""
    return source.table or ", ".join(source.paths)


def fingerprint(spark: SparkSession, source: Source, section: str) -> str:
    """Names the source's present content without reading it: path, size and time of each file, or the table's version.

    Something without files (a JDBC table) is named by the clock, so it is always read again.
    Raises ConfigError for a missing path or table.
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


def _load(spark: SparkSession, source: Source, section: str) -> DataFrame:
    try:
        if source.format == "table":
            return spark.table(str(source.table))
        return spark.read.format(source.format).options(**source.options).load(_paths(spark, source))
    except FAILURES as error:
        raise _unreadable(source, section, error) from error


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
    path = context._jvm.org.apache.hadoop.fs.Path(pattern)
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
        return " ".join(sorted(files)) if files else f"{name}:{time.time_ns()}"


def _delta_version(table: DeltaTable) -> str:
    return f"{table.detail().select('id').first()[0]}@{table.history(1).select('version').first()[0]}"


def _missing(path: str, section: str) -> str:
    return (
        f"{section}.paths: {path} does not exist (working directory {os.getcwd()}); "
        f"mend it in the conf or give --set {section}.paths=[...]"
    )


def _unreadable(source: Source, section: str, error: PySparkException | Py4JJavaError) -> RecsparkError:
    """What went wrong while opening a source; the full message follows as the cause."""
    condition = (error.getCondition() if isinstance(error, PySparkException) else None) or ""
    if "PATH_NOT_FOUND" in condition or "MISSING_TABLE" in condition or "PATH_DOES_NOT_EXIST" in condition:
        return ConfigError(_missing(place(source), section))
    if "TABLE_OR_VIEW_NOT_FOUND" in condition:
        return ConfigError(f"{section}.table: {source.table} does not exist; expected catalog.schema.table")
    if "UNABLE_TO_INFER_SCHEMA" in condition:
        return DataError(f"{section}: {place(source)} holds no {source.format} file; check the path and the delivery")
    found = f"{section}: {place(source)} cannot be read as {source.format} ({first_line(error)})"
    return DataError(f"{found}; check `format` and `options`")


def _explain(rows: DataFrame, sql: str, key: str, where: str, error: PySparkException) -> RecsparkError:
    if isinstance(error, ParseException):
        return ConfigError(f"{key}: `{sql}` is not Spark SQL ({first_line(error)}); mend the expression")
    if (error.getCondition() or "").startswith("UNRESOLVED_COLUMN"):
        return _unknown(rows, (error.getMessageParameters() or {}).get("objectName", "?").strip("`"), key, where)
    return ConfigError(f"{key}: `{sql}` cannot be evaluated ({first_line(error)}); mend the expression")


def _unknown(rows: DataFrame, name: str, key: str, where: str) -> SchemaError:
    columns = {column.lower(): column for column in rows.columns}
    near = [columns[lower] for lower in difflib.get_close_matches(name.lower(), columns, n=2)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return SchemaError(f"{key}: column {name} is not in {where}; {hint}it has {', '.join(rows.columns)}")


def first_line(error: PySparkException | Py4JJavaError) -> str:
    """What Spark said, in at most 200 characters."""
    text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:200]
