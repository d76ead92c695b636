"""Users' histories as Spark frames: one row a user, what they did before a date as arrays in order of time.

Here: the contract of these frames (HISTORIES), how they are read from `interactions`, which users get a list in which
scenario, and the writer of history shards. recspark/histories.py has the same events without Spark: flat arrays with
offsets, from Arrow and from shards.

The arrays of a row belong together: position i of each is event i. The size of a row is set by its user's own history,
up to MOST_EVENTS and the distinct items before them. Events are gathered once a night, in `all_histories`; the history
of an earlier date is the beginning of each array. Busy users, with more than MOST_EVENTS, have a row for each date.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import date
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config, Scenarios
from recspark.histories import EVENT_FIELDS, USERS_A_SHARD, finish, save_shard
from recspark.tables import index
from recspark.tables.interactions import KEY, Weights, event_weight
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store, Table
from recspark.windows import as_of_day

log = logging.getLogger(__name__)

SCENARIOS = "scenarios"
GIVEN_SCENARIO, GIVEN_ITEM = "given_scenario", "given_item_idx"
DEFAULT_USER_IDX = -1  # `__default__`, who has no history
MICROS_A_DAY = 86_400e6
MOST_EVENTS = 20_000  # of a user: more is a robot or a shared account, and ten million would not fit in a row

HISTORIES = Table(  # never stored: the columns of the frames here
    noun="histories",
    ddl=f"{c.USER_IDX} int, {SCENARIOS} array<string>, {c.ITEM_IDX} array<int>, {c.SCENARIO_IDX} array<int>, "
    f"time array<double>, {c.WEIGHT} array<float>, {c.VALUE} array<float>, price array<float>",
    key=(c.USER_IDX,),
)


class Group(NamedTuple):
    """A scenario with an event before a date. `number`: its own; `scenario_idx`: the same, or 0 with few users."""

    scenario: str
    number: int
    scenario_idx: int
    num_users: int


# -- from the stored tables -------------------------------------------------------------------------------------------


def groups_of(store: Store, config: Config, as_ofs: Sequence[date]) -> dict[date, list[Group]]:
    """For each date the scenarios with an event before it, by name."""
    events = store.events(INTERACTIONS, None, max(as_ofs))
    return scenario_groups(events, store.read(index.SCENARIO_INDEX), config.scenarios.min_users, as_ofs)


def groups_in(bundle: str) -> list[Group]:
    """The groups of one date, from the manifest of its retriever bundle."""
    return [Group(*group) for group in model_folder.read_manifest(bundle)["scenario_groups"]]


def known_items(store: Store, as_of: date) -> DataFrame:
    """(item_id, item_idx, content_hash) of the items first seen before the date."""
    known = store.read(ITEMS).where(F.col(c.FIRST_SEEN) < F.lit(as_of)).select(c.ITEM_ID, c.CONTENT_HASH)
    # item_id is the key of both
    return known.join(store.read(index.ITEM_INDEX), on=c.ITEM_ID, how="inner")


def busy_users(store: Store, run_date: date) -> list[str]:
    """The users with more than MOST_EVENTS events before a date, sorted. The driver holds at most a MOST_EVENTS-th of
    the number of events."""
    users = store.events(INTERACTIONS, None, run_date).groupBy(c.USER_ID).count()
    busy = sorted(row[0] for row in users.where(F.col("count") > MOST_EVENTS).select(c.USER_ID).collect())
    if busy:
        log.info("%d users with more than %d events: of each the newest count", len(busy), MOST_EVENTS)
    return busy


def read_all(
    store: Store, config: Config, run_date: date, busy: Sequence[str] = (), dates: Sequence[date] = ()
) -> DataFrame:
    """`all_histories` of the events before run_date; `as_of` takes those of any of `dates` from it, and without `busy`
    users those of any date up to run_date."""
    return all_histories(
        store.events(INTERACTIONS, None, run_date),
        store.read(index.USER_INDEX),
        known_items(store, run_date).select(c.ITEM_ID, c.ITEM_IDX),
        store.read(index.SCENARIO_INDEX),
        event_weights=config.interactions.event_weights,
        busy=busy,
        dates=dates,
    )


def read(store: Store, config: Config, day: date, groups: Sequence[Group]) -> DataFrame:
    """HISTORIES of every user with an event before the date; `groups`: those of the date."""
    return as_of(read_all(store, config, day, busy_users(store, day), [day]), day, groups, config.scenarios)


# -- from events to histories -----------------------------------------------------------------------------------------


def scenario_groups(
    events: DataFrame, scenario_index: DataFrame, min_users: int, dates: Sequence[date]
) -> dict[date, list[Group]]:
    """For each date the scenarios with an event before it, by name. One pass over the events for all dates; a row a
    scenario comes to the driver."""
    first = events.groupBy(c.SCENARIO, c.USER_ID).agg(F.min(c.EVENT_DATE).alias("first"))
    counts = [F.count_if(F.col("first") < F.lit(day)).alias(f"users_{n}") for n, day in enumerate(dates)]
    # scenario is the index's key, so the join keeps one row a scenario
    found = first.groupBy(c.SCENARIO).agg(*counts).join(scenario_index, on=c.SCENARIO, how="inner")
    rows = found.orderBy(c.SCENARIO).collect()
    return {
        day: [
            Group(row[c.SCENARIO], row[c.SCENARIO_IDX], row[c.SCENARIO_IDX] if users >= min_users else 0, users)
            for row in rows
            if (users := row[f"users_{n}"])
        ]
        for n, day in enumerate(dates)
    }


def all_histories(
    events: DataFrame,
    user_index: DataFrame,
    item_index: DataFrame,
    scenario_index: DataFrame,
    *,
    event_weights: Weights,
    busy: Sequence[str] = (),
    dates: Sequence[date] = (),
) -> DataFrame:
    """All events of each user: (user_idx, as_of, EVENT_FIELDS), where scenario_idx is each scenario's own number, and
    as_of is null: the row is for any date. `busy` users have a row for each of `dates`, of `newest_events`.

    Events are in order of time, then item, event and raw scenario.
    """
    events = events.withColumn(c.AS_OF, F.lit(None).cast("date"))
    if busy:
        is_busy = F.col(c.USER_ID).isin(list(busy))
        of_busy = [newest_events(events.where(is_busy), day) for day in dates]
        events = reduce(DataFrame.unionByName, of_busy, events.where(~is_busy))
    # the indices are unique by their id, so each join keeps one row an event
    rows = (
        events.join(user_index, on=c.USER_ID, how="inner")
        .join(item_index, on=c.ITEM_ID, how="inner")
        .join(F.broadcast(scenario_index), on=c.SCENARIO, how="inner")
    )
    event = F.struct(
        (F.unix_micros(c.EVENT_TIME) / F.lit(MICROS_A_DAY)).alias("time"),
        c.ITEM_IDX,
        c.EVENT,
        c.SCENARIO,
        c.SCENARIO_IDX,
        event_weight(rows, event_weights).cast("float").alias(c.WEIGHT),
        _number(F.col(c.VALUE)).alias(c.VALUE),
        _number(F.col(c.CONTEXT)["price"]).alias("price"),
    )
    users = rows.groupBy(c.USER_IDX, c.AS_OF).agg(F.sort_array(F.collect_list(event)).alias("events"))
    return users.select(c.USER_IDX, c.AS_OF, *(F.col(f"events.{name}").alias(name) for name in EVENT_FIELDS))


def newest_events(events: DataFrame, day: date) -> DataFrame:
    """Of each user the newest MOST_EVENTS before a day and, of the older ones, the first of each kind with each item in
    each scenario: what they have seen, and where, stays whole. `as_of` of the rows is the day."""
    before = events.where(F.col(c.EVENT_DATE) < F.lit(day)).withColumn(c.AS_OF, F.lit(day))
    newest = Window.partitionBy(c.USER_ID).orderBy(F.desc(c.EVENT_TIME), c.ITEM_ID, c.EVENT, c.SCENARIO)
    first = Window.partitionBy(c.USER_ID, c.SCENARIO, c.ITEM_ID, c.EVENT).orderBy(c.EVENT_TIME)
    parts = [(newest, MOST_EVENTS), (first, 1)]
    kept = [before.withColumn("place", F.row_number().over(w)).where(F.col("place") <= n) for w, n in parts]
    # an event in both parts is the same row twice
    return reduce(DataFrame.unionByName, kept).dropDuplicates(list(KEY)).select(before.columns)


def as_of(histories: DataFrame, day: date, groups: Sequence[Group], rules: Scenarios) -> DataFrame:
    """HISTORIES of the users with an event before `day`, from `all_histories` of that or a later date; without a
    shuffle. `groups`: the scenarios of `day`, see `scenario_groups`.

    `scenarios`, sorted, are those in which the user gets a list: the ones with an event of the user (`users: own`), and
    every scenario whose rule is `users: all`.
    """
    known = F.size(F.filter("time", lambda time: time < F.lit(float(as_of_day(day))))).alias("known")
    of_day = F.col(c.AS_OF).isNull() | (F.col(c.AS_OF) == F.lit(day))
    begun = histories.where(of_day).select(c.USER_IDX, *EVENT_FIELDS, known).where("known > 0")
    fields = {name: F.slice(name, F.lit(1), F.col("known")) for name in EVENT_FIELDS}
    names = [""] * (1 + max((group.number for group in groups), default=0))
    for group in groups:
        names[group.number] = group.scenario
    name_of = F.array(*map(F.lit, names))
    active = F.transform(F.array_distinct(fields[c.SCENARIO_IDX]), lambda number: F.get(name_of, number))
    small = [group.number for group in groups if group.scenario_idx != group.number]
    if small:
        fields[c.SCENARIO_IDX] = F.transform(
            fields[c.SCENARIO_IDX], lambda number: F.when(number.isin(small), 0).otherwise(number)
        )
    eligible = _eligible(active, [group.scenario for group in groups], rules).alias(SCENARIOS)
    return _select(begun.select(c.USER_IDX, eligible, *(field.alias(name) for name, field in fields.items())))


# -- users of given tables, and the default user ----------------------------------------------------------------------


def with_given(histories: DataFrame, given: DataFrame) -> DataFrame:
    """Add the users of a given table (user_idx, scenario) to those scenarios; users without events get empty arrays."""
    wanted = given.groupBy(c.USER_IDX).agg(F.collect_set(c.SCENARIO).alias("given"))
    # one row a user on both sides
    joined = histories.join(wanted, on=c.USER_IDX, how="full")
    both = F.sort_array(F.array_union(_or_empty(SCENARIOS, "string"), _or_empty("given", "string")))
    return _select(joined.withColumn(SCENARIOS, both))


def only_given(histories: DataFrame, given: DataFrame) -> DataFrame:
    """Only the users of `given` (user_idx, scenario, item_idx; distinct), in the scenarios of their rows there, with or
    without events; the rows themselves become two more arrays, GIVEN_SCENARIO and GIVEN_ITEM, one position a row."""
    row = F.struct(c.SCENARIO, c.ITEM_IDX)
    wanted = given.groupBy(c.USER_IDX).agg(F.sort_array(F.collect_list(row)).alias("rows"))
    # one row a user on both sides
    joined = wanted.join(histories, on=c.USER_IDX, how="left")
    named = joined.withColumn(SCENARIOS, F.array_distinct(f"rows.{c.SCENARIO}"))
    pairs = (F.col(f"rows.{c.SCENARIO}").alias(GIVEN_SCENARIO), F.col(f"rows.{c.ITEM_IDX}").alias(GIVEN_ITEM))
    return _select(named, *pairs)


def with_default_user(histories: DataFrame, scenarios: list[str]) -> DataFrame:
    """Add `__default__`, who has no event and gets a list in every scenario."""
    spark = histories.sparkSession
    row = spark.createDataFrame([(DEFAULT_USER_IDX, sorted(scenarios))], f"{c.USER_IDX} int, {SCENARIOS} array<string>")
    empty = [F.lit(None).alias(name) for name in EVENT_FIELDS]
    return histories.unionByName(_select(row.select(c.USER_IDX, SCENARIOS, *empty)))


def _eligible(active: Column, names: Sequence[str], rules: Scenarios) -> Column:
    """The scenarios in which a user gets a list, sorted. `active`: those with an event of the user."""
    everyone = [name for name in names if rules.rule(name).users == "all"]
    return F.sort_array(F.array_union(active, F.array(*map(F.lit, everyone)))) if everyone else F.sort_array(active)


def _number(value: Column) -> Column:
    return F.coalesce(value.cast("float"), F.lit(float("nan")).cast("float"))


def _or_empty(name: str, element: str) -> Column:
    return F.coalesce(F.col(name), F.expr(f"CAST(array() AS array<{element}>)"))


def _select(rows: DataFrame, *more: Column) -> DataFrame:
    """The columns of HISTORIES, then `more`; a null array becomes an empty one."""
    filled = [
        _or_empty(field.name, field.dataType.elementType.simpleString()).cast(field.dataType).alias(field.name)
        for field in HISTORIES.schema
        if isinstance(field.dataType, T.ArrayType)
    ]
    return rows.select(F.col(c.USER_IDX).cast("int").alias(c.USER_IDX), *filled, *more)


# -- the writer of shards (read by recspark/histories.py) -------------------------------------------------------------

SHARD = "shard"
LISTS = (c.ITEM_IDX, c.SCENARIO_IDX, "time", c.WEIGHT)


def shards_folder(store: Store, bundle: str) -> str:
    """The folder of a date's shards, with the name of the date's retriever bundle: both are made of the same events."""
    return f"{store.models('histories')}/{bundle.rsplit('/', 1)[-1]}"


def ensure_shards(store: Store, config: Config, day: date, bundle: str) -> str:
    """Write the shards of a date if the retriever stage has not; returns their folder."""
    target = shards_folder(store, bundle)
    if not model_folder.exists(target):
        write_shards(read(store, config, day, groups_in(bundle)), target)
    return target


def write_shards(histories: DataFrame, target: str) -> None:
    """Write the positive events of HISTORIES rows as shards. A task holds the events of at most USERS_A_SHARD users."""
    rows = histories.where(F.col(c.USER_IDX) >= 0).select(
        F.expr(f"{c.USER_IDX} div {USERS_A_SHARD}").cast("int").alias(SHARD), c.USER_IDX, *LISTS
    )
    written = rows.groupBy(SHARD).applyInArrow(_writer(target), f"{SHARD} int").collect()  # one row a shard
    finish(target, [row[0] for row in written], {})


def _writer(target: str) -> Callable[[pa.Table], pa.Table]:
    """A function that writes the rows of one shard and returns the shard's number."""

    def save(rows: pa.Table) -> pa.Table:
        batch = rows.combine_chunks().to_batches()[0]
        shard = int(batch.column(SHARD)[0].as_py())
        lists = batch.column(c.ITEM_IDX)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        item, scenario, time, weight = (batch.column(name).flatten().to_numpy() for name in LISTS)
        positive = weight > 0
        ends = np.concatenate(([0], np.cumsum(positive)))[offsets - offsets[0]]
        users = batch.column(c.USER_IDX).to_numpy()
        save_shard(target, shard, users, ends, item[positive], scenario[positive], time[positive])
        return pa.table({SHARD: pa.array([shard], pa.int32())})

    return save
