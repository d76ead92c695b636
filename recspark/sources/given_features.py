"""source.users and source.items: the features in their rows, each with the time from which it is known."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.config.sources import ItemSource, UserSource
from recspark.given_features import ITEMS, MOST_TEXTS, SIDES, USERS
from recspark.sources import catalogue, raw, users
from recspark.sources.events import MAX_VALUE
from recspark.tables.given_features import names_of

SECTIONS = {USERS: users.SECTION, ITEMS: catalogue.SECTION}
IDS = {USERS: c.USER_ID, ITEMS: c.ITEM_ID}
FLOATS = (T.FloatType, T.DoubleType, T.DecimalType)
NO_NUMBER = r"^[+-]?(NaN|Infinity)$"  # of a double as text


def sources_of(config: Config) -> dict[str, ItemSource | UserSource]:
    """Side -> its source, of the sides that have features."""
    found: dict[str, ItemSource | UserSource | None] = {USERS: config.source.users, ITEMS: config.source.items}
    return {side: source for side in SIDES if (source := found[side]) is not None and source.features}


def parse(rows: DataFrame, source: ItemSource | UserSource, side: str) -> DataFrame:
    """One row a raw row: the id, known_from (null: always), `numbers` array<double> and `categories`
    array<array<string>> in the order of `names_of`; null: missing.

    The id is null where the row cannot be used: without an id, with a reserved one or one that is not UTF-8, with
    another number of values than the header, or with a time that cannot be read. NaN, infinite numbers and those
    beyond 1e30 are missing. Texts are trimmed, each counts once; of a list MOST_TEXTS + 1 are kept, so that a longer
    one can be told.

    Raises: SchemaError and ConfigError for wrong expressions.
    """
    section, where, name = SECTIONS[side], raw.place(source), IDS[side]

    def typed(sql: str, kind: expressions.Kind, key: str) -> Column:
        return expressions.column(rows, sql, kind, f"{section}.{key}", where)

    id_ = typed(getattr(source, name), "id", name)
    usable = ~raw.malformed(rows) & (id_ != "") & (id_ != c.DEFAULT_USER) & expressions.is_decoded(id_)
    time = F.lit(None).cast("timestamp")
    if source.event_time is not None:
        time = typed(source.event_time, "time", c.EVENT_TIME)
        usable &= ~F.coalesce(expressions.unparsable(rows, source.event_time, time), F.lit(False))
    names = names_of(source.features)
    numbers = [_number(typed(source.features[n].sql, "number", f"features.{n}.sql")) for n in names.numbers]
    texts = []
    for n in names.texts:
        sql, kind = source.features[n].sql, "texts" if n in names.lists else "text"
        value = typed(sql, "texts" if n in names.lists else "text", f"features.{n}.sql")
        texts.append(_texts(value if kind == "texts" else F.array(value), _is_float(rows, sql)))
    return rows.select(
        F.when(usable, id_).alias(name),
        time.alias(c.KNOWN_FROM),
        F.array(*numbers).cast("array<double>").alias(c.NUMBERS),
        F.array(*texts).cast("array<array<string>>").alias(c.CATEGORIES),
    )


def _number(value: Column) -> Column:
    return F.when(F.abs(value) <= MAX_VALUE, value + F.lit(0.0))  # -0.0 becomes 0.0; NaN is above all numbers


def _texts(values: Column, is_float: bool) -> Column:
    """The values as they are kept, null if there is none. A whole number is the same text in a column of doubles."""

    def clean(value: Column) -> Column:
        text = F.trim(F.make_valid_utf8(value), F.lit(expressions.BLANKS))
        return F.when(~text.rlike(NO_NUMBER), F.regexp_replace(text, r"[.]0+$", "")) if is_float else text

    kept = F.filter(F.transform(values, clean), lambda text: text != "")
    return F.when(F.size(kept) > 0, F.slice(F.array_distinct(kept), 1, MOST_TEXTS + 1))


def _is_float(rows: DataFrame, sql: str) -> bool:
    """Are the values of an expression, or of its arrays, numbers with decimals?"""
    found = rows.select(F.expr(expressions.named(rows, sql))).schema[0].dataType
    return isinstance(found.elementType if isinstance(found, T.ArrayType) else found, FLOATS)
