"""Which catalogue row counts, since when an item is known, and that unchanged items are not written again."""

from dataclasses import replace
from datetime import date

import pytest

from recspark import columns as c
from recspark import pipeline
from recspark.config.schema import Config
from recspark.config.sources import ItemSource
from recspark.errors import SchemaError
from recspark.sources import catalogue
from recspark.stages import interactions as interactions_stage
from recspark.stages import items as items_stage
from recspark.tables import index, items
from recspark.warehouse.store import Store

RUN_DATE = date(2024, 1, 3)
SOURCE = ItemSource(format="csv", paths=("x",), item_id="id", text="title", attributes={"brand": "b"}, event_time="day")
COLUMNS = "id string, title string, b string, day string"


def newest(spark, rows, **changes):
    source = SOURCE.model_copy(update=changes)
    frame = catalogue.parse(spark.createDataFrame(rows, COLUMNS), source, RUN_DATE)
    return catalogue.newest(frame, source)


def found(rows):
    return {r.item_id: r for r in rows.collect()}


def sold(spark, *pairs):
    return spark.createDataFrame([(i, date.fromisoformat(d)) for i, d in pairs], "item_id string, event_date date")


CATALOGUE = [
    ("a", "old a", "x", "2024-01-01"),
    ("a", "new a", "y", "2024-01-02"),
    ("a", "tomorrow's a", "z", "2024-01-03"),  # not before run_date
    ("a", "undated a", "z", None),
    ("b", None, None, "2024-01-02"),
    ("b", " named b ", None, "2024-01-02"),
    ("c", "   ", None, None),
    (" ", "nameless", None, None),
]


@pytest.mark.parametrize(("keep", "text", "brand"), [("last", "new a", "y"), ("first", "old a", "x")])
def test_newest_or_oldest_row_counts(spark, keep, text, brand):
    rows = found(newest(spark, CATALOGUE, keep=keep))
    assert set(rows) == {"a", "b", "c"}
    assert (rows["a"].text, rows["a"].attributes, rows["a"].first_seen) == (text, {"brand": brand}, date(2024, 1, 1))
    assert (rows["b"].text, rows["b"].attributes) == ("named b", {})  # of two at a time the one with a text
    assert (rows["c"].text, rows["c"].first_seen) == (None, None)
    assert found(newest(spark, CATALOGUE[::-1], keep=keep)) == rows


@pytest.mark.parametrize("keep", ["last", "first"])
def test_a_row_that_comes_again_counts_at_each_of_its_times(spark, keep):
    """A stood there on the days 1 and 4, B on 2 and 3: A is both the newest and the oldest."""
    rows = [("a", text, None, f"2023-12-0{day}") for text, day in (("B", 2), ("A", 1), ("B", 3), ("A", 4), ("A", 1))]
    row = found(newest(spark, rows, keep=keep))["a"]
    assert (row.text, row.first_seen) == ("A", date(2023, 12, 1))


def test_a_misspelt_attribute_names_its_key(spark):
    with pytest.raises(SchemaError, match=r"source\.items\.attributes\.brand: column bb is not in"):
        newest(spark, CATALOGUE, attributes={"brand": "bb"})


def test_first_seen_is_the_earliest_date_known(spark):
    listed = newest(spark, CATALOGUE)
    days = [("a", "2024-01-01"), ("a", "2023-12-31"), ("b", "2024-01-02"), ("z", "2024-01-01"), ("z", "2024-01-02")]
    built = items.build(listed, sold(spark, *days), None, RUN_DATE).persist()
    rows = found(built)
    assert built.count() == len(rows) == 4  # an item of two days is one row
    assert {i: r.first_seen for i, r in rows.items()} == {
        "a": date(2023, 12, 31),  # sold before it stood in the catalogue
        "b": date(2024, 1, 2),
        "c": date(2024, 1, 2),  # no date at all: the day before run_date, so that tonight knows it
        "z": date(2024, 1, 1),  # in events only
    }
    assert (rows["z"].text, rows["z"].attributes) == (None, {})
    assert items.build(listed, sold(spark), None, RUN_DATE).dtypes == [
        (f.name, f.dataType.simpleString()) for f in items.TABLE.schema
    ]


def test_only_new_and_changed_items_are_written(spark):
    events = sold(spark, ("a", "2024-01-01"), ("z", "2024-01-01"))
    stored = items.build(newest(spark, CATALOGUE), events, None, RUN_DATE).persist()
    before = found(stored)
    assert items.build(newest(spark, CATALOGUE), events, stored, RUN_DATE).count() == 0
    assert items.build(newest(spark, CATALOGUE), events, stored, date(2024, 1, 9)).count() == 0  # c keeps its date

    other = [("a", "other a", "y", "2024-01-02"), ("d", "d", None, "2024-01-02")]  # b and c left the catalogue
    more = sold(spark, ("a", "2024-01-01"), ("z", "2023-01-01"))
    rows = found(items.build(newest(spark, other), more, stored, RUN_DATE))
    assert {i: (r.text, r.first_seen) for i, r in rows.items()} == {
        "a": ("other a", date(2024, 1, 1)),
        "d": ("d", date(2024, 1, 2)),
        "z": (None, date(2023, 1, 1)),  # an earlier event arrived
    }
    assert rows["z"].content_hash == before["z"].content_hash
    assert rows["a"].content_hash != before["a"].content_hash
    # without events it is known from the catalogue alone, and what is stored never moves later
    assert items.build(newest(spark, CATALOGUE), sold(spark), stored, RUN_DATE).count() == 0


