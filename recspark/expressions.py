"""The SQL expressions of the configuration as typed Spark columns, and each mistake in them as one line."""

import difflib
import re
from collections.abc import Sequence
from typing import Literal

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark.columns import quoted
from recspark.errors import ConfigError, RecsparkError, SchemaError

FAILURES = (PySparkException, Py4JJavaError)  # the latter when a task cannot open a file

Kind = Literal["id", "text", "texts", "media", "time", "number", "condition"]

CORRUPT = "_corrupt_record"  # Spark's name for the text of a row that is not as the others
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.DecimalType)
NUMBERS = (*INTEGERS, T.FloatType, T.DoubleType)
STRINGS = (T.StringType, T.VarcharType, T.CharType)
PLAIN = (*STRINGS, *NUMBERS, T.BooleanType, T.DateType, T.TimestampType, T.NullType)
# The types that an expression may have -> the type it is cast to. Strings are allowed where they may hold a time or a
# number: one that holds none makes a bad row, not a bad column.
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
    "media": "the path or URI of a file, or its content as binary",
    "time": "a timestamp, a date or a string of one; for unix time timestamp_seconds(x) or timestamp_millis(x)",
    "number": "a number or a string of one, such as CAST(x AS DOUBLE)",
    "condition": "a condition, such as x > 0",
}


def column(rows: DataFrame, sql: str, kind: Kind, key: str, where: str) -> Column:
    """The SQL expression over `rows`, cast to the type of its kind; a value that cannot be cast is null. Media given as
    binary becomes a data URI with the content (RFC 2397).

    `key` is the expression's dotted key and `where` the place of the rows, for messages.

    Raises: ConfigError if it does not parse, SchemaError for an unknown column or a wrong type.
    """
    allowed, target = KINDS[kind]
    sql = named(rows, sql)
    if WORD.fullmatch(sql.strip()) and sql.strip().lower() not in ("null", *(name.lower() for name in rows.columns)):
        raise _unknown(rows, sql.strip(), key, where)  # else Spark reads a missing column `user` as its function user()
    try:
        found = rows.select(F.expr(sql)).schema[0].dataType
    except (AnalysisException, ParseException) as error:
        raise _explain(rows, sql, key, where, error) from None
    element = found.elementType if kind == "texts" and isinstance(found, T.ArrayType) else None
    if not isinstance(found if element is None else element, allowed):
        raise SchemaError(f"{key}: `{sql}` is of type {found.simpleString()} in {where}; expected {EXPECTED[kind]}")
    if kind == "media" and isinstance(found, T.BinaryType):
        return F.concat(F.lit("data:;base64,"), F.base64(F.expr(sql)))
    if kind == "id":
        return _id(F.expr(sql), found)
    value = (F.array(F.expr(sql)) if kind == "texts" and element is None else F.expr(sql)).cast(target)
    if kind == "time":  # Spark reads "20713" as a year, which Python cannot represent
        return F.when(F.year(value).between(1, 9999), value)
    return value


def named(rows: DataFrame, sql: str) -> str:
    """The SQL of an expression: the name of a column is that column, whatever letters it has."""
    name = sql.strip()
    is_plain = WORD.fullmatch(name) is not None  # as Spark would read it anyway
    return quoted(name) if name in rows.columns and not is_plain else sql


def _id(value: Column, found: T.DataType) -> Column:
    """An id as text, without blanks around it; a decimal without a fraction is a whole number (17850.00 is 17850)."""
    text = F.trim(value.cast("string"))
    return F.regexp_replace(text, r"[.]0+$", "") if isinstance(found, T.DecimalType) else text


def text_map(values: Sequence[tuple[str, Column]]) -> Column:
    """map<string,string> of the named values; a null one has no entry."""
    if not values:
        return F.expr("CAST(map() AS map<string,string>)")
    full = F.create_map(*(part for name, value in values for part in (F.lit(name), value)))
    return F.map_filter(full, lambda _, value: value.isNotNull())


def _explain(rows: DataFrame, sql: str, key: str, where: str, error: PySparkException) -> RecsparkError:
    if isinstance(error, ParseException):
        return ConfigError(f"{key}: `{sql}` is not Spark SQL ({first_line(error)}); fix the expression")
    if (error.getCondition() or "").startswith("UNRESOLVED_COLUMN"):
        return _unknown(rows, (error.getMessageParameters() or {}).get("objectName", "?").strip("`"), key, where)
    return ConfigError(f"{key}: `{sql}` cannot be evaluated ({first_line(error)}); fix the expression")


def _unknown(rows: DataFrame, name: str, key: str, where: str) -> SchemaError:
    columns = {column.lower(): column for column in rows.columns}
    near = [columns[lower] for lower in difflib.get_close_matches(name.lower(), columns, n=2)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    there = ", ".join(column for column in rows.columns if column != CORRUPT)
    return SchemaError(f"{key}: column {name} is not in {where}; {hint}it has {there}")


def first_line(error: PySparkException | Py4JJavaError) -> str:
    """The first line of Spark's message, at most 200 characters of it."""
    text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:200]
