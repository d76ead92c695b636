"""What `recspark diff` says of two hand-made nights, by hand."""

from datetime import date
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.stages import diff
from recspark.tables import model_metrics, published_runs, recommendations
from recspark.tables.published_runs import HELD, PUBLISHED, Versions
from recspark.warehouse.store import Store
from tests.stages import hand_made

FIRST, SECOND = date(2024, 3, 1), date(2024, 3, 2)
# (scenario, user) -> items. DE: u0 keeps 2 of 3 items and the first place, u1 keeps 1 of 3 items; u2 is new; FR: gone
BEFORE = {("DE", "u0"): "abc", ("DE", "u1"): "abc", ("FR", "u3"): "ab"}
AFTER = {("DE", "u0"): "acd", ("DE", "u1"): "dea", ("DE", "u2"): "abc"}


def lists(run_date: date, items: dict[tuple[str, str], str]) -> list[tuple[Any, ...]]:
    return [
        (run_date, scenario, user, rank, item, 0.5, "linear", "blend", "why", "r")
        for (scenario, user), letters in items.items()
        for rank, item in enumerate(letters, 1)
    ]


def metrics(run_date: date, modes: dict[str, str], ndcg: float) -> list[tuple[Any, ...]]:
    figure = (run_date, "r", "blend", "", "__all__", "all", "ndcg@3", ndcg, None, None, 9, None)
    other = (run_date, "r", "blend", "", "__all__", "poor_scenarios", "ndcg@3", 0.9, None, None, 9, None)
    gate = [
        (run_date, "r", m, "x", s, "all", "publish", 1.0, None, None, 9, f"{m} is better") for s, m in modes.items()
    ]
    return [figure, other, *gate]


@pytest.fixture(scope="module")
def config(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    found = hand_made.config(tmp_path_factory.mktemp("diff"))
    store = Store(spark, found, "a")
    rows = lists(FIRST, BEFORE) + lists(SECOND, AFTER)
    store.append(recommendations.TABLE, spark.createDataFrame(rows, recommendations.TABLE.schema))
    old, new = (
        Versions("h1", {"blend": "m1"}, {"items": "t@3", "interactions": "i@1"}),
        Versions("h2", {"blend": "m1"}, {"items": "t@3", "interactions": "i@2"}),
    )
    published_runs.write(store, FIRST, PUBLISHED, "8 rows", old)
    published_runs.write(Store(spark, found, "b"), SECOND, HELD, "a check", new)
    published_runs.write(Store(spark, found, "c"), SECOND, PUBLISHED, "9 rows", new)
    rows = metrics(FIRST, {"DE": "linear", "FR": "popular"}, 0.1) + metrics(SECOND, {"DE": "blend"}, 0.2)
    store.append(model_metrics.TABLE, spark.createDataFrame(rows, model_metrics.TABLE.schema))
    return found


def test_what_changed(config: Config) -> None:
    """Of the six items of DE's two lists in both nights, a, c (u0) and a (u1) are in both: 3 of 6."""
    assert list(diff.lines(config, str(FIRST), str(SECOND))) == [
        "2024-03-01: run a, 8 rows",
        "2024-03-02: run c, 9 rows",
        "configuration: changed, hash h1 -> h2",
        "inputs: 1 the same, 1 changed",
        "  interactions: i@1 -> i@2",
        "models: 1 the same, 0 changed",
        "modes: the same in 0 scenarios, another in 2",
        "  DE: linear -> blend: blend is better",
        "  FR: popular -> none: the scenario has no lists any more",
        "metrics over all scenarios, on the newest closed window of each night:",
        "  ndcg@3 blend: 0.1000 -> 0.2000",
        "lists: 2 in both nights, 1 only before, 1 only after",
        "  DE: 50.0% of the items and 50.0% of the first places are the same; 2 lists in both, 0 only before, "
        "1 only after",
        "  FR: 0 lists in both, 1 only before, 0 only after",
    ]


def test_a_night_is_like_itself(config: Config) -> None:
    said = list(diff.lines(config, str(FIRST), str(FIRST)))
    assert "configuration: the same" in said and "lists: 3 in both nights, 0 only before, 0 only after" in said
    assert sum("100.0% of the items and 100.0% of the first places" in line for line in said) == 2


def test_a_night_without_lists_is_one_line(config: Config) -> None:
    with pytest.raises(DataError, match=r"no lists of 2024-03-05 are published in .*; the newest is 2024-03-02"):
        list(diff.lines(config, str(FIRST), "2024-03-05"))
