"""Old versions of a table are gone from its files and its log, and the table goes on."""

from recspark.config.schema import Config
from recspark.warehouse.old_versions import forget_log, vacuum
from recspark.warehouse.store import Store, Table

PEOPLE = Table("people", "user_id string, n int", ("user_id",))
SOURCE = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}


def test_nothing_of_an_erased_row_remains(spark, tmp_path):
    config = Config.model_validate({"warehouse": str(tmp_path), "source": {"interactions": SOURCE}})
    store = Store(spark, config, "run")
    for n in range(3):
        rows = [(name, n) for name in ("planted@example.org", f"other-{n}")]
        store.append(PEOPLE, spark.createDataFrame(rows, PEOPLE.schema))
    gone = spark.createDataFrame([("planted@example.org",)], "user_id string")
    token = store.token(PEOPLE)
    assert store.erase(PEOPLE, gone) == 3
    assert store.erase(PEOPLE, gone) == 0  # and no commit
    assert store.token(PEOPLE) != token
    before = sorted(map(tuple, store.read(PEOPLE).collect()))
    vacuum(store, PEOPLE, 0.0)
    assert any(
        b"planted" in file.read_bytes() for file in tmp_path.rglob("*.json")
    )  # statistics of files that are gone
    forget_log(store, PEOPLE)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files and not [file for file in files if b"planted" in file.read_bytes()]

    assert sorted(map(tuple, store.read(PEOPLE).collect())) == before
    assert [len(store.files(PEOPLE, store.version(PEOPLE)))] == [len(store.read(PEOPLE).inputFiles())]
    store.append(PEOPLE, spark.createDataFrame([("new", 1)], PEOPLE.schema))
    store.save_states()
    other = Store(spark.newSession(), config, "next")
    assert other.read(PEOPLE).count() == len(before) + 1
    assert other.token(PEOPLE) == store.token(PEOPLE)


def test_what_was_made_from_the_table_stays_fresh(spark, tmp_path):
    """Also if nothing has looked at the table since, as in a run of maintenance alone."""
    config = Config.model_validate({"warehouse": str(tmp_path), "source": {"interactions": SOURCE}})
    store = Store(spark, config, "run")
    store.append(PEOPLE, spark.createDataFrame([("a", 1)], PEOPLE.schema), {"fingerprint": "f"})
    store.erase(PEOPLE, spark.createDataFrame([("a",)], "user_id string"))
    assert store.is_fresh(PEOPLE, "f")
    store.save_states()
    vacuum(Store(spark, config, "maintenance"), PEOPLE, 0.0)
    forget_log(Store(spark, config, "maintenance"), PEOPLE)
    later = Store(spark, config, "next")
    assert later.is_fresh(PEOPLE, "f") and later.token(PEOPLE) == store.token(PEOPLE)
