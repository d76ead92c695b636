"""The stage on a small warehouse: users as JSON with times, items as CSV, tonight and two past dates.

Tonight is Friday 2024-03-01; windows of 7 days open on the Mondays 2024-02-19 and 2024-02-12.
"""

import json
import logging
import shutil
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import SchemaError
from recspark.given_features import ITEMS, USERS, FeatureBook
from recspark.sources import raw
from recspark.stages import given_features as stage
from recspark.stages.erase import erase
from recspark.summary import Summary
from recspark.tables import given_features as table
from recspark.tables import index, interactions, items
from recspark.warehouse.given_features import folder_of
from recspark.warehouse.store import Store
from recspark.windows import as_of_day
from tests.stages import hand_made

RUN_DATE = date(2024, 3, 1)
PAST, OLD = date(2024, 2, 19), date(2024, 2, 12)
FIRST_EVENTS = {"u0": date(2024, 2, 1), "u1": date(2024, 2, 14), "u2": date(2024, 2, 28)}
PEOPLE = [
    {"who": "u0", "at": "2024-01-05", "age": 30, "likes": ["war", "drama"]},
    {"who": "u0", "at": "2024-02-20", "age": 31, "likes": ["war"]},
    {"who": "u0", "at": "2024-03-01", "age": 99, "likes": []},
    {"who": "u1", "age": 20, "likes": [f"t{n}" for n in range(10_000)]},
    {"who": "u2", "at": "2024-01-05", "age": 40},
    {"who": "cold", "at": "2024-01-05", "age": 50, "likes": ["war"]},
    {"who": "stranger", "age": 60},
    {"who": "__default__", "age": 1},
    {"who": "u1", "at": "soon", "age": 77},
]
USER_FEATURES = {"age": {"kind": "number", "sql": "age"}, "likes": {"kind": "categories", "sql": "likes"}}
ITEM_FEATURES = {"brand": {"kind": "category", "sql": "brand"}}


def write_people(folder: Path, people: list[dict[str, Any]]) -> None:
    (folder / "users.json").write_text("\n".join(map(json.dumps, people)) + "\n")


def settings(folder: Path, warehouse: Path | None = None, **changes: Any) -> Config:
    interactions_source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i"}
    users = {"format": "json", "paths": [f"{folder}/users.json"], "user_id": "who", "event_time": "at"}
    listed = {"format": "csv", "paths": [f"{folder}/items.csv"], "options": {"header": "true"}, "item_id": "sku"}
    source = {
        "interactions": {**interactions_source, "event_time": "t"},
        "users": {**users, "features": USER_FEATURES, **changes.pop("users", {})},
        "items": {**listed, "features": ITEM_FEATURES, **changes.pop("items", {})},
    }
    return hand_made.config(warehouse or folder / "w", source=source, **changes)


def write_world(folder: Path, spark: Any) -> Store:
    """Users u0, u1, u2 with a first event each; item i0 is known for long, i1 since 2024-02-15."""
    write_people(folder, PEOPLE)
    (folder / "items.csv").write_text("sku,brand\ni0,acme\ni1,umbra\ni9,acme\n")
    made = Store(spark, settings(folder), "run")
    write_events(made, FIRST_EVENTS)
    seen = [("i0", date(2024, 1, 1)), ("i1", date(2024, 2, 15))]
    rows = [(item, None, None, None, "h", first, None) for item, first in seen]
    made.append(items.TABLE, spark.createDataFrame(rows, items.TABLE.schema))
    made.append(index.ITEM_INDEX, spark.createDataFrame([("i0", 0), ("i1", 1)], index.ITEM_INDEX.schema))
    return made


def write_events(store: Store, first_events: dict[str, date]) -> None:
    """Of each user one event. `cold`, who has none, is numbered as if source.users gave a list."""
    scenario, _, *middle, _ = hand_made.event("u0", "i0", OLD)
    events = [(scenario, user, *middle, day) for user, day in first_events.items()]
    numbers = [(user, n) for n, user in enumerate((*first_events, "cold"))]
    create = store.spark.createDataFrame
    store.replace(index.USER_INDEX, create(numbers, index.USER_INDEX.schema))
    store.replace(interactions.TABLE, create(events, interactions.TABLE.schema))


