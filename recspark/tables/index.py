"""item_index, user_index, scenario_index: a dense number for every id; append-only, no number is ever reused."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.errors import DataError
from recspark.warehouse.store import Store, Table

ITEM_INDEX = Table(
    noun="item_index",
    ddl=f"{c.ITEM_ID} string, {c.ITEM_IDX} int",
    key=(c.ITEM_ID,),
    row="An item and its dense number, which never changes.",
)
USER_INDEX = Table(
    noun="user_index",
    ddl=f"{c.USER_ID} string, {c.USER_IDX} int",
    key=(c.USER_ID,),
    row="A user and their dense number, which never changes.",
)
SCENARIO_INDEX = Table(
    noun="scenario_index",
    ddl=f"{c.SCENARIO} string, {c.SCENARIO_IDX} int",
    key=(c.SCENARIO,),
    row="A scenario and its dense number, which never changes.",
    comments={c.SCENARIO_IDX: "Number of the scenario, from 1. Example: 3"},
)

FIRST = {SCENARIO_INDEX.noun: 1}  # 0 is the group of small scenarios
ROWS_A_TASK = 1_000_000
MAX_INT = 2**31 - 1
ROW_IN_PARTITION = (1 << 33) - 1  # the low bits of monotonically_increasing_id


@contextmanager
def extension(table: Table, existing: DataFrame | None, ids: DataFrame) -> Iterator[tuple[DataFrame, int]]:
    """The rows to add to the index, numbered from its next free number in the order of their ids, and their count.

    `ids` has the id column, duplicates allowed. Ids are sorted by range and numbered inside each range; a range starts
    where the one before it ends, so no task holds more than its share of the ids. The rows are valid inside the `with`
    only: what stays cached, Spark would use for an equal plan of a later night.

    Raises: DataError when the numbers no longer fit in int32.
    """
    id_name, idx_name = table.columns
    new = ids.select(F.col(id_name).cast("string")).where(F.col(id_name).isNotNull()).distinct()
    start = FIRST.get(table.noun, 0)
    if existing is not None:
        new = new.join(existing.select(id_name), on=id_name, how="left_anti")
    new = new.persist()
    count = new.count()
    if count and existing is not None:
        last = existing.agg(F.max(idx_name)).collect()[0][0]
        start = start if last is None else last + 1
    ranges = max(1, math.ceil(count / ROWS_A_TASK))
    ordered = new.repartitionByRange(ranges, id_name) if ranges > 1 else new.coalesce(1)
    numbered = ordered.sortWithinPartitions(id_name).select(id_name, F.monotonically_increasing_id().alias("n"))
    if ranges > 1:  # so that the sizes and the numbers come from the same ranges
        numbered = numbered.persist()
    try:
        if start + count - 1 > MAX_INT:
            raise DataError(
                f"{table.noun}: {start + count} ids do not fit in int32, which has {MAX_INT + 1}; start a new warehouse"
            )
        shift = _shift(numbered, start) if ranges > 1 else F.lit(start)
        row = F.col("n").bitwiseAND(F.lit(ROW_IN_PARTITION))
        yield numbered.select(id_name, (shift + row).cast("int").alias(idx_name)), count
    finally:
        numbered.unpersist()
        new.unpersist()


def refresh(store: Store, table: Table, ids: DataFrame) -> int:
    """Append the ids that are not in the stored index yet, and return how many. Without any, nothing is committed."""
    existing = store.read(table) if store.exists(table) else None
    if existing is not None:
        require_unique(table, existing, store.name(table.noun))
    with extension(table, existing, ids) as (rows, count):
        if count or existing is None:
            store.append(table, rows)
    return count


def numbering(store: Store, *tables: Table) -> str:
    """A name of the numbers that ids have, in these indices or in all three.

    It stays when new ids are added, and changes when an id that had a number has another one or none, as after a table
    was made again. What holds numbers is named by it, to be made again too.

    Raises: DataError for an index in which an id or a number stands twice.
    """
    return "-".join(_numbering(store, table) for table in tables or (ITEM_INDEX, USER_INDEX, SCENARIO_INDEX))


def replace_ids(store: Store, table: Table, ids: DataFrame) -> int:
    """Put other ids in the place of some, whose numbers stay and are never used again; returns how many.

    `ids`: the id column, and `new`. What is named by the numbers stays as it is: nobody else has another number.
    """
    name, id_name = numbering(store, table), table.columns[0]
    count = store.erase(table, ids, {id_name: "new"})
    if count:
        _numbering(store, table, name)
    return count


def _numbering(store: Store, table: Table, kept: str | None = None) -> str:
    """Of one index. It is read only if it has changed since the last look, which a small file remembers. `kept`: the
    name that stays although ids have changed."""
    file, token = f"{store.warehouse}/_state/{table.noun}.numbers.json", store.token(table)
    known = json.loads(model_folder.read_file(file) or "{}")
    if known.get("token") == token:
        return str(known["name"])
    rows = store.read(table)
    require_unique(table, rows, store.name(table.noun))
    hashed = F.xxhash64(*table.columns).cast("decimal(38,0)")
    was_there = F.col(table.columns[1]) < known.get("next", 0)
    found = rows.agg(F.sum(F.when(was_there, hashed)), F.sum(hashed), F.max(table.columns[1])).collect()[0]
    before, now, last = found[0], found[1], found[2]
    same = known["name"] if known and str(before) == known["hash"] else kept
    name = same or hashlib.sha256(str(now).encode()).hexdigest()[:8]
    model_folder.write_file(
        file, json.dumps({"token": token, "name": name, "hash": str(now), "next": 0 if last is None else last + 1})
    )
    return str(name)


def require_unique(table: Table, rows: DataFrame, place: str) -> None:
    """Every id and every number of an index stands there once: models are arrays by these numbers.

    Raises: DataError if two runs have numbered the same ids, for example on a storage that let both write.
    """
    id_name, idx_name = table.columns
    counts = rows.agg(F.count("*"), F.count_distinct(id_name), F.count_distinct(idx_name)).collect()[0]
    if len(set(counts)) > 1:
        raise DataError(
            f"{place}: found {counts[0]} rows with {counts[1]} ids and {counts[2]} numbers, expected the same of each; "
            "go back to a version before it was doubled: RESTORE TABLE ... TO VERSION AS OF ..., then run with --force"
        )


def _shift(numbered: DataFrame, start: int) -> Column:
    """Where each range's numbers start; one small row a range comes to the driver."""
    part = F.shiftright("n", 33)
    sizes = numbered.groupBy(part.alias("part")).count().orderBy("part").collect()
    shifts, total = {}, start
    for part_id, size in sizes:
        shifts[part_id] = total
        total += size
    return F.create_map(*(F.lit(x).cast("bigint") for pair in shifts.items() for x in pair))[part.cast("bigint")]
