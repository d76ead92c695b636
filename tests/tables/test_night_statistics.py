"""Figures of days and of lists, by hand."""

from datetime import date, datetime

import pytest
from pyspark.sql import functions as F

from recspark.tables import night_statistics
from recspark.tables.interaction_days import Day
from recspark.tables.interactions import TABLE
from recspark.tables.recommendations import TABLE as RECOMMENDATIONS

FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)


def event(scenario: str, user: str, item: str, day: date, value: float | None = None, minute: int = 0) -> tuple:
    at = datetime(day.year, day.month, day.day, 10, minute)
    return (scenario, user, item, at, "buy", value, None, day)


def test_figures_of_a_day(spark) -> None:
    """ann is known in DE, bob in FR only, cid nowhere; i1 is known. 20 rows have a value: 1 to 20, so that the deciles
    are 2, 4, ..., 18, of mean 10."""
    rows = [event("DE", "ann", "i1", FIRST), event("FR", "bob", "i1", FIRST)]
    rows += [event("DE", user, "i1", SECOND) for user in ("ann", "bob", "cid")]
    rows += [event("DE", "ann", "i2", SECOND, float(n), minute=n) for n in range(1, 21)]
    events = spark.createDataFrame(rows, TABLE.schema)
    found = night_statistics.of_days(events, [SECOND], {"value": F.col("value")}).collect()
    assert [(row.day, row.scenario) for row in found] == [(SECOND, "DE")]
    assert found[0].statistics == {
        "rows": 23, "users": 3, "pairs": 4, "items": 2, "known_users": 1, "moved_users": 1, "known_item_rows": 3,
        "buy:rows": 23, "buy value:n": 20, "buy value:middle": 10, "buy value:low": 2, "buy value:spread": 16,
    }  # fmt: skip


def test_a_number_of_few_rows_is_not_described(spark) -> None:
    events = spark.createDataFrame([event("DE", "ann", "i1", FIRST, 1.0, n) for n in range(19)], TABLE.schema)
    (row,) = night_statistics.of_days(events, [FIRST], {"value": F.col("value")}).collect()
    assert row.statistics["buy:rows"] == 19 and "buy value:n" not in row.statistics


def test_figures_of_a_delivery() -> None:
    days = {FIRST: Day(raw=10, accepted=5, merged=1, duplicates=2, rejected={"null user_id": 2}), None: Day(raw=1)}
    assert night_statistics.of_deliveries(days) == {FIRST: {"raw": 10, "duplicates": 2, "merged": 1, "rejected": 2}}


@pytest.mark.parametrize("with_earlier", [True, False])
def test_figures_of_lists(spark, with_earlier: bool) -> None:
    """ann keeps i1 of two places; bob is new, and his two scores are equal."""

    def lists(places: list[tuple[str, str, float, str]]) -> object:
        rows = [(FIRST, "DE", user, 1, item, score, source, "m", "why", "run") for user, item, score, source in places]
        return spark.createDataFrame(rows, RECOMMENDATIONS.schema)

    before = lists([("ann", "i1", 1.0, "linear"), ("ann", "i9", 0.5, "linear")]) if with_earlier else None
    now = lists([("ann", "i1", 1.0, "linear"), ("ann", "i2", 0.5, "popular"), ("bob", "i1", 1.0, "popular"),
                 ("bob", "i3", 1.0, "popular")])  # fmt: skip
    (row,) = night_statistics.of_lists(now, before, ("linear", "popular")).collect()
    assert row.scenario == "DE"
    assert row.statistics == {
        "lists": 2, "rows": 4, "scores": 3, "constant": 1, "items": 3, "top_item_rows": 2, "source linear": 1,
        "source popular": 3, "compared": 2 if with_earlier else 0, "kept": 1 if with_earlier else 0,
    }  # fmt: skip
