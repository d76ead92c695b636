"""Labels, sampling and order of the examples, on candidates small enough to check by hand."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark.config.rankers import Task, TrainingExamples
from recspark.config.schema import Config, Interactions
from recspark.config.sources import Sources
from recspark.errors import ConfigError
from recspark.features import FEATURES
from recspark.tables import training_examples
from recspark.tables.training_examples import Rates

AS_OF = date(2024, 1, 1)
TASKS = (
    Task(name="buy", kind="binary", sql="sum(weight) > 0"),
    Task(name="spend", kind="regression", sql="sum(value)"),
)


def config(tmp_path: Path) -> Config:
    source = {"format": "parquet", "paths": ["x"], "scenario": "a", "user_id": "b", "item_id": "c", "event_time": "d"}
    return Config(
        warehouse=str(tmp_path),
        source=Sources.model_validate({"interactions": source}),
        interactions=Interactions(event_weights={"return": -1.0}),
        training_examples=TrainingExamples(tasks=TASKS),
    )


def events(spark: Any) -> Any:
    rows = [
        ("de", "u0", "i0", "purchase", 5.0),
        ("de", "u0", "i1", "purchase", 4.0),
        ("de", "u0", "i1", "return", -4.0),  # undone: weight 1 - 1 = 0
        ("fr", "u0", "i2", "purchase", 9.0),  # in another scenario than the candidate
        ("de", "u9", "i0", "purchase", 1.0),  # not in the index
    ]
    return spark.createDataFrame(rows, "scenario string, user_id string, item_id string, event string, value double")


def indices(spark: Any) -> tuple[Any, Any]:
    users = spark.createDataFrame([("u0", 0), ("u1", 1)], "user_id string, user_idx int")
    items = spark.createDataFrame([("i0", 0), ("i1", 1), ("i2", 2)], "item_id string, item_idx int")
    return users, items


def candidates(spark: Any, num_users: int = 2) -> Any:
    rows = [("de", 1, user, item) for user in range(num_users) for item in range(3)]
    frame = spark.createDataFrame(rows, "scenario string, scenario_idx int, user_idx int, item_idx int")
    return frame.select("*", *(F.lit(0.5).cast("float").alias(name) for name in FEATURES))


def built(spark: Any, settings: Config, num_users: int = 2, rate: float = 1.0) -> Any:
    users, items = indices(spark)
    labels = training_examples.outcomes(events(spark), users, items, settings)
    all_users = spark.range(num_users).selectExpr("concat('u', id) AS user_id", "cast(id AS int) AS user_idx")
    return training_examples.build(candidates(spark, num_users), labels, all_users, settings, AS_OF, Rates(rate, {}))


def test_labels_by_hand(spark: Any, tmp_path: Path) -> None:
    rows = {(r.user_idx, r.item_idx): r for r in built(spark, config(tmp_path)).collect()}
    assert len(rows) == 6
    bought = {key for key, r in rows.items() if r.label_buy == 1.0}
    assert bought == {(0, 0)}  # i1 was returned, i2 was bought elsewhere
    assert rows[0, 0].label_spend == 5.0
    assert rows[0, 1].label_spend == 0.0  # 4 - 4
    assert rows[0, 2].label_spend != rows[0, 2].label_spend  # nothing measured: NaN
    assert rows[0, 0].as_of_day == 19723  # 54 x 365 + 13 leap days


def test_a_user_with_two_positives_has_each_example_once(spark: Any, tmp_path: Path) -> None:
    bought = [("de", "u1", item, "purchase", 1.0) for item in ("i0", "i2")]
    more = events(spark).unionByName(spark.createDataFrame(bought, events(spark).schema))
    settings = config(tmp_path)
    labels = training_examples.outcomes(more, *indices(spark), settings)
    rows = training_examples.build(
        candidates(spark), labels, indices(spark)[0], settings, AS_OF, Rates(1.0, {})
    ).collect()
    found = sorted((r.user_idx, r.item_idx, r.label_buy) for r in rows)
    assert found == [(0, 0, 1.0), (0, 1, 0.0), (0, 2, 0.0), (1, 0, 1.0), (1, 1, 0.0), (1, 2, 1.0)]


def test_schema_is_the_contract(spark: Any, tmp_path: Path) -> None:
    frame = built(spark, config(tmp_path))
    table = training_examples.table(TASKS)
    assert [(f.name, f.dataType) for f in frame.schema] == [(f.name, f.dataType) for f in table.schema]


def test_users_without_a_positive_are_sampled_with_their_weight(spark: Any, tmp_path: Path) -> None:
    rows = built(spark, config(tmp_path), num_users=2001, rate=0.25).collect()
    active = [r for r in rows if r.user_idx == 0]
    others = {r.user_idx for r in rows} - {0}
    assert {r.weight for r in active} == {1.0}
    assert {r.weight for r in rows if r.user_idx != 0} == {4.0}  # 1 / 0.25
    assert 420 < len(others) < 580  # 2000 x 0.25 = 500, standard deviation 19
    assert all(sum(r.user_idx == u for r in rows) == 3 for u in list(others)[:20])  # whole users, never parts


def test_the_users_of_a_window_are_those_with_a_positive_and_half_as_many_others(spark: Any, tmp_path: Path) -> None:
    """Of 4,000 known users 400 bought. 200 of the other 3,600 are wanted: a rate of 1/18, standard deviation 14. 100
    who bought had no event before the window, and one brought back all that he bought."""
    users = spark.range(5000).selectExpr("concat('u', id) AS user_id", "cast(id AS int) AS user_idx")
    known = users.where("user_idx < 4000")
    bought = [("de", f"u{n}", "i0", "purchase", 1.0) for n in (*range(400), *range(4000, 4100), 777)]
    bought.append(("de", "u777", "i0", "return", -1.0))
    done = spark.createDataFrame(bought, events(spark).schema)
    found, num_users, (rate, of_scenarios) = training_examples.users_of_window(
        known, done, users, config(tmp_path), AS_OF, False
    )
    kept = [row.user_idx for row in found.collect()]
    assert of_scenarios == {} and rate == pytest.approx(200 / 3600) and num_users == 600 and len(kept) == len(set(kept))
    assert set(range(400)) <= set(kept) and max(kept) < 4000 and 140 < len(kept) - 400 < 260
    # a user's draw depends on the id, not on the number, which depends on when the user came
    turned = users.selectExpr("user_id", "4999 - user_idx AS user_idx")
    numbers = turned.where("user_idx > 999").select("user_idx")
    other = training_examples.users_of_window(numbers, done, turned, config(tmp_path), AS_OF, False)[0]
    assert {4999 - row.user_idx for row in other.collect()} == set(kept)


@pytest.mark.parametrize(
    ("sizes", "total", "level"),
    [
        ([2, 10, 30], 20, 9.0),
        ([2, 10, 30], 42, float("inf")),
        ([5, 5], 4, 2.0),
        ([1, 1, 100], 50, 48.0),
        ([], 5, float("inf")),
    ],
)
def test_the_water_level_by_hand(sizes: list[int], total: int, level: float) -> None:
    found = training_examples.water_level(np.array(sizes, dtype=int), total)
    assert found == level and (level == float("inf") or np.minimum(sizes, found).sum() == total)


def test_of_many_lists_a_sample_is_learnt_from_and_poor_scenarios_are_whole(spark: Any, tmp_path: Path) -> None:
    """Of 4,000 known users 2,000 bought in de and 50 in fr, and 3,000 new ones in de, who do not count; 500 lists are
    wanted: 450 of de, each with weight 2000 / 450, and all 50 of fr, with weight 1. Half as many others come with them:
    250 of 1,950."""
    settings = config(tmp_path)
    wanted = settings.training_examples.model_copy(update={"max_lists": 500})
    settings = settings.model_copy(update={"training_examples": wanted})
    users = spark.range(7000).selectExpr("concat('u', id) AS user_id", "cast(id AS int) AS user_idx")
    known = users.where("user_idx < 4000")
    places = [("de", n) for n in (*range(2000), *range(4000, 7000))] + [("fr", n) for n in range(1975, 2025)]
    bought = spark.createDataFrame(
        [(place, f"u{n}", "i0", "purchase", 1.0) for place, n in places], events(spark).schema
    )
    found, num_users, rates = training_examples.users_of_window(known, bought, users, settings, AS_OF, False)
    kept = {row.user_idx for row in found.collect()}
    active = {n for n in kept if n < 2025}
    assert rates.of_scenarios == {"de": 450 / 2000} and max(kept) < 4000
    assert set(range(1975, 2025)) <= kept and 430 < len(active) < 560  # deviation 19
    assert rates.others == pytest.approx(len(active) / 2 / 1975) and num_users == round(len(active) * 1.5)
    everyone = training_examples.users_of_window(known, bought, users, settings, AS_OF, True)
    assert {row.user_idx for row in everyone[0].collect()} == kept | set(range(2025)) and everyone[2] == rates
    # the examples are the same, whether the candidates are of all users or of the sample
    labels = training_examples.outcomes(bought, users, indices(spark)[1], settings)
    rows = candidates(spark, 4000).where("item_idx < 2")
    both = rows.unionByName(rows.withColumn("scenario", F.lit("fr")).withColumn("scenario_idx", F.lit(2)))
    whole = training_examples.build(both, labels, users, settings, AS_OF, rates)
    part = training_examples.build(both.join(found, on="user_idx"), labels, users, settings, AS_OF, rates)
    names = ["scenario_idx", "user_idx", "item_idx", "weight", "label_buy"]
    examples, of_part = whole.select(names).toPandas(), part.select(names).toPandas()
    assert sorted(map(tuple, examples.to_numpy())) == sorted(map(tuple, of_part.to_numpy()))
    examples = examples.drop_duplicates(["scenario_idx", "user_idx"])
    lists = examples[examples["user_idx"] < 2025].groupby(["scenario_idx", "weight"]).size()
    assert lists[2, 1.0] == 50 and 390 < lists[1, np.float32(2000 / 450)] < 510  # deviation 19


def test_same_rows_and_files_whatever_the_partitioning(spark: Any, tmp_path: Path) -> None:
    settings = config(tmp_path)
    one = training_examples.in_hash_order(built(spark, settings), ("user_idx", "item_idx"), 4)
    other = training_examples.in_hash_order(built(spark, settings).repartition(7), ("user_idx", "item_idx"), 4)
    assert one.rdd.glom().map(len).collect() == other.rdd.glom().map(len).collect()
    assert one.select("user_idx", "item_idx").collect() == other.select("user_idx", "item_idx").collect()


def test_a_task_that_does_not_parse_is_a_config_error(spark: Any, tmp_path: Path) -> None:
    bad = config(tmp_path).model_copy(
        update={"training_examples": TrainingExamples(tasks=(Task(name="x", kind="binary", sql="sum(wieght) > 0"),))}
    )
    with pytest.raises(ConfigError, match="wieght"):
        training_examples.outcomes(events(spark), *indices(spark), bad)
