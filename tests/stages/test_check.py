"""What `recspark check` finds, and a run in its first seconds. No warehouse is written."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from recspark import cli, pipeline
from recspark.config.schema import Config
from recspark.errors import ConfigError, DataError, RecsparkError, SchemaError
from recspark.stages import check

RUN_DATE = date(2024, 3, 1)


def config(folder: Path, **sections: Any) -> Config:
    source = {"format": "csv", "paths": [f"{folder}/events.csv"], "options": {"header": "true"}}
    interactions = {**source, "scenario": "shop", "user_id": "who", "item_id": "what", "event_time": "at"}
    items = {**source, "item_id": "what", "text": "title"}
    tables = {"source": {"interactions": interactions, "items": items}, "warehouse": f"{folder}/warehouse"}
    return Config.model_validate({**tables, **sections})


def write(folder: Path, *lines: str) -> None:
    (folder / "events.csv").write_text("\n".join(("shop,who,what,at,title", *lines)) + "\n")


WRONG = {
    "a task over a column that is not there": (
        {"training_examples": {"tasks": [{"name": "buy", "kind": "binary", "sql": "sum(wieght) > 0"}]}},
        ConfigError,
        "training_examples.tasks: .*wieght",
    ),
    "a weight over a column that is not there": (
        {"interactions": {"event_weights": {"rating": "vlaue - 3"}}},
        SchemaError,
        "interactions.event_weights.rating: column vlaue is not in the table interactions; did you mean value",
    ),
    "a weight that is no number": (
        {"interactions": {"event_weights": {"rating": "value > 3"}}},
        SchemaError,
        "interactions.event_weights.rating: `value > 3` is of type boolean",
    ),
    "a weight that is not of one event": (
        {"interactions": {"event_weights": {"rating": "max(value)"}}},
        ConfigError,
        "interactions.event_weights.rating: `max.value.` is not the weight of one event",
    ),
    "a weight that looks at other events": (
        {"interactions": {"event_weights": {"rating": "value - avg(value) OVER (PARTITION BY user_id)"}}},
        ConfigError,
        "interactions.event_weights.rating: .* is not the weight of one event",
    ),
    "a rule that is no condition": (
        {"scenarios": {"default": {"where": "text"}}},
        SchemaError,
        "scenarios.default.where: `text` is of type string",
    ),
    "a boost by a column that is not there": (
        {"scenarios": {"default": {"boost": [{"where": "stok > 0", "factor": 2}]}}},
        SchemaError,
        "scenarios.default.boost.0.where: column stok is not in the table items",
    ),
    "a pin that is no condition": (
        {"scenarios": {"overrides": {"de": {"pin": [{"where": "text", "rank": 1}]}}}},
        SchemaError,
        "scenarios.overrides.de.pin.0.where: `text` is of type string",
    ),
    "a limit by a column that is not there": (
        {"scenarios": {"overrides": {"de": {"at_most": {"items": 2, "of": "brand"}}}}},
        SchemaError,
        "scenarios.overrides.de.at_most.of: column brand",
    ),
    "a relation that is no text": (
        {"item_facts": {"relations": {"brand": "attributes"}}},
        SchemaError,
        "item_facts.relations.brand: `attributes` is of type map",
    ),
    "an encoder that is nowhere": (
        {"item_embeddings": {"encoder": "./no/such/folder"}},
        ConfigError,
        "no/such/folder",
    ),
    "an adapter without its section": (
        {"item_embeddings": {"encoder": "text_adapter"}},
        ConfigError,
        "item_embeddings: .*text_adapter",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_ends_a_run_before_it_writes(spark: Any, tmp_path: Path, name: str) -> None:
    """The sources do not even exist: no data is read to find it."""
    sections, kind, message = WRONG[name]
    mistaken = config(tmp_path, **sections)
    with pytest.raises(kind, match=message):
        check.configuration(spark, mistaken)
    with pytest.raises(kind, match=message):
        pipeline.execute(tuple(pipeline.STAGES), mistaken, RUN_DATE, "run", False, print, print)
    assert not (tmp_path / "warehouse").exists()


def test_what_is_right_is_said(spark: Any, tmp_path: Path) -> None:
    """Three rows: one good, one without a user, one of the day of the night, which is later."""
    write(tmp_path, "de,u1,i1,2024-02-01,LAMP", "de,,i1,2024-02-02,LAMP", "fr,u2,i2,2024-03-01,MUG")
    sections = {
        "scenarios": {"default": {"where": "text <> 'X'"}},
        "item_facts": {"relations": {"word": "split(text, ' ')"}},
    }
    found = config(tmp_path, **sections)
    lines = list(pipeline.check(found, RUN_DATE))
    assert lines[:3] == [
        "training_examples.tasks: interaction",
        "scenarios: SQL of rules: 1",
        "item_facts.relations: word",
    ]
    assert lines[3].startswith("item_embeddings: all-MiniLM-L6-v2@")
    assert lines[4:] == [
        "source.interactions: of the first 3 rows 1 usable; others: later: 1, null user_id: 1; scenarios: de",
        "source.items: of the first 3 rows 3 usable",
        "run date 2024-03-01: events of that day and later are not read",
        "the first night of this warehouse: every stage is built; events: about 4",
        "about 2 to 5 minutes on two quiet cores if every stage is built, a quarter of it for the next nights",
    ]
    assert not (tmp_path / "warehouse").exists()


def test_features_are_tried_and_counted(spark: Any, tmp_path: Path) -> None:
    """Users without a scenario need no column of one. A wrong expression ends a run before it writes."""
    write(tmp_path, "de,u1,i1,2024-02-01,LAMP", "de,u2,i1,2024-02-02,", "de,u3,i1,2024-02-02,", "de,u4,i1,2024-02-02,")
    source = config(tmp_path).model_dump()["source"]
    place = {"format": "csv", "paths": [f"{tmp_path}/events.csv"], "options": {"header": "true"}}

    def with_features(sql: str) -> Config:
        features = {"title": {"kind": "category", "sql": sql}, "one": {"kind": "number", "sql": "1"}}
        users = {**place, "user_id": "who", "features": features}
        return config(tmp_path, source={**source, "users": users})

    lines = list(check.sources(spark, with_features("title"), RUN_DATE))
    assert lines[-2:] == [
        "source.users: of the first 4 rows 4 usable",
        "source.users.features: known in the first rows: one 100%, title 25%",
    ]
    with pytest.raises(SchemaError, match=r"source\.users\.features\.title\.sql: column titel .* mean title\?"):
        pipeline.execute(tuple(pipeline.STAGES), with_features("titel"), RUN_DATE, "run", False, print, print)
    assert not (tmp_path / "warehouse").exists()


@pytest.mark.parametrize(
    "rows,expected",
    ((None, "2 to 10 minutes"), (5000, "2 to 5 minutes"), (540_000, "2 to 10 minutes"), (8_600_000, "43 minutes")),
)
def test_the_time_follows_from_measured_nights(rows: int | None, expected: str) -> None:
    assert check._minutes(rows) == expected


def test_rows_of_which_none_is_usable_are_an_error(spark: Any, tmp_path: Path) -> None:
    write(tmp_path, "de,,i1,2024-02-01,LAMP", "de,u1,i1,soon,LAMP")
    with pytest.raises(DataError, match=r"none of the first 2 rows of .*null user_id: 1, unparsable event_time: 1"):
        list(check.sources(spark, config(tmp_path), RUN_DATE))
    write(tmp_path, "de,u1,i1,2024-02-01,LAMP")
    ids = {"format": "csv", "paths": [f"{tmp_path}/events.csv"], "options": {"header": "true"}}
    given = config(tmp_path, candidates={"source": {**ids, "scenario": "shop", "user_id": "nobody", "item_id": "what"}})
    with pytest.raises(SchemaError, match=r"candidates.source.user_id: column nobody"):
        list(check.sources(spark, given, RUN_DATE))
    blank = config(tmp_path, candidates={"source": {**ids, "scenario": "shop", "user_id": "null", "item_id": "what"}})
    with pytest.raises(RecsparkError, match=r"candidates.source"):
        list(check.sources(spark, blank, RUN_DATE))


def test_an_error_of_a_worker_is_still_the_users_to_fix() -> None:
    """Spark puts a worker's traceback into the text of its own exception."""
    text = "\n\n  An exception was thrown from the Python worker:\nTraceback (most recent call last):\n  File ...\n"
    assert cli.cause(RuntimeError(f"{text}recspark.errors.ConfigError: encoder 'x': cannot be loaded\n\nat java")) == (
        "encoder 'x': cannot be loaded",
        2,
    )
    assert cli.cause(RuntimeError(f"{text}KeyError: 'x'\n")) == (
        "RuntimeError: An exception was thrown from the Python worker:",
        1,
    )


def test_the_root_of_a_java_error_is_the_line() -> None:
    text = (
        "An error occurred while calling o5236.save.\n: org.apache.spark.SparkException: Job aborted\n\tat java\n"
        "Caused by: org.apache.parquet.Failure: Unable to close\n\tat java\n"
        "Caused by: java.io.IOException: No space left on device\n\tat java\n"
        "\tSuppressed: java.lang.IllegalStateException\n\tCaused by: java.lang.Error: nested\n"
    )
    line, code = cli.cause(RuntimeError(text))
    assert (line, code) == ("RuntimeError: java.io.IOException: No space left on device", 1)
