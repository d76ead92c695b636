"""Which rows and columns of two tables differ, by hand."""

from typing import Any

from benchmarks.night.same_tables import KEYS, NTH, compare, differing

KEY = ("item_id",)
DDL = "item_id string, score double, text string, tags map<string,string>, run_id string"
ROWS = [
    ("a", 1.0, "x", {"k": "1", "l": "2"}, "first"),
    ("b", float("nan"), None, None, "first"),
    ("c", 2e6, "z", {}, "first"),
]


def test_the_same_rows_in_another_order_by_another_run(spark: Any) -> None:
    other = [(*row[:4], "second") for row in reversed(ROWS)]
    other[2] = ("a", 1.0 + 5e-7, "x", {"l": "2", "k": "1"}, "second")
    before, after = (spark.createDataFrame(rows, DDL) for rows in (ROWS, other))
    assert differing(before, after, KEY) == {}


def test_every_kind_of_difference_is_counted(spark: Any) -> None:
    """a: the score by 1e-5; b: nan became 0, and a text; c is gone and d is new."""
    other = [("a", 1.00001, "x", ROWS[0][3], "r"), ("b", 0.0, "y", None, "r"), ("d", 1.0, "z", {}, "r")]
    before, after = (spark.createDataFrame(rows, DDL) for rows in (ROWS, other))
    expected = {"rows only before": 1, "rows only after": 1, "score": 2, "text": 1}
    assert differing(before, after, KEY) == expected
    assert differing(before, after.drop("text"), KEY) == {"column text of one only": 1}


def test_rows_that_share_a_key_are_compared_in_order_of_their_values(spark: Any) -> None:
    before, after, other = (
        spark.createDataFrame(rows, "item_id string, label double, weight double")
        for rows in (
            [("a", 1.0, 1.0), ("a", 0.0, 5.0)],
            [("a", 0.0, 5.0), ("a", 1.0, 1.0)],
            [("a", 0.0, 5.0), ("a", 1.0, 5.0)],
        )
    )
    assert differing(before, after, ("item_id", NTH)) == {}
    assert differing(before, other, ("item_id", NTH)) == {"weight": 1}


def test_a_table_of_one_warehouse_only_is_a_difference(spark: Any, tmp_path: Any) -> None:
    rows = spark.createDataFrame([("a", 0)], "item_id string, item_idx int")
    for warehouse in ("before", "after"):
        rows.write.format("delta").save(f"{tmp_path}/{warehouse}/item_index")
    assert compare(f"{tmp_path}/before", f"{tmp_path}/after") == {"item_index": {}}
    rows.withColumnRenamed("item_idx", "user_idx").write.format("delta").save(f"{tmp_path}/after/items")
    assert compare(f"{tmp_path}/before", f"{tmp_path}/after")["items"] == {"table of one only": 1}
    assert set(KEYS) >= {"recommendations", "candidates", "model_metrics"}