class Night(NamedTuple):
    """A world on which the stage has run, to be read alone."""

    folder: Path
    store: Store
    config: Config
    summary: Summary


@pytest.fixture(scope="module")
def night(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("features")
    store, config = write_world(folder, spark), settings(folder)
    return Night(folder, store, config, stage.refresh(store, config, RUN_DATE))


def folders(store: Store, config: Config) -> list[str]:
    """Of tonight, PAST and OLD."""
    return [str(folder_of(store, config, day)) for day in (RUN_DATE, PAST, OLD)]


def ages(store: Store, config: Config, day: date) -> list[float | None]:
    """Of the users 0 to 4, of whom the last has no number."""
    folder = folder_of(store, config, day)
    assert folder is not None
    found = FeatureBook({as_of_day(day): folder}).look_up(USERS, np.arange(5), np.full(5, as_of_day(day)))
    return [None if np.isnan(value) else value for value in found.numbers[:, 0].tolist()]


def test_each_date_has_what_was_known_before_it(night: Night) -> None:
    """u0 is 31 from the 20th on; the 99 of tonight's day is later. u1 came on the 14th, u2 on the 28th; cold has no
    event, so is known tonight alone. The stranger has no number."""
    _, store, config, summary = night
    assert [ages(store, config, day) for day in (OLD, PAST, RUN_DATE)] == [
        [30.0, None, None, None, None], [30.0, 20.0, None, None, None], [31.0, 20.0, 40.0, 50.0, None],
    ]  # fmt: skip
    assert (summary.rows_out, summary.skipped) == (3, False)
    # likes: u0 war, u1 t0 to t19, cold war; u2 none
    assert summary.note == (
        "users.age known of 100%, 4 different, users.likes known of 75%, 21 different, "
        "items.brand known of 100%, 2 different; "
        "2 rows of source.users left out: no usable id, or a time that cannot be read; "
        "source.users.features.likes: more than 20 texts in 1 rows, cut"
    )
    book = FeatureBook(dict(enumerate(folders(store, config)[::-1])))
    brands = book.look_up(ITEMS, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))  # i1 is known from the 15th on
    assert np.diff(brands.offsets[0]).tolist() == [1, 0, 1, 1]
    likes = book.look_up(USERS, np.array([1, 0, 0]), np.array([2, 2, 0]))
    assert np.diff(likes.offsets[0]).tolist() == [20, 1, 2]
    assert book.names[USERS].numbers == ("age",)


def test_the_tables_are_as_the_sources_say(night: Night) -> None:
    """Also rows of ids that no event has: they may come."""
    found = night.store.read(table.USER_FEATURES).where(f"{c.USER_ID} <> 'u1'").orderBy(*table.USER_FEATURES.key)
    assert [(r.user_id, str(r.known_from)[:10], r.numbers, r.categories) for r in found.collect()] == [
        ("cold", "2024-01-05", {"age": 50.0}, {"likes": ["war"]}),
        ("stranger", "None", {"age": 60.0}, {}),
        ("u0", "2024-01-05", {"age": 30.0}, {"likes": ["war", "drama"]}),
        ("u0", "2024-02-20", {"age": 31.0}, {"likes": ["war"]}),
        ("u0", "2024-03-01", {"age": 99.0}, {}),
        ("u2", "2024-01-05", {"age": 40.0}, {}),
    ]
    assert {r.item_id: r.categories["brand"] for r in night.store.read(table.ITEM_FEATURES).collect()} == {
        "i0": ["acme"], "i1": ["umbra"], "i9": ["acme"],
    }  # fmt: skip


