"""A user is taken out of a whole warehouse: no byte of it names them, and the next night builds nothing again."""

import contextlib
import io
import json
import re
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recspark import cli, commands
from recspark.config import load
from recspark.stages import erase as stage
from recspark.tables import candidates, index, recommendation_facts, rejected_events, training_examples
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.warehouse.store import Store
from tests.nights import THREE, only_countries
from tests.paths import CONF

USER = "12583"  # of France


def found_in(warehouse: Path, user: str) -> list[str]:
    """The files with this id in their bytes, or in a cell of a parquet file, which is compressed. A longer number that
    contains it by chance, such as a hash, is none."""
    named = re.compile(rf"(?<![0-9]){user}(?![0-9])".encode())
    files = [file for file in warehouse.rglob("*") if file.is_file()]
    return sorted(
        str(file.relative_to(warehouse))
        for file in files
        if named.search(file.read_bytes()) or (file.suffix == ".parquet" and named.search(_cells(file)))
    )


def _cells(file: Path) -> bytes:
    columns = [column for column in pq.ParquetFile(file).read().columns if _is_text(column.type)]
    return "\n".join(str(value) for column in columns for value in column.to_pylist()).encode()


def _is_text(kind: pa.DataType) -> bool:
    return not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_date(kind))


def command(warehouse: Path, *users: str, **options: object) -> tuple[int, str, str]:
    """(exit code, report, log) of `recspark erase`."""
    out, err = io.StringIO(), io.StringIO()
    chosen = [f"warehouse={warehouse}", *only_countries(THREE)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = commands.erase(CONF, list(users), set_=chosen, **options)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def night(spark, own_night, monkeypatch) -> Path:
    """The published night, with a row of the user in the tables in which it has none."""
    store = Store(spark, load.load(CONF, (f"warehouse={own_night}",)), "test")
    of_facts = (date(2011, 12, 9), "France", USER, "22326", "brand", "x", "22629", "run")
    facts = recommendation_facts.TABLE
    store.append(facts, spark.createDataFrame([of_facts], facts.schema))
    rejected = (date(2011, 12, 9), "unparsable value", 1, json.dumps({"who": USER, "price": "5d"}))
    other = (date(2011, 12, 9), "unparsable value", 2, json.dumps({"who": f"{USER}7", "price": "5d"}))
    table = rejected_events.TABLE
    store.append(table, spark.createDataFrame([rejected, other], table.schema))
    store.save_states()
    return own_night


def test_no_byte_names_the_user_and_nothing_is_built_again(spark, night, run_night):
    config = load.load(CONF, (f"warehouse={night}", *only_countries(THREE)))
    store = Store(spark, config, "test")
    number = store.read(index.USER_INDEX).where(f"user_id = '{USER}'").collect()[0].user_idx
    examples = training_examples.table(config.training_examples.tasks)
    before = {t.noun: store.read(t).count() for t in (INTERACTIONS, candidates.TABLE, examples, index.USER_INDEX)}
    kept = store.read(INTERACTIONS).where(f"user_id <> '{USER}'").count()
    ids = {row.user_idx: row.user_id for row in store.read(index.USER_INDEX).collect()}

    code, report, log = command(night, USER)
    assert code == 0, log
    assert USER not in log and USER not in report
    for place in ("interactions", "recommendations", "recommendation_facts: 1 rows", "rejected_events",
                  "candidates", "training_examples", "models/histories", "user_index: 1 of 1",
                  "source.interactions: still has"):  # fmt: skip
        assert place in report, report
    store = Store(spark, config, "test")
    assert store.read(INTERACTIONS).count() == kept < before["interactions"]
    for table in (candidates.TABLE, examples):
        assert 0 < store.read(table).count() < before[table.noun]
        assert store.read(table).where(f"user_idx = {number}").count() == 0
    now = {row.user_idx: row.user_id for row in store.read(index.USER_INDEX).collect()}
    assert now.pop(number).startswith(stage.TOMBSTONE) and now == {n: one for n, one in ids.items() if n != number}
    for folder in (night / "models/histories").glob("*/shard-0"):
        assert np.diff(np.load(folder / "offsets.npy"))[number] == 0
    assert found_in(night, USER)  # old versions

    # the source has deleted the user, and the same night comes again
    where = f"source.interactions.where=({THREE}) AND (CustomerID IS NULL OR CustomerID <> {USER})"
    again = run_night(night, where)
    assert again.code == 0, again.stderr[-3000:]
    stages = again.result["stages"]
    built = {name for name, one in stages.items() if not one["skipped"]}
    assert built <= {"interactions", "night_statistics"}, {name: stages[name]["note"] for name in built}
    assert store.read(index.USER_INDEX).count() == before["user_index"]

    # maintenance ends it, whenever the retention has passed
    overrides = (f"warehouse={night}", *only_countries(THREE), "maintenance.retention_hours=0")
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.run(("maintenance",), CONF, "2011-12-10", overrides) == 0
    assert found_in(night, USER) == []
    assert store.read(rejected_events.TABLE).where("row_hash = 2").count() == 1  # of user 125837


def test_rejected_rows_that_name_a_user_as_a_word(spark, tmp_path):
    config = load.load(CONF, (f"warehouse={tmp_path}",))
    store = Store(spark, config, "test")
    user, quoted = "Ann.Lee@example.org", 'say "hi"\\'
    raw = [
        {"who": user}, {"who": "ann.lee@EXAMPLE.org", "n": 1}, {"_malformed_row": f"shop,{user},i05"},
        {"_malformed_row": json.dumps({"who": quoted})}, {"who": quoted},
        {"who": f"x{user}"}, {"who": f"{user}1"}, {"who": "AnnXLee@example.org"}, {"who": None},
    ]  # fmt: skip
    rows = [(date(2024, 1, 1), "null item_id", n, json.dumps(row)) for n, row in enumerate(raw)]
    store.append(rejected_events.TABLE, spark.createDataFrame(rows, rejected_events.TABLE.schema).coalesce(1))
    assert stage._rejected(store, [user, quoted, "nobody"]) == 5
    assert sorted(row.row_hash for row in store.read(rejected_events.TABLE).collect()) == [5, 6, 7, 8]
    log = "".join(file.read_text() for file in tmp_path.rglob("0*1.json"))
    assert log and "ann" not in log.lower()


@pytest.mark.parametrize("users", [[], [" "], ["__default__"]])
def test_without_a_user_nothing_is_begun(tmp_path, users):
    code, report, log = command(tmp_path / "none", *users)
    assert (code, report) == (2, "") and "expected --user with ids of the source" in log


def test_a_file_of_ids_and_an_empty_warehouse(spark, tmp_path):
    (tmp_path / "ids.txt").write_text("a\n\n b \n")
    code, report, log = command(tmp_path / "none", users=str(tmp_path / "ids.txt"), vacuum=True)
    assert (code, report) == (0, "old versions of 0 tables removed: nothing remains in the warehouse\n"), log
    code, _, log = command(tmp_path / "none", users=str(tmp_path / "gone.txt"))
    assert code == 2 and "--users" in log
