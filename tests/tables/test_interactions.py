"""The weight of an event: one definition for popularity, histories and labels."""

from typing import Any

import pytest

from recspark.config.schema import Interactions
from recspark.tables.interactions import event_weight

NAN, INF = float("nan"), float("inf")


def weights_of(
    spark: Any, weights: dict[str, Any], rows: list[tuple[str, float | None, dict[str, str]]]
) -> list[float]:
    frame = spark.createDataFrame(rows, "event string, value double, context map<string,string>").coalesce(1)
    weight = event_weight(frame, Interactions(event_weights=weights).event_weights)
    return [row[0] for row in frame.select(weight).collect()]


def test_stars_above_three_are_interest(spark: Any) -> None:
    """value - 3: five stars weigh 2, four 1, three and one nothing; a purchase has no expression and weighs 1."""
    stars = [("rating", value, {}) for value in (5.0, 4.0, 3.0, 1.0)]
    found = weights_of(spark, {"rating": "value - 3", "return": -1}, [*stars, ("buy", 1.0, {}), ("return", 1.0, {})])
    assert found == [2.0, 1.0, 0.0, 0.0, 1.0, -1.0]


@pytest.mark.parametrize("value", [None, NAN, INF, -INF, -2.0])
def test_what_is_no_number_above_0_is_no_interest(spark: Any, value: float | None) -> None:
    assert weights_of(spark, {"rating": "value"}, [("rating", value, {}), ("rating", 0.5, {})]) == [0.0, 0.5]


def test_a_key_of_the_context_weighs(spark: Any) -> None:
    """Three pieces weigh 3; a text that is no number, and a missing key, weigh nothing."""
    rows = [("buy", 1.0, {"pieces": "3"}), ("buy", 1.0, {"pieces": "many"}), ("buy", 1.0, {})]
    assert weights_of(spark, {"buy": "context.pieces"}, rows) == [3.0, 0.0, 0.0]
