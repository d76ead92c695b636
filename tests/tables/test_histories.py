from datetime import date, datetime, timezone

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark.config.schema import ScenarioRule, Scenarios
from recspark.tables import histories

EVENTS = (
    "scenario string, user_id string, item_id string, event_time timestamp, event string, value double, "
    "context map<string,string>"
)
NOON = datetime(1970, 1, 3, 12, tzinfo=timezone.utc)  # day 2.5
DAY_1, DAY_2, DAY_3 = date(1970, 1, 2), date(1970, 1, 3), date(1970, 1, 4)  # midnight: what is before counts
MORNING = datetime(1970, 1, 2, 6, tzinfo=timezone.utc)  # day 1.25


@pytest.fixture(scope="module")
def tables(spark):
    rows = [
        ("de", "ann", "b", NOON, "purchase", 3.0, {"price": "1.5"}),
        ("de", "ann", "a", NOON, "purchase", None, {}),
        ("fr", "ann", "b", MORNING, "return", -3.0, {"price": "cheap"}),
        ("de", "bob", "a", NOON, "view", 1.0, None),
    ]
    events = spark.createDataFrame(rows, EVENTS)
    users = spark.createDataFrame([("ann", 7), ("bob", 3)], "user_id string, user_idx int")
    items = spark.createDataFrame([("a", 0), ("b", 1)], "item_id string, item_idx int")
    index = spark.createDataFrame([("de", 1), ("fr", 2)], "scenario string, scenario_idx int")
    return events.withColumn("event_date", F.to_date("event_time")), users, items, index


def groups_of(tables, *days: date) -> dict[date, list[histories.Group]]:
    events, _, _, index = tables
    return histories.scenario_groups(events, index, 2, days)


def built(tables, rules: Scenarios | None = None, day: date = DAY_3):
    whole = histories.all_histories(*tables, event_weights={"return": -1.0})
    return histories.as_of(whole, day, groups_of(tables, day)[day], rules or Scenarios())


def test_a_small_scenario_joins_group_0_and_an_empty_one_is_none(tables) -> None:
    """Before day 3 two users have been in de, one in fr; before day 2 there was ann's return in fr alone."""
    found = groups_of(tables, DAY_3, DAY_2, DAY_1)
    assert found == {DAY_3: [("de", 1, 1, 2), ("fr", 2, 0, 1)], DAY_2: [("fr", 2, 0, 1)], DAY_1: []}


def test_an_earlier_date_sees_what_had_happened_then(tables) -> None:
    """Before day 2 bob had no event, and ann none in de."""
    (ann,) = built(tables, day=DAY_2).collect()
    assert (ann.user_idx, ann.scenarios, ann.time, ann.scenario_idx) == (7, ["fr"], [1.25], [0])
    assert (ann.item_idx, ann.weight, ann.value) == ([1], [-1.0], [-3.0])


def test_an_event_at_midnight_is_of_the_day_that_begins(spark, tables) -> None:
    """bob views b when day 2 begins: as of day 2 he has no event, as of day 3 it is his first one."""
    events, *rest = tables
    midnight = datetime(1970, 1, 3, tzinfo=timezone.utc)
    more = spark.createDataFrame([("de", "bob", "b", midnight, "view", 1.0, None)], EVENTS)
    moved = (events.unionByName(more.withColumn("event_date", F.to_date("event_time"))), *rest)
    assert [row.user_idx for row in built(moved, day=DAY_2).collect()] == [7]
    assert built(moved, day=DAY_3).where("user_idx = 3").first().time == [2.0, 2.5]


def test_the_value_of_an_event_weighs_it(tables) -> None:
    """ann's purchase of a has no value, so no weight; that of b has the value 3, so the weight 3 - 2 = 1."""
    whole = histories.all_histories(*tables, event_weights={"purchase": "value - 2", "return": -1})
    assert {tuple(row.item_idx): tuple(row.weight) for row in whole.collect()} == {(1, 0, 1): (-1, 0, 1), (0,): (1,)}


@pytest.mark.parametrize("day", [DAY_3, DAY_2])
def test_what_came_later_changes_nothing(tables, day) -> None:
    """The beginning of all histories is the same as the histories of the earlier events alone."""
    events, users, items, index = tables
    rules = Scenarios(overrides={"fr": ScenarioRule(users="all")})
    alone = built((events.where(F.col("event_date") < F.lit(day)), users, items, index), rules, day)
    whole = built(tables, rules, day)
    assert whole.schema == alone.schema
    assert sorted(map(str, whole.collect())) == sorted(map(str, alone.collect())) != []


