"""What every user did before a date, one row a user, as arrays in time order: the input of all models.

The arrays of a row belong together: position i of each is event i. A row's size is set by the user's own history.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Scenarios
from recspark.tables.store import Table

SCENARIOS = "scenarios"
GIVEN_SCENARIO, GIVEN_ITEM = "given_scenario", "given_item_idx"
DEFAULT_USER_IDX = -1  # `__default__`, who has no history
MICROS_A_DAY = 86_400e6

# Not stored: a shape that the distributed modules share.
HISTORIES = Table(
    noun="histories",
    ddl=f"{c.USER_IDX} int, {SCENARIOS} array<string>, {c.ITEM_IDX} array<int>, {c.SCENARIO_IDX} array<int>, "
    f"time array<double>, {c.WEIGHT} array<float>, {c.VALUE} array<float>, price array<float>",
    key=(c.USER_IDX,),
)
EVENT_FIELDS = (c.ITEM_IDX, c.SCENARIO_IDX, "time", c.WEIGHT, c.VALUE, "price")


def event_weight(weights: dict[str, float]) -> Column:
    """The weight of a row's event: as configured, 1 where it is not named."""
    named = [F.when(F.col(c.EVENT) == name, F.lit(float(weight))) for name, weight in sorted(weights.items())]
    return F.coalesce(*named, F.lit(1.0)) if named else F.lit(1.0)


def scenario_groups(events: DataFrame, scenario_index: DataFrame, min_users: int) -> DataFrame:
    """(scenario, scenario_idx, num_users) of every scenario with an event: its own number, or 0 with few users."""
    users = events.groupBy(c.SCENARIO).agg(F.countDistinct(c.USER_ID).alias("num_users"))
    # scenario is the index's key, so the join keeps one row a scenario
    found = users.join(scenario_index, on=c.SCENARIO, how="inner")
    group = F.when(F.col("num_users") >= min_users, F.col(c.SCENARIO_IDX)).otherwise(0).cast("int")
    return found.select(c.SCENARIO, group.alias(c.SCENARIO_IDX), "num_users")


def build(
    events: DataFrame,
    user_index: DataFrame,
    item_index: DataFrame,
    groups: DataFrame,
    *,
    rules: Scenarios,
    event_weights: dict[str, float],
) -> DataFrame:
    """HISTORIES of all users with an event. `events`: interactions before the date; `groups`: see `scenario_groups`.

    `scenarios`, sorted, are those in which the user gets a list: with an event of theirs (`users: own`), and every
    scenario whose rule says `users: all`. Events are in order of time, then item, event and raw scenario.
    """
    # the indices and groups are unique by their id, so each join keeps one row an event
    rows = (
        events.join(user_index, on=c.USER_ID, how="inner")
        .join(item_index, on=c.ITEM_ID, how="inner")
        .join(F.broadcast(groups.select(c.SCENARIO, c.SCENARIO_IDX)), on=c.SCENARIO, how="inner")
    )
    event = F.struct(
        (F.unix_micros(c.EVENT_TIME) / F.lit(MICROS_A_DAY)).alias("time"),
        c.ITEM_IDX,
        c.EVENT,
        c.SCENARIO,
        c.SCENARIO_IDX,
        event_weight(event_weights).cast("float").alias(c.WEIGHT),
        _number(F.col(c.VALUE)).alias(c.VALUE),
        _number(F.col(c.CONTEXT)["price"]).alias("price"),
    )
    users = rows.groupBy(c.USER_IDX).agg(
        F.sort_array(F.collect_list(event)).alias("events"), F.collect_set(c.SCENARIO).alias("had")
    )
    fields = (F.col(f"events.{name}").alias(name) for name in EVENT_FIELDS)
    return _select(users.select(c.USER_IDX, _eligible(F.col("had"), groups, rules).alias(SCENARIOS), *fields))


def with_given(histories: DataFrame, given: DataFrame) -> DataFrame:
    """Add users of a given table (user_idx, scenario) to those scenarios' lists; their arrays may be empty."""
    wanted = given.groupBy(c.USER_IDX).agg(F.collect_set(c.SCENARIO).alias("given"))
    # one row a user on both sides
    joined = histories.join(wanted, on=c.USER_IDX, how="full")
    both = F.sort_array(F.array_union(_or_empty(SCENARIOS, "string"), _or_empty("given", "string")))
    return _select(joined.withColumn(SCENARIOS, both))


def only_given(histories: DataFrame, given: DataFrame) -> DataFrame:
    """The users of `given` (user_idx, scenario, item_idx; distinct), in the scenarios named there, whatever they did;
    and what is asked about, as two more arrays: GIVEN_SCENARIO and GIVEN_ITEM, position i of each is one row."""
    row = F.struct(c.SCENARIO, c.ITEM_IDX)
    wanted = given.groupBy(c.USER_IDX).agg(F.sort_array(F.collect_list(row)).alias("rows"))
    # one row a user on both sides
    joined = wanted.join(histories, on=c.USER_IDX, how="left")
    named = joined.withColumn(SCENARIOS, F.array_distinct(f"rows.{c.SCENARIO}"))
    asked = (F.col(f"rows.{c.SCENARIO}").alias(GIVEN_SCENARIO), F.col(f"rows.{c.ITEM_IDX}").alias(GIVEN_ITEM))
    return _select(named, *asked)


def with_default_user(histories: DataFrame, scenarios: list[str]) -> DataFrame:
    """Add `__default__`, who has no event and gets a list in every scenario."""
    spark = histories.sparkSession
    row = spark.createDataFrame([(DEFAULT_USER_IDX, sorted(scenarios))], f"{c.USER_IDX} int, {SCENARIOS} array<string>")
    empty = [F.lit(None).alias(name) for name in EVENT_FIELDS]
    return histories.unionByName(_select(row.select(c.USER_IDX, SCENARIOS, *empty)))


def _eligible(had: Column, groups: DataFrame, rules: Scenarios) -> Column:
    """The raw scenarios of a user's lists; one short row a scenario comes to the driver."""
    names = sorted(row[0] for row in groups.select(c.SCENARIO).collect())
    everyone = [name for name in names if rules.rule(name).users == "all"]
    return F.sort_array(F.array_union(had, F.array(*map(F.lit, everyone)))) if everyone else F.sort_array(had)


def _number(value: Column) -> Column:
    return F.coalesce(value.cast("float"), F.lit(float("nan")).cast("float"))


def _or_empty(name: str, element: str) -> Column:
    return F.coalesce(F.col(name), F.expr(f"CAST(array() AS array<{element}>)"))


def _select(rows: DataFrame, *more: Column) -> DataFrame:
    """The contract, and perhaps more; a null array is an empty one."""
    arrays = (f for f in HISTORIES.schema if f.name != c.USER_IDX)
    filled = [_or_empty(f.name, f.dataType.elementType.simpleString()).cast(f.dataType).alias(f.name) for f in arrays]
    return rows.select(F.col(c.USER_IDX).cast("int").alias(c.USER_IDX), *filled, *more)
