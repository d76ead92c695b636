"""Facts of hand-made items: their rows, no work for unchanged items, and each mistake as one line."""

from datetime import date

import pytest

from recspark.errors import ConfigError, SchemaError
from recspark.stages import item_facts as stage
from recspark.tables import item_facts, items
from recspark.warehouse.store import Store
from tests.stages import hand_made

TONIGHT = date(2024, 3, 1)
RELATIONS = {
    "genre": "split(attributes['genres'], '[|]')",
    "brand": "attributes['brand']",
    "stock": "CAST(attributes['stock'] AS INT)",
    "word": "split(lower(text), ' ')",
}
ITEMS = [
    ("a", "Red mug red", {"genres": " drama |war| |war", "brand": " x "}),
    ("b", None, {"genres": "", "brand": "   ", "stock": "5"}),
    ("c", None, {}),
]
FACTS = {
    ("a", "genre", "drama"),
    ("a", "genre", "war"),
    ("a", "brand", "x"),
    ("a", "word", "red"),
    ("a", "word", "mug"),
    ("b", "stock", "5"),
}


def config(warehouse, relations=RELATIONS):
    return hand_made.config(warehouse, item_facts=relations and {"relations": relations})


@pytest.fixture
def store(spark, tmp_path):
    made = Store(spark, config(tmp_path), "run")
    write(made, ITEMS)
    return made


def write(store, rows):
    listed = [(i, text, held, None, "h", TONIGHT, None) for i, text, held in rows]
    store.replace(items.TABLE, store.spark.createDataFrame(listed, items.TABLE.schema))


def found(store):
    return sorted(tuple(row) for row in store.read(item_facts.TABLE).collect())


def test_trimmed_without_blanks_and_each_once(store):
    summary = stage.refresh(store, config(store.warehouse), TONIGHT)
    assert found(store) == sorted(FACTS)
    assert (summary.rows_in, summary.rows_out, summary.skipped) == (3, 6, False)
    assert summary.note == "genre 2, brand 1, stock 1, word 2"


def test_rebuilt_only_when_items_or_expressions_change(store):
    settings = config(store.warehouse)
    stage.refresh(store, settings, TONIGHT)
    assert stage.refresh(store, settings, TONIGHT).skipped
    assert not stage.refresh(store, settings, TONIGHT, force=True).skipped
    write(store, [("a", None, {"brand": "y"}), *ITEMS[1:]])  # facts that no longer hold are removed
    assert not stage.refresh(store, settings, TONIGHT).skipped
    assert found(store) == [("a", "brand", "y"), ("b", "stock", "5")]
    fewer = config(store.warehouse, {"brand": RELATIONS["brand"]})
    assert stage.refresh(store, fewer, TONIGHT).rows_out == 1
    assert found(store) == [("a", "brand", "y")]


def test_without_the_section_there_is_no_work_and_no_table(store):
    assert stage.refresh(store, config(store.warehouse, None), TONIGHT).skipped
    assert not store.exists(item_facts.TABLE)


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        ("genres", SchemaError, r"item_facts.relations.r: column genres is not in the table items; .* first_seen"),
        ("split(text", ConfigError, r"item_facts.relations.r: `split\(text` is not Spark SQL"),
        ("attributes", SchemaError, r"relations.r: .* is of type map.* expected a plain value or an array of them"),
        ("array(attributes)", SchemaError, r"relations.r: .* is of type array<map"),
        ("max(text)", ConfigError, r"item_facts.relations.r: cannot be evaluated over the table items"),
        ("split(text, '(')", ConfigError, r"item_facts.relations.r: cannot be evaluated over the table items"),
    ],
)
def test_mistakes_name_the_key(store, sql, error, message):
    with pytest.raises(error, match=message) as raised:
        stage.refresh(store, config(store.warehouse, {"r": sql}), TONIGHT)
    assert raised.value.exit_code == 2 and len(str(raised.value).splitlines()) == 1