def test_content_hash_is_that_of_text_and_media(spark):
    rows = [
        (i, text, brand, None)
        for i, text, brand in (("a", "t", "x"), ("b", "t", "x"), ("c", "t", "y"), ("d", "u", "x"))
    ]
    built = items.build(newest(spark, rows), sold(spark), None, RUN_DATE).persist()
    hashes = {i: r.content_hash for i, r in found(built).items()}
    assert hashes["a"] == hashes["b"] == hashes["c"] != hashes["d"]

    sold_out = [(i, text, "none left" if i == "a" else brand, None) for i, text, brand, _ in rows]
    changed = found(items.build(newest(spark, sold_out), sold(spark), built, RUN_DATE))
    assert {i: (r.attributes, r.content_hash) for i, r in changed.items()} == {
        "a": ({"brand": "none left"}, hashes["a"])
    }


def test_a_name_is_no_content(spark):
    """Another name writes the row again, and embeds nothing again; an item that left keeps its name."""
    named = newest(spark, CATALOGUE, name="concat('The ', b)")
    rows = found(items.build(named, sold(spark), None, RUN_DATE))
    assert {i: r.name for i, r in rows.items()} == {"a": "The y", "b": None, "c": None}
    stored = items.build(newest(spark, CATALOGUE), sold(spark), None, RUN_DATE).persist()
    changed = items.build(named, sold(spark), stored, RUN_DATE)
    assert {i: (r.name, r.content_hash) for i, r in found(changed).items()} == {"a": ("The y", rows["a"].content_hash)}
    assert (
        items.build(newest(spark, CATALOGUE[4:], name="b"), sold(spark), changed, RUN_DATE)
        .where("item_id = 'a'")
        .count()
        == 0
    )


def test_a_warehouse_of_an_earlier_version_gets_the_names(spark, tmp_path):
    """Its table has no column `name`. A run adds it, which makes no other table old, and then writes it."""
    (tmp_path / "events.csv").write_text("s,u,i,t\nfr,ann,a,2024-01-01\n")
    (tmp_path / "items.csv").write_text("id,title\na,A. Crime.\n")
    csv = {"format": "csv", "options": {"header": "true"}}
    columns = {"scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    events = {**csv, **columns, "paths": [f"{tmp_path}/events.csv"]}
    listed = {**csv, "paths": [f"{tmp_path}/items.csv"], "item_id": "id", "text": "title"}
    base = {"warehouse": f"{tmp_path}/w", "source": {"interactions": events, "items": listed}}
    old = Config.model_validate(base)
    store = Store(spark, old, "old")
    interactions_stage.refresh(store, old, RUN_DATE)
    ddl = items.TABLE.ddl.removesuffix(", name string")
    rows = [("a", "A. Crime.", {}, None, "h", date(2024, 1, 1))]
    store.append(replace(items.TABLE, ddl=ddl), spark.createDataFrame(rows, ddl))
    before = store.token(items.TABLE)

    config = Config.model_validate(base | {"source": {"interactions": events, "items": listed | {"name": "'A'"}}})
    store = Store(spark, config, "new")
    pipeline._begin(store, config, False)
    assert (store.token(items.TABLE), store.read(items.TABLE).columns) == (before, items.TABLE.columns)
    items_stage.refresh(store, config, RUN_DATE)
    assert [(r.item_id, r.name) for r in store.read(items.TABLE).collect()] == [("a", "A")]


def test_refresh_commits_only_changes(spark, tmp_path):
    (tmp_path / "events.csv").write_text("s,u,i,t\nfr,ann,a,2024-01-01\nfr,ann,z,2024-01-02\n")
    (tmp_path / "items.csv").write_text("id,title\na,A\nb,B\n")
    csv = {"format": "csv", "options": {"header": "true"}}
    events = {
        **csv,
        "paths": [str(tmp_path / "events.csv")],
        "scenario": "s",
        "user_id": "u",
        "item_id": "i",
        "event_time": "t",
    }
    listed = {**csv, "paths": [str(tmp_path / "items.csv")], "item_id": "id", "text": "title"}
    config = Config.model_validate(
        {"warehouse": str(tmp_path / "w"), "source": {"interactions": events, "items": listed}}
    )

    def refreshed(force=False):
        store = Store(spark, config, "run")
        return items_stage.refresh(store, config, RUN_DATE, force), store

    interactions_stage.refresh(Store(spark, config, "run"), config, RUN_DATE)
    summary, store = refreshed()
    assert (summary.rows_in, summary.rows_out, summary.note) == (3, 3, "3 new or changed, 1 of them without text")
    assert {r.item_id: r.item_idx for r in store.read(index.ITEM_INDEX).collect()} == {"a": 0, "b": 1, "z": 2}
    summary, store = refreshed()
    assert summary.skipped
    summary, store = refreshed(force=True)
    assert not summary.skipped and [store.version(t) for t in (items.TABLE, index.ITEM_INDEX)] == [0, 0]

    (tmp_path / "items.csv").write_text("id,title\na,A\nb,other B\n0,zero\n1,\n")
    summary, store = refreshed()
    assert (summary.rows_in, summary.rows_out, summary.note) == (3, 5, "3 new or changed, 1 of them without text")
    numbers = {r.item_id: r.item_idx for r in store.read(index.ITEM_INDEX).collect()}
    assert numbers == {"a": 0, "b": 1, "z": 2, "0": 3, "1": 4}
    assert found(store.read(items.TABLE))["b"][c.TEXT] == "other B"
