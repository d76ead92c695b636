"""Features from raw rows: what is a value, what is missing, and which rows cannot be used. No file is read."""

from datetime import datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recspark.config.sources import UserSource
from recspark.errors import RecsparkError, SchemaError
from recspark.given_features import MOST_TEXTS, USERS
from recspark.sources.given_features import parse

NAN, INF = float("nan"), float("inf")


def source(event_time: str | None = None, **features: tuple[str, str]) -> UserSource:
    named = {name: {"kind": kind, "sql": sql} for name, (kind, sql) in features.items()}
    place = {"format": "parquet", "paths": ["users"], "user_id": "who"}
    return UserSource.model_validate({**place, "event_time": event_time, "features": named})


def parsed(rows: Any, settings: UserSource) -> dict[str | None, tuple[Any, Any, Any]]:
    found = parse(rows, settings, USERS).collect()
    return {row.user_id: (row.known_from, row.numbers, row.categories) for row in found}


def test_numbers_that_are_none_are_missing(spark: SparkSession) -> None:
    """Also those that a float32 cannot hold; a negative zero is zero."""
    given = {"a": "1.5", "nan": "NaN", "inf": "-Infinity", "far": "1e31", "word": "old", "zero": "-0.0", "none": None}
    rows = spark.createDataFrame(list(given.items()), "who string, age string")
    ages = {user: numbers[0] for user, (_, numbers, _) in parsed(rows, source(age=("number", "age"))).items()}
    assert ages == {"a": 1.5, "nan": None, "inf": None, "far": None, "word": None, "zero": 0.0, "none": None}
    assert str(ages["zero"]) == "0.0"
    doubles = spark.createDataFrame([("a", 2.0), ("nan", NAN), ("inf", INF)], "who string, age double")
    assert [numbers for _, numbers, _ in parsed(doubles, source(age=("number", "age"))).values()] == [
        [2.0], [None], [None],
    ]  # fmt: skip


def test_texts_are_trimmed_and_blank_ones_missing(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("a", " nurse\u00a0", ["war", " drama", "war", "", None]), ("b", " ", ["", None]), ("c", None, None)],
        "who string, job string, genres array<string>",
    )
    settings = source(job=("category", "job"), genres=("categories", "genres"))
    found = {user: texts for user, (_, _, texts) in parsed(rows, settings).items()}
    assert found == {"a": [["nurse"], ["war", "drama"]], "b": [None, None], "c": [None, None]}


def test_a_list_of_ten_thousand_is_kept_to_one_more_than_counts(spark: SparkSession) -> None:
    """The one more says that it was longer. 10,000 values of 20 different ones are not longer."""
    rows = spark.range(1).select(
        F.lit("a").alias("who"),
        F.expr("transform(sequence(1, 10000), x -> concat('t', x))").alias("many"),
        F.expr("transform(sequence(1, 10000), x -> concat('t', x % 20))").alias("few"),
    )
    few, many = parsed(rows, source(few=("categories", "few"), many=("categories", "many")))["a"][2]
    assert many == [f"t{n}" for n in range(1, MOST_TEXTS + 2)]
    assert few == [f"t{n}" for n in (*range(1, 20), 0)]


def test_a_number_is_the_same_category_in_any_type(spark: SparkSession) -> None:
    """But a text is what it is: 2.0 may be a version."""
    rows = spark.createDataFrame(
        [("a", 2, 2.0, 2.5, NAN, "2.0", [2.0, 3.5])],
        "who string, w int, d double, h double, n double, t string, l array<double>",
    )
    features = {name: ("category", name) for name in "wdhnt"} | {"l": ("categories", "l")}
    texts = parsed(rows, source(**features))["a"][2]
    assert texts == [["2"], ["2.5"], None, ["2.0"], ["2"], ["2", "3.5"]]  # d, h, n, t, w by name, then the lists


def test_rows_that_cannot_be_used_have_no_id(spark: SparkSession) -> None:
    """A row without a time counts at all dates; one whose time cannot be read must not."""
    times = {"a": "2024-02-01", "none": None, "bad": "soon", "": "2024-02-01", "__default__": None, "M\ufffd": None}
    rows = spark.createDataFrame(list(times.items()), "who string, at string")
    found = parsed(rows, source("at", age=("number", "1")))
    assert {user: row[0] for user, row in found.items() if user is not None} == {
        "a": datetime(2024, 2, 1), "none": None,
    }  # fmt: skip
    assert parse(rows, source("at", age=("number", "1")), USERS).where("user_id IS NULL").count() == 4


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (("number", "agee"), r"source\.users\.features\.x\.sql: column agee is not in users; did you mean age\?"),
        (("category", "tags"), r"source\.users\.features\.x\.sql: `tags` is of type array<string>"),
        (("number", "split("), r"source\.users\.features\.x\.sql: `split\(` is not Spark SQL"),
    ],
)
def test_mistakes_are_one_line(spark: SparkSession, feature: tuple[str, str], message: str) -> None:
    rows = spark.createDataFrame([("a", 1, ["x"])], "who string, age int, tags array<string>")
    with pytest.raises(RecsparkError, match=message) as raised:
        parse(rows, source(x=feature), USERS)
    assert raised.value.exit_code == 2 and len(str(raised.value).splitlines()) == 1
    with pytest.raises(SchemaError, match=r"source\.users\.event_time: column att"):
        parse(rows, source("att", x=("number", "age")), USERS)
