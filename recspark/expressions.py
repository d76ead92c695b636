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

CORRUPT = "_malformed_row"  # the text of a row that is not as the others; Spark's own name may be a column's
UNDECODED = "\ufffd"  # stands where the bytes of a text were not UTF-8
# Blanks of any script, control characters, and the marks without width that files begin with.
BLANKS = "".join(map(chr, (*range(33), *range(127, 161), 0x1680, *range(0x2000, 0x200C), 0x2028, 0x2029, 0x202F)))
BLANKS += "\u205f\u2060\u3000\ufeff"
WITH_DATE = r"^\s*[+-]?\d{4}"  # Spark reads 10:00 as that hour of the present day
PROGRAM_NUMBER = r"[0-9.][dDfF]\s*$|0[xX]"  # Java reads 5d, 5f and 0x1p3 as numbers
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.DecimalType)
NUMBERS = (*INTEGERS, T.FloatType, T.DoubleType)
STRINGS = (T.StringType, T.VarcharType, T.CharType)
TIMES = (T.TimestampType, T.TimestampNTZType)
PLAIN = (*STRINGS, *NUMBERS, T.BooleanType, T.DateType, T.TimestampType, T.NullType)
# The types that an expression may have -> the type it is cast to. Strings are allowed where they may hold a time or a
# number: one that holds none makes a bad row, not a bad column.
KINDS: dict[Kind, tuple[tuple[type, ...], str]] = {
    "id": ((*STRINGS, *INTEGERS), "string"),
    "text": (PLAIN, "string"),
    "texts": (PLAIN, "array<string>"),  # one value is an array of one
    "media": ((*PLAIN, T.BinaryType), "string"),
    "time": ((*TIMES, T.DateType, *STRINGS), "timestamp"),
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
    if kind == "time":
        text = F.when(F.expr(sql).rlike(WITH_DATE), F.expr(sql))
        value = (text if isinstance(found, STRINGS) else _tried(F.expr(sql), found)).cast(target)
        return F.when(F.year(value).between(1, 9999), value)  # Spark reads "20713" as a year, Python has no such
    if kind == "number" and isinstance(found, STRINGS):
        return F.when(~F.expr(sql).rlike(PROGRAM_NUMBER), F.expr(sql)).cast(target)
    if kind in ("text", "media") and isinstance(found, STRINGS):
        return F.make_valid_utf8(F.expr(sql))
    return (F.array(F.expr(sql)) if kind == "texts" and element is None else F.expr(sql)).cast(target)


def unparsable(rows: DataFrame, sql: str, typed: Column) -> Column:
    """Has the expression a value, not blank, of which `column` made null? Also if it cannot be evaluated at all, as
    timestamp_seconds of 10^18."""
    value = F.expr(named(rows, sql))
    found = rows.select(value).schema[0].dataType
    if isinstance(found, STRINGS):
        return (F.trim(value, F.lit(BLANKS)) != "") & typed.isNull()
    if not isinstance(found, TIMES):
        return value.isNotNull() & typed.isNull()
    failed = _tried(F.coalesce(value, F.lit(0).cast("timestamp").cast(found)), found).isNull()
    return failed | (_tried(value, found).isNotNull() & typed.isNull())


def _tried(value: Column, found: T.DataType) -> Column:
    """The value, null where its computation fails: for that `try_add` is the way in SQL."""
    return F.try_add(value, F.expr("INTERVAL 0 SECOND")) if isinstance(found, TIMES) else value


def named(rows: DataFrame, sql: str) -> str:
    """The SQL of an expression: the name of a column is that column, whatever letters it has."""
    name = sql.strip()
    is_plain = WORD.fullmatch(name) is not None  # as Spark would read it anyway
    return quoted(name) if name in rows.columns and not is_plain else sql


def _id(value: Column, found: T.DataType) -> Column:
    """An id as text, without blanks around it; a decimal without a fraction is a whole number (17850.00 is 17850). What
    is not UTF-8 is UNDECODED: two ids may then look alike, so `is_decoded` is false."""
    text = F.trim(F.make_valid_utf8(value.cast("string")), F.lit(BLANKS))
    return F.regexp_replace(text, r"[.]0+$", "") if isinstance(found, T.DecimalType) else text


def is_decoded(value: Column) -> Column:
    """Were all bytes of the id UTF-8?"""
    return ~value.contains(UNDECODED)


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