def test_the_same_night_again_reads_and_joins_nothing(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "read", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(stage, "_build", lambda *_: pytest.fail("joined again"))
    again = stage.refresh(night.store, night.config, RUN_DATE)
    assert again.skipped and night.summary.note.startswith(again.note)


def test_only_what_changed_is_built(night: Night, tmp_path: Path) -> None:
    """The same rows in other files, and other keys of the sources, build nothing; a new user and a value of later
    tonight's folder alone."""
    shutil.copytree(night.folder, tmp_path, dirs_exist_ok=True)
    other = settings(tmp_path, users={"scenario": "'home'"}, items={"text": "brand"})
    store = Store(night.store.spark, other, "run")
    versions = [store.version(one) for one in table.TABLES.values()]
    assert stage.refresh(store, other, RUN_DATE).rows_out == 0
    assert [store.version(one) for one in table.TABLES.values()] == versions
    before = folders(store, other)

    write_people(tmp_path, [*PEOPLE, {"who": "new", "age": 5}, {"who": "u0", "at": "2024-02-19", "age": 32}])
    numbers = store.spark.createDataFrame([("new", 4)], index.USER_INDEX.schema)
    store.append(index.USER_INDEX, numbers)
    event = ("DE", "new", *hand_made.event("u0", "i0", date(2024, 2, 29))[2:])
    store.append(interactions.TABLE, store.spark.createDataFrame([event], interactions.TABLE.schema))
    assert stage.refresh(store, other, RUN_DATE).rows_out == 1
    after = folders(store, other)
    assert after[1:] == before[1:] and after[0] != before[0]
    assert ages(store, other, RUN_DATE) == [31.0, 20.0, 40.0, 50.0, 5.0]


def test_without_a_feature_nothing_is_done(spark: Any, tmp_path: Path) -> None:
    config = settings(tmp_path, users={"features": {}, "scenario": "'home'"}, items={"features": {}})
    summary = stage.refresh(Store(spark, config, "run"), config, RUN_DATE)
    assert summary.skipped and summary.note == "not configured"
    assert not (tmp_path / "w").exists()


def test_features_that_teach_nothing_are_named(spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One value everywhere, no value at all, and a text of its own in each of 60 rows; a number of its own is usual."""
    people = [
        {"who": f"u{n}", "name": f"name {n}", "land": "de", "job": f"job {n % 7}", "none": "", "height": n}
        for n in range(60)
    ]
    write_people(tmp_path, people)
    store = Store(spark, settings(tmp_path), "run")
    write_events(store, {f"u{n}": OLD for n in range(60)})
    features = {name: {"kind": "category", "sql": name} for name in ("name", "land", "job", "none")}
    features["height"] = {"kind": "number", "sql": "height"}
    config = settings(tmp_path, users={"features": features, "event_time": None}, items={"features": {}})
    with caplog.at_level(logging.WARNING):
        summary = stage.refresh(store, config, RUN_DATE)
    said = [record.getMessage() for record in caplog.records if record.name == stage.__name__]
    assert said == [
        "source.users.features.land: one value everywhere, so nothing can be learnt from it",
        "source.users.features.name: nearly every text stands once, like an id; a coarser one teaches more",
        "source.users.features.none: no value tonight; is the expression right?",
    ]
    assert "users.job known of 100%, 7 different" in summary.note and "users.none known of 0%" in summary.note
    assert not store.exists(table.ITEM_FEATURES)


def test_a_mistake_writes_nothing(spark: Any, tmp_path: Path) -> None:
    write_people(tmp_path, PEOPLE)
    wrong = settings(tmp_path, users={"features": {"age": {"kind": "number", "sql": "agee"}}})
    with pytest.raises(SchemaError, match=r"source\.users\.features\.age\.sql: column agee .* did you mean age\?"):
        stage.refresh(Store(spark, wrong, "run"), wrong, RUN_DATE)
    assert not (tmp_path / "w").exists()


def test_an_erased_user_has_no_features_in_old_folders_and_new_ones(spark: Any, night: Night, tmp_path: Path) -> None:
    """The source still has u0, but is not read again until it changes. The content of all dates is another one now."""
    shutil.copytree(night.folder / "w", tmp_path / "w")
    config = settings(night.folder, tmp_path / "w")
    lines = list(erase(Store(spark, config, "erase"), config, ["u0"]))
    assert f"{table.USER_FEATURES.noun}: 3 rows deleted" in lines
    assert "models/given_features: 3 rows of features, in 3 of 3 folders" in lines
    store = Store(spark, config, "night")
    assert store.read(table.USER_FEATURES).where("user_id = 'u0'").isEmpty()
    left = [[None] * 5, [None, 20.0, None, None, None], [None, 20.0, 40.0, 50.0, None]]
    assert [ages(store, config, day) for day in (OLD, PAST, RUN_DATE)] == left
    assert stage.refresh(store, config, RUN_DATE).rows_out == 3
    assert [ages(store, config, day) for day in (OLD, PAST, RUN_DATE)] == left
    assert store.read(table.USER_FEATURES).where("user_id = 'u0'").isEmpty()
