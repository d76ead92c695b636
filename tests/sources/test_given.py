"""candidates.source: which of the given rows can be ranked."""

from pyspark.sql import SparkSession

from recspark.sources import given


def test_every_row_is_kept_or_has_its_reason(spark: SparkSession) -> None:
    rows = [
        ("shop", "u1", "a"),
        ("shop", "u1", "z"),  # no such item
        (None, "u1", "a"),
        ("shop", " ", "a"),
        ("shop", "u1", None),
        ("shop", "__default__", "a"),
        ("shop", "M\ufffdller", "a"),  # its bytes were not UTF-8
        ("shop", "wide", "a"),
    ]
    schema = "scenario string, user_id string, item_id string, _malformed boolean"
    frame = spark.createDataFrame([(*row, row[1] == "wide") for row in rows], schema)
    known = spark.createDataFrame([("a", 0), ("b", 1)], "item_id string, item_idx int")
    found = {(r.scenario, r.user_id, r.item_id): r.reason for r in given.with_reason(frame, known).collect()}
    assert found == {
        ("shop", "u1", "a"): None,
        ("shop", "u1", "z"): "candidate: unknown item",
        (None, "u1", "a"): "candidate: null scenario",
        ("shop", " ", "a"): "candidate: null user_id",
        ("shop", "u1", None): "candidate: null item_id",
        ("shop", "__default__", "a"): "candidate: reserved user_id",
        ("shop", "M\ufffdller", "a"): "candidate: unreadable user_id",
        ("shop", "wide", "a"): "candidate: malformed row",
    }
