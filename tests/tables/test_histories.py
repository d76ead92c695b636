from datetime import datetime, timezone

import numpy as np
import pytest

from recspark.config import ScenarioRule, Scenarios
from recspark.tables import histories

EVENTS = (
    "scenario string, user_id string, item_id string, event_time timestamp, event string, value double, "
    "context map<string,string>"
)
NOON = datetime(1970, 1, 3, 12, tzinfo=timezone.utc)  # day 2.5
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
    groups = histories.scenario_groups(events, index, min_users=2)
    return events, users, items, groups


def built(tables, rules: Scenarios | None = None):
    return histories.build(*tables, rules=rules or Scenarios(), event_weights={"return": -1.0})


def test_a_small_scenario_joins_group_0(tables) -> None:
    assert sorted(tuple(r) for r in tables[3].collect()) == [("de", 1, 2), ("fr", 0, 1)]


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
    moved = histories.build(events.repartition(5, "item_id"), *rest, rules=Scenarios(), event_weights={})
    still = histories.build(events.coalesce(1), *rest, rules=Scenarios(), event_weights={})
    assert sorted(map(str, moved.collect())) == sorted(map(str, still.collect()))
