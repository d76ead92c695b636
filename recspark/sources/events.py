"""source.interactions: raw rows typed and each given a state, and the good ones merged to one row a key."""

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.sources import InteractionSource
from recspark.sources import raw
from recspark.tables.interaction_days import Day
from recspark.tables.interactions import KEY
from recspark.warehouse.digests import row_hash, rows_hash

SECTION = "source.interactions"
IDS = (c.SCENARIO, c.USER_ID, c.ITEM_ID, c.EVENT)
SUMMED = ("quantity",)  # context that is summed when rows are merged
WHOLE_NUMBERS = 1e15  # doubles hold whole numbers exactly up to here

OK, LATER = "ok", "later"  # states of a raw row; any other state is the reason why it is rejected
STATE, WHOLE, BAD_TIME, BAD_VALUE, ROWS = "_state", "_whole", "_bad_time", "_bad_value", "_rows"
MALFORMED = "_malformed"
FIRST_DAY = date(1900, 1, 1)  # older ones stand for "no time": 0001-01-01 in .NET, 1753-01-01 in SQL Server
MAX_VALUE = 1e30  # labels are float32, which end at 3.4e38, also of a million rows that are summed
COPIES, DISTINCT = "_copies", "_distinct"  # the number of raw rows of a key, and of different ones


def parse(rows: DataFrame, source: InteractionSource, run_date: date, known_items: DataFrame | None) -> DataFrame:
    """One row a raw row: the typed columns, the context's values as an array, its hash, and its state."""
    typed = rows.select(*_typed(rows, source), row_hash(rows).alias(c.ROW_HASH), raw.whole_row(rows).alias(WHOLE))
    if known_items is None:
        unknown: Column = F.lit(False)
    else:  # item_id is unique there, so the join keeps one row a raw row
        typed = typed.join(known_items.select(c.ITEM_ID, F.lit(True).alias("_known")), on=c.ITEM_ID, how="left")
        unknown = F.col("_known").isNull()
    state = _state(run_date, unknown)
    kept = F.when(~state.isin(OK, LATER), F.to_json(WHOLE, {"ignoreNullFields": "false"}))
    return typed.select(*IDS, c.EVENT_TIME, c.VALUE, c.CONTEXT, c.ROW_HASH, state.alias(STATE), kept.alias(c.RAW))


def merge(parsed: DataFrame, names: tuple[str, ...]) -> DataFrame:
    """One row a key, with the number of its raw rows and of its different ones.

    Values are summed (null where all are), and context `quantity` where all are numbers; other context is that of the
    row with the largest value. Rows are summed in a fixed order, so that the sums are the same every night.
    """
    good = parsed.where(F.col(STATE) == OK).repartition(*KEY)  # both groupings below then need no shuffle
    differing = good.groupBy(*KEY, c.VALUE, c.CONTEXT, c.ROW_HASH).agg(F.count("*").alias(COPIES))
    row = F.struct(c.VALUE, c.CONTEXT, c.ROW_HASH)
    grouped = differing.groupBy(*KEY).agg(
        F.sort_array(F.collect_list(row)).alias(ROWS), F.sum(COPIES).alias(COPIES), F.count("*").alias(DISTINCT)
    )
    context = expressions.text_map([(name, _context(i, name)) for i, name in enumerate(names)])
    return grouped.select(
        *KEY,
        _total(F.transform(ROWS, lambda r: r[c.VALUE])).alias(c.VALUE),
        context.alias(c.CONTEXT),
        F.to_date(c.EVENT_TIME).alias(c.EVENT_DATE),
        COPIES,
        DISTINCT,
    )


def _typed(rows: DataFrame, source: InteractionSource) -> list[Column]:
    where = raw.place(source)

    def typed(name: str, kind: expressions.Kind) -> Column:
        return expressions.column(rows, getattr(source, name), kind, f"{SECTION}.{name}", where)

    def unparsable(name: str, kind: expressions.Kind) -> Column:
        return expressions.unparsable(rows, getattr(source, name), typed(name, kind))

    context = [
        expressions.column(rows, sql, "text", f"{SECTION}.{c.CONTEXT}.{name}", where)
        for name, sql in source.context.items()
    ]
    return [
        *(typed(name, "id").alias(name) for name in IDS),
        typed(c.EVENT_TIME, "time").alias(c.EVENT_TIME),
        unparsable(c.EVENT_TIME, "time").alias(BAD_TIME),
        typed(c.VALUE, "number").alias(c.VALUE),
        unparsable(c.VALUE, "number").alias(BAD_VALUE),
        F.array(*context).cast("array<string>").alias(c.CONTEXT),
        raw.malformed(rows).alias(MALFORMED),
    ]