def test_arrays_in_order_of_time_then_item(tables) -> None:
    frame = built(tables)
    assert frame.schema.simpleString() == histories.HISTORIES.schema.simpleString()
    ann = frame.where("user_idx = 7").first()
    assert ann.time == [1.25, 2.5, 2.5] and ann.item_idx == [1, 0, 1] and ann.scenario_idx == [0, 1, 1]
    assert ann.weight == [-1.0, 1.0, 1.0]
    np.testing.assert_array_equal(ann.value, [-3.0, np.nan, 3.0])
    np.testing.assert_array_equal(ann.price, [np.nan, np.nan, 1.5])  # "cheap" is no number


def test_eligible_in_own_or_in_all(tables) -> None:
    own = {r.user_idx: r.scenarios for r in built(tables).collect()}
    assert own == {7: ["de", "fr"], 3: ["de"]}
    rules = Scenarios(overrides={"fr": ScenarioRule(users="all")})
    assert {r.user_idx: r.scenarios for r in built(tables, rules).collect()} == {7: ["de", "fr"], 3: ["de", "fr"]}


def test_given_and_default_users(spark, tables) -> None:
    given = spark.createDataFrame([(3, "it"), (9, "de"), (9, "de")], "user_idx int, scenario string")
    frame = histories.with_default_user(histories.with_given(built(tables), given), ["it", "de"])
    assert frame.schema.simpleString() == histories.HISTORIES.schema.simpleString()
    rows = {r.user_idx: r for r in frame.collect()}
    assert {k: r.scenarios for k, r in rows.items()} == {
        7: ["de", "fr"], 3: ["de", "it"], 9: ["de"], histories.DEFAULT_USER_IDX: ["de", "it"],
    }  # fmt: skip
    assert rows[9].item_idx == rows[-1].time == [] and rows[3].item_idx == [0]


def test_partitioning_changes_nothing(tables) -> None:
    events, *rest = tables
    moved = histories.all_histories(events.repartition(5, "item_id"), *rest, event_weights={})
    still = histories.all_histories(events.coalesce(1), *rest, event_weights={})
    assert sorted(map(str, moved.collect())) == sorted(map(str, still.collect()))


def test_a_busy_user_has_a_row_for_each_date(spark, tables, monkeypatch) -> None:
    """Ann has five events, of which two at most count. Before day 3 the newest two are of day 2.5; of the older ones
    the first view of b stays, since she has seen it, and the only event in fr, since it gives her a list there; a
    second view of b does not. Before day 2 the two of day 1 are the newest. Bob's row is for any date."""
    events, *rest = tables
    early = datetime(1970, 1, 1, 6, tzinfo=timezone.utc)  # day .25
    late = datetime(1970, 1, 1, 18, tzinfo=timezone.utc)  # day .75
    views = [("de", "ann", "b", at, "view", 1.0, {"page": "b"}) for at in (early, late)]
    more = spark.createDataFrame(views, EVENTS).withColumn("event_date", F.to_date("event_time"))
    monkeypatch.setattr(histories, "MOST_EVENTS", 2)
    dates = [DAY_3, DAY_2]
    whole = histories.all_histories(
        events.unionByName(more), *rest, event_weights={"return": -1.0}, busy=["ann"], dates=dates
    )
    groups = groups_of(tables, *dates)
    found = {day: histories.as_of(whole, day, groups[day], Scenarios()) for day in dates}
    times = {day: {row.user_idx: row.time for row in frame.collect()} for day, frame in found.items()}
    assert times == {DAY_3: {7: [0.25, 1.25, 2.5, 2.5], 3: [2.5]}, DAY_2: {7: [0.25, 0.75, 1.25]}}
    assert found[DAY_3].where("user_idx = 7").first().scenarios == ["de", "fr"]


@pytest.mark.parametrize("day", [DAY_3, DAY_2])
def test_a_busy_user_with_few_events_keeps_all(tables, day) -> None:
    whole = histories.all_histories(*tables, event_weights={"return": -1.0}, busy=["ann", "bob"], dates=[DAY_3, DAY_2])
    found = histories.as_of(whole, day, groups_of(tables, day)[day], Scenarios())
    assert sorted(map(str, found.collect())) == sorted(map(str, built(tables, day=day).collect())) != []
