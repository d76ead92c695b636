"""user_features, item_features: what the sources say of a user and an item, from the time when it is known on; and the
folders that recspark/given_features.py opens.

At a date the row with the largest known_from before it counts; one without known_from counts until the first that has
one. Folders hold 64-bit hashes of texts, not the texts.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.sources import Feature
from recspark.given_features import IDS_A_SHARD, ITEMS, MOST_TEXTS, SIDES, USERS, Names, Values, finish, save_shard
from recspark.histories import ranges
from recspark.warehouse.store import Table

VALUES_DDL = f"{c.KNOWN_FROM} timestamp, {c.NUMBERS} map<string,double>, {c.CATEGORIES} map<string,array<string>>"
USER_FEATURES = Table(
    noun="user_features",
    ddl=f"{c.USER_ID} string, {VALUES_DDL}",
    key=(c.USER_ID, c.KNOWN_FROM),
    row="What source.users.features says of a user from a time on. A user without a row has no feature.",
)
ITEM_FEATURES = Table(
    noun="item_features",
    ddl=f"{c.ITEM_ID} string, {VALUES_DDL}",
    key=(c.ITEM_ID, c.KNOWN_FROM),
    row="What source.items.features says of an item from a time on. An item without a row has no feature.",
)
TABLES = {USERS: USER_FEATURES, ITEMS: ITEM_FEATURES}

ROWS, ROW = "_rows", "_row"  # raw rows of an id and time, and the one that counts
# columns of `of_ids`: the side, the id's number, the day since when the id is known, known_from of the id's next row
SIDE, IDX, FIRST, UNTIL = "side", "idx", "first", "until"
SHARD, DAY = "shard", "day"  # DAY: place in the list of dates


class Content(NamedTuple):
    """What identifies a date's folder: the number of its ids, and the sum of their rows' hashes."""

    num_ids: int
    hash: str


class Statistic(NamedTuple):
    """Of one feature tonight: ids with a value, values, and about how many different ones."""

    ids: int
    values: int
    distinct: int


def names_of(features: Mapping[str, Feature]) -> Names:
    """The features in the order of their columns: by name, so that the order in the YAML does not matter."""
    of_kind = {
        kind: tuple(sorted(name for name, one in features.items() if one.kind == kind))
        for kind in ("number", "category", "categories")
    }
    return Names(of_kind["number"], of_kind["category"], of_kind["categories"])


# -- from rows of the source to the tables ----------------------------------------------------------------------------


def one_a_time(parsed: DataFrame, id_name: str) -> DataFrame:
    """One row for each id and time of the rows of sources.given_features.parse, with the number of raw rows (ROWS): of
    several the one with the largest values, so that their order does not matter. Rows without an id become one."""
    row = F.struct(c.NUMBERS, c.CATEGORIES)
    chosen = parsed.groupBy(id_name, c.KNOWN_FROM).agg(F.max(row).alias(ROW), F.count("*").alias(ROWS))
    return chosen.select(id_name, c.KNOWN_FROM, f"{ROW}.{c.NUMBERS}", f"{ROW}.{c.CATEGORIES}", ROWS)


def is_cut(place: int) -> Column:
    """Has the feature at this place of `categories` more than MOST_TEXTS values?"""
    return F.size(F.col(c.CATEGORIES)[place]) > MOST_TEXTS


def build(chosen: DataFrame, names: Names, table: Table) -> DataFrame:
    """Rows of the table from those of `one_a_time`; a missing value has no entry."""
    texts = F.transform(c.CATEGORIES, lambda values: F.slice(values, 1, MOST_TEXTS))
    numbers, categories = _by_name(names.numbers, F.col(c.NUMBERS)), _by_name(names.texts, texts)
    named = chosen.where(F.col(table.key[0]).isNotNull()).withColumns({c.NUMBERS: numbers, c.CATEGORIES: categories})
    return named.select(table.columns)


def _by_name(names: Sequence[str], values: Column) -> Column:
    keys = F.array(*map(F.lit, names)).cast("array<string>")
    return F.map_filter(F.map_from_arrays(keys, values), lambda _, value: value.isNotNull())


# -- from the tables to what counts at a date -------------------------------------------------------------------------


def of_ids(ids: DataFrame, features: DataFrame, names: Names, side: str, with_times: bool) -> DataFrame:
    """(SIDE, IDX, FIRST, known_from, UNTIL, numbers array<float>, categories array<array<bigint>>): for each id a row
    for each of its rows in the table; one with null `numbers` if it has none.

    `ids`: (id, IDX, FIRST), unique. `with_times`: false if no row has a known_from.
    """
    id_name = TABLES[side].key[0]
    nan = F.lit(float("nan")).cast("float")
    none = F.array().cast("array<string>")
    numbers = [F.coalesce(F.col(c.NUMBERS)[name].cast("float"), nan) for name in names.numbers]
    texts = [F.transform(F.coalesce(F.col(c.CATEGORIES)[name], none), _hash) for name in names.texts]
    later = Window.partitionBy(id_name).orderBy(F.asc_nulls_first(c.KNOWN_FROM))
    until = F.lead(c.KNOWN_FROM).over(later) if with_times else F.lit(None).cast("timestamp")
    found = features.select(
        id_name,
        c.KNOWN_FROM,
        until.alias(UNTIL),
        F.array(*numbers).cast("array<float>").alias(c.NUMBERS),
        F.array(*texts).cast("array<array<bigint>>").alias(c.CATEGORIES),
    )
    joined = ids.join(found, on=id_name, how="left")  # an id is one row on the left
    return joined.select(F.lit(side).alias(SIDE), IDX, FIRST, c.KNOWN_FROM, UNTIL, c.NUMBERS, c.CATEGORIES)


def _hash(text: Column) -> Column:
    return F.xxhash64(text)


def counts_at(day: date, tonight: date) -> Column:
    """Is the row of `of_ids` the one that counts for its id at a day? Tonight also of ids without an event."""
    at = F.lit(day).cast("timestamp")
    known = F.col(c.KNOWN_FROM).isNull() | (F.col(c.KNOWN_FROM) < at)
    newest = F.col(UNTIL).isNull() | (F.col(UNTIL) >= at)
    there = F.lit(True) if day == tonight else F.coalesce(F.col(FIRST) < F.lit(day), F.lit(False))
    return F.col(c.NUMBERS).isNotNull() & known & newest & there


def contents(rows: DataFrame, days: Sequence[date], tonight: date) -> tuple[list[Content], dict[str, int]]:
    """Of each day the content of its folder, in one pass over the rows of `of_ids`; and the number of ids of each side.

    A value that became known at or after a day, and an id that did, are not in its content.
    """
    sizes = F.transform(c.CATEGORIES, F.size)  # since [[x], []] and [[], [x]] have one hash
    row = F.xxhash64(SIDE, IDX, c.NUMBERS, c.CATEGORIES, sizes).cast("decimal(38,0)")
    last = F.col(UNTIL).isNull()  # one row an id is so
    found = rows.agg(
        *(F.count_if((F.col(SIDE) == side) & last).alias(side) for side in SIDES),
        *(F.count_if(counts_at(day, tonight)).alias(f"count_{n}") for n, day in enumerate(days)),
        *(F.sum(F.when(counts_at(day, tonight), row)).alias(f"hash_{n}") for n, day in enumerate(days)),
    ).collect()[0]
    of_days = [Content(int(found[f"count_{n}"]), str(found[f"hash_{n}"])) for n in range(len(days))]
    return of_days, {side: int(found[side]) for side in SIDES}


def statistics(rows: DataFrame, tonight: date, names: Mapping[str, Names]) -> dict[tuple[str, str], Statistic]:
    """(side, feature) -> its values tonight."""
    number = F.transform(c.NUMBERS, lambda x: F.when(F.isnan(x), F.array()).otherwise(F.array(F.xxhash64(x))))
    every = F.concat(number.cast("array<array<bigint>>"), F.col(c.CATEGORIES))
    features = rows.where(counts_at(tonight, tonight)).select(SIDE, F.posexplode(every).alias("feature", "values"))
    values = features.select(SIDE, "feature", F.posexplode("values").alias("place", "value"))
    distinct = F.approx_count_distinct("value", 0.02)
    counted = values.groupBy(SIDE, "feature").agg(F.count_if(F.col("place") == 0), F.count("*"), distinct).collect()
    found = {(side, feature): Statistic(*rest) for side, feature, *rest in counted}
    return {
        (side, name): found.get((side, n), Statistic(0, 0, 0))
        for side in SIDES
        for n, name in enumerate((*names[side].numbers, *names[side].texts))
    }


# -- the writer of folders (read by recspark/given_features.py) -------------------------------------------------------


def write(rows: DataFrame, targets: Mapping[date, str], tonight: date, names: Mapping[str, Names]) -> None:
    """Write the folder of each date from the rows of `of_ids`. A task holds at most IDS_A_SHARD ids of one date."""
    days = list(targets)
    places = F.filter(F.array(*(F.when(counts_at(day, tonight), F.lit(n)) for n, day in enumerate(days))), F.isnotnull)
    shard = F.expr(f"{IDX} div {IDS_A_SHARD}").cast("int").alias(SHARD)
    of_days = rows.select(F.explode(places).alias(DAY), SIDE, shard, IDX, c.NUMBERS, c.CATEGORIES)
    save = _writer([targets[day] for day in days])
    ddl = f"{DAY} int, {SIDE} string, {SHARD} int"
    written = of_days.groupBy(DAY, SIDE, SHARD).applyInArrow(save, ddl).collect()  # one row a shard
    for n, day in enumerate(days):
        shards = {side: [row[SHARD] for row in written if (row[DAY], row[SIDE]) == (n, side)] for side in SIDES}
        finish(targets[day], names, shards)


def _writer(targets: Sequence[str]) -> Callable[[pa.Table], pa.Table]:
    """A function that writes the rows of one shard and returns which it was."""

    def save(rows: pa.Table) -> pa.Table:
        batch = rows.combine_chunks().to_batches()[0]
        day, side, shard = (batch.column(name)[0].as_py() for name in (DAY, SIDE, SHARD))
        save_shard(targets[day], side, shard, batch.column(IDX).to_numpy(), values_of(batch))
        return pa.table({DAY: pa.array([day], pa.int32()), SIDE: [side], SHARD: pa.array([shard], pa.int32())})

    return save


def values_of(batch: pa.RecordBatch) -> Values:
    """The lists of `numbers` and `categories` as flat arrays."""
    num_rows = batch.num_rows
    numbers = batch.column(c.NUMBERS).flatten().to_numpy(zero_copy_only=False)
    lists = batch.column(c.CATEGORIES).flatten()
    sizes = np.diff(lists.offsets.to_numpy()).astype(np.int64)
    starts = (np.cumsum(sizes) - sizes).reshape(num_rows, -1)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    offsets, values = [], []
    for start, size in zip(starts.T, sizes.reshape(num_rows, -1).T, strict=True):
        offsets.append(np.concatenate(([0], np.cumsum(size))))
        values.append(flat[np.repeat(start, size) + ranges(size)].astype(np.int64))
    return Values(numbers.reshape(num_rows, -1).astype(np.float32), tuple(offsets), tuple(values))