def _state(run_date: date, unknown_item: Column) -> Column:
    """The state of a parsed row: the first rule that applies. Rows from run_date on are `later`, whatever else but that
    their number of values is not that of the others."""
    value = F.col(c.VALUE)
    state = F.when(F.col(MALFORMED), "malformed row").when(F.to_date(c.EVENT_TIME) >= F.lit(run_date), LATER)
    for name in (c.USER_ID, c.ITEM_ID, c.SCENARIO, c.EVENT):
        state = state.when(F.col(name).isNull() | (F.trim(name) == ""), f"null {name}")
    for name in IDS:
        state = state.when(~expressions.is_decoded(F.col(name)), f"unreadable {name}")
    for name, reserved in c.RESERVED.items():
        state = state.when(F.col(name) == reserved, f"reserved {name}")
    state = state.when(F.col(BAD_TIME), f"unparsable {c.EVENT_TIME}")
    state = state.when(F.col(c.EVENT_TIME).isNull(), f"null {c.EVENT_TIME}")
    state = state.when(F.to_date(c.EVENT_TIME) < F.lit(FIRST_DAY), f"{c.EVENT_TIME} before 1900")
    state = state.when(F.col(BAD_VALUE), f"unparsable {c.VALUE}")
    state = state.when(F.isnan(value) | (F.abs(value) == float("inf")), f"non-finite {c.VALUE}")
    state = state.when(F.abs(value) > MAX_VALUE, f"out of range {c.VALUE}")
    return state.when(unknown_item, "unknown item").otherwise(OK)


def _total(values: Column) -> Column:
    """The sum of an array of doubles in its order; null where all are null."""
    found = F.filter(values, lambda v: v.isNotNull())
    many = F.aggregate(found, F.lit(0.0), lambda total, v: total + v)
    # most keys have one row, and a lambda for each of them would cost seconds
    return F.when(F.size(values) == 1, values[0]).when(F.size(found) > 0, many)


def _context(position: int, name: str) -> Column:
    """One context value of a merged key, as text."""
    last = F.element_at(F.col(ROWS), -1)[c.CONTEXT][position]  # rows are sorted by value
    if name not in SUMMED:
        return last
    values = F.transform(ROWS, lambda r: r[c.CONTEXT][position].cast("double"))
    total = _total(values)
    whole = (total == F.floor(total)) & (F.abs(total) < WHOLE_NUMBERS)
    text = F.when(whole, total.cast("bigint").cast("string")).otherwise(total.cast("string"))
    return F.when((F.size(ROWS) == 1) | F.exists(values, lambda v: v.isNull()), last).otherwise(text)


@dataclass(frozen=True)
class Raw:
    """The days of a raw snapshot before run_date (accepted rows not counted yet), and the number of later rows."""

    days: dict[date | None, Day]
    later: int
    first_later: str | None


def raw_days(parsed: DataFrame) -> Raw:
    """The counts of each raw day, in one pass over parsed rows; a row a day and state comes to the driver."""
    hashed = F.sum(F.xxhash64(c.ROW_HASH, STATE).cast("decimal(38,0)")).alias("hash")
    by = parsed.groupBy(F.to_date(c.EVENT_TIME).alias("day"), STATE)
    found = by.agg(F.count("*").alias("n"), hashed, F.min(c.EVENT_TIME).cast("string").alias("first")).collect()
    later = [row for row in found if row[STATE] == LATER]
    states: dict[date | None, list[Row]] = {}
    for row in found:
        if row[STATE] != LATER:
            states.setdefault(row.day, []).append(row)
    days = {
        day: Day(
            raw=sum(row.n for row in rows),
            rejected={row[STATE]: row.n for row in sorted(rows, key=lambda row: row[STATE]) if row[STATE] != OK},
            raw_hash=str(sum(row.hash for row in rows)),
        )
        for day, rows in states.items()
    }
    return Raw(days, sum(row.n for row in later), min((row["first"] for row in later), default=None))


def merged_days(merged: DataFrame) -> dict[date | None, Day]:
    """The counts of each day among the rows of `merge`."""
    total = merged.groupBy(c.EVENT_DATE).agg(
        F.count("*").alias("n"),
        F.sum(COPIES).alias("copies"),
        F.sum(DISTINCT).alias("distinct"),
        rows_hash(merged.drop(COPIES, DISTINCT)).alias("hash"),
    )
    return {
        row[c.EVENT_DATE]: Day(
            accepted=row.n,
            merged=row.distinct - row.n,
            duplicates=row.copies - row.distinct,
            rows_hash=str(row.hash),
        )
        for row in total.collect()
    }
