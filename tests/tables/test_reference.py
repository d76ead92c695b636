"""docs/tables.md says what the contracts say, and every table of a warehouse has the same comments."""

import importlib
from pathlib import Path
from typing import Any

from recspark.features import FEATURES, meaning
from recspark.tables import reference
from recspark.warehouse.store import Table

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_not_stale() -> None:
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert page == reference.tables(), "run: recspark describe tables > docs/tables.md"


def test_every_table_that_is_defined_is_on_the_page() -> None:
    """But histories, which is never stored. What maintenance tidies is the same list."""
    defined = set()
    for file in Path(reference.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"recspark.tables.{file.stem}")
        defined |= {value.noun for value in vars(module).values() if isinstance(value, Table)}
    assert defined - {"histories"} == {table.noun for table in reference.TABLES}
    assert "## `training_examples`" in reference.tables()


def test_every_table_and_column_says_what_it_means() -> None:
    for table in reference.TABLES:
        assert table.row, table.noun
        for name, _ in reference.fields(table.ddl):
            assert len(table.comment(name)) > 8, (table.noun, name)
        strangers = set(table.comments) - {name for name, _ in reference.fields(table.ddl)}
        assert not strangers, (table.noun, strangers)


def test_the_features_window_stands_in_its_meaning() -> None:
    assert "the last 28 days" in meaning("item_count_28") and "all days" in meaning("item_new_count_all")
    assert len({meaning(name) for name in FEATURES if not name.endswith("_share")}) > len(FEATURES) - 20


def test_a_column_is_a_row_of_the_page() -> None:
    table = Table(
        "t", "a map<string,bigint>, run_date date", ("a",), ("a",), row="A thing.", comments={"a": "It. Example: 3"}
    )
    assert reference.fields(table.ddl) == [("a", "map<string,bigint>"), ("run_date", "date")]
    lines = reference.section(table).splitlines()
    assert lines[2] == "A thing. Key: `a`. Partitioned by `a`."
    assert lines[6] == "| `a` | map<string,bigint> | It. | `3` |" and lines[7].startswith(
        "| `run_date` | date | The night"
    )


def test_spark_reads_the_contracts_as_we_do(spark: Any) -> None:
    for table in reference.TABLES:
        assert [name for name, _ in reference.fields(table.ddl)] == table.columns
