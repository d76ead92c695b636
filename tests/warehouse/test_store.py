"""Locations of tables, replaced slices, versions, fingerprints and content digests."""

import json
import shutil
import threading
import time
from datetime import date, datetime

import pytest
from pyspark.sql import functions as F

from recspark.config.schema import Config
from recspark.errors import BusyError, DataError, SchemaError
from recspark.warehouse import lease
from recspark.warehouse.digests import day_digests, row_hash
from recspark.warehouse.store import Store, Table

THINGS = Table("things", "day date, id string, n int", ("id",), ("day",))
FIRST = [(date(2024, 1, 1), "a", 1), (date(2024, 1, 2), "b", 2)]


def make(spark, tmp_path, held=None, **more):
    source = {"format": "csv", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    config = Config.model_validate({"warehouse": f"{tmp_path}/", "source": {"interactions": source}, **more})
    return Store(spark, config, "r1", held)


def rows(spark, values):
    return spark.createDataFrame(values, THINGS.ddl)


def ids(frame):
    return sorted(r.id for r in frame.collect())


def test_the_columns_have_comments(spark, tmp_path):
    """Of a new table, and by `comment` of one that an earlier version made; no stage runs again for it."""
    named = Table("things", THINGS.ddl, ("id",), ("day",), comments={"id": "It's \\\\ a thing", "n": "How many"})

    def comments(store):
        return {
            row.col_name: row.comment for row in spark.sql(f"DESCRIBE delta.`{store.name('things')}`").collect()[:3]
        }

    new = make(spark, tmp_path / "new")
    new.replace(named, rows(spark, FIRST))
    assert comments(new)["id"] == "It's \\\\ a thing" and comments(new)["n"] == "How many" and not new.comment(named)
    old = make(spark, tmp_path / "old")
    old.replace(THINGS, rows(spark, FIRST))
    token = old.token(THINGS)
    assert old.comment(named) and comments(old) == comments(new) and not old.comment(named)
    assert make(spark, tmp_path / "old").token(THINGS) == token and ids(old.read(named)) == ["a", "b"]


def test_life_of_a_table(spark, tmp_path):
    """Created, a slice replaced, merged, read back at a version, and stamped; a new Store sees the same."""
    store = make(spark, tmp_path)
    assert store.name("things") == f"{tmp_path}/things" and store.models("ranker") == f"{tmp_path}/models/ranker"
    with pytest.raises(DataError, match=r"things does not exist; run jobs/things\.py"):
        store.read(THINGS)
    with pytest.raises(DataError, match=r"things does not exist; run jobs/things\.py"):
        store.digest(THINGS, "day", date(2024, 1, 2))
    assert store.token(THINGS) == "absent" and store.stamp(THINGS) is None and not store.is_fresh(THINGS, "f1")

    assert store.replace(THINGS, rows(spark, FIRST), metadata={"fingerprint": "f1", "as_of": "2024-01-01"}) == 0
    token = store.token(THINGS)
    new = rows(spark, [(date(2024, 1, 2), "c", 3)])
    assert store.replace(THINGS, new, where="day = DATE'2024-01-02'", metadata={"fingerprint": "f2"}) == 1
    assert ids(store.read(THINGS)) == ["a", "c"] and ids(store.read(THINGS, 0)) == ["a", "b"]
    assert store.token(THINGS) != token

    merged = rows(spark, [(date(2024, 1, 1), "a", 10), (date(2024, 1, 3), "d", 4)])
    assert store.merge(THINGS, merged, {"fingerprint": "f3"}) == 2
    assert {r.id: r.n for r in store.read(THINGS).collect()} == {"a": 10, "c": 3, "d": 4}

    other = make(spark, tmp_path)
    assert other.version(THINGS) == 2 and other.token(THINGS) == store.token(THINGS)
    assert other.is_fresh(THINGS, "f3") and not other.is_fresh(THINGS, "f1")  # only the newest commit counts
    assert other.is_fresh(THINGS, "f1", as_of=date(2024, 1, 1))  # of that slice it is the newest
    assert other.stamp(THINGS, as_of="2024-01-01") == {
        "run_id": "r1", "fingerprint": "f1", "as_of": "2024-01-01", "version": 0, "format": 2,
    }  # fmt: skip
    assert spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None
    before = other.token(THINGS)
    other.delta(THINGS).optimize().executeCompaction()
    assert make(spark, tmp_path).token(THINGS) == before  # maintenance changes no rows

    day_files = store.files(THINGS, 2, {"day": "2024-01-02"})
    assert len(day_files) == 1 and set(day_files) < set(store.files(THINGS, 2))
    assert spark.read.parquet(day_files[0]).select("id").first()[0] == "c"


def test_ranges_of_key_and_dates_alone(spark, tmp_path):
    store = make(spark, tmp_path)
    store.replace(THINGS, rows(spark, FIRST))
    log = spark.read.json(f"{tmp_path}/things/_delta_log/*.json").where("add IS NOT NULL").select("add.stats")
    ranges = {tuple(json.loads(row.stats)["minValues"]) for row in log.collect()}
    assert ranges == {("id",)}  # `day` is the folder, `n` is neither key nor date
    assert store.read(THINGS).where("id = 'b'").collect() == [(date(2024, 1, 2), "b", 2)]


def test_a_retried_transaction_is_committed_once(spark, tmp_path):
    store = make(spark, tmp_path)
    store.append(THINGS, rows(spark, FIRST[:1]))
    for _ in range(2):
        store.replace(THINGS, rows(spark, FIRST[1:]), where="day = DATE'2024-01-02'", txn=("night", 1))
    assert store.version(THINGS) == 1 and ids(store.read(THINGS)) == ["a", "b"]


def test_rows_must_fit_the_contract(spark, tmp_path):
    with pytest.raises(AssertionError, match="things: built"):
        make(spark, tmp_path).append(THINGS, rows(spark, FIRST).select("id", "day", "n"))


def test_a_table_of_another_version_of_the_code(spark, tmp_path):
    store = make(spark, tmp_path)
    store.append(THINGS, rows(spark, FIRST))
    wider = Table("things", "day date, id string, n int, m int", ("id",), ("day",))
    with pytest.raises(SchemaError, match="has other columns than this version of recspark writes"):
        store.append(wider, rows(spark, FIRST).withColumn("m", F.lit(1)))


def test_tables_in_a_catalog(spark, tmp_path):
    spark.sql("CREATE SCHEMA IF NOT EXISTS shop")
    store = make(spark, tmp_path, catalog="spark_catalog.shop", tables={"things": "odd_things"})
    assert store.name("things") == "spark_catalog.shop.odd_things" and not store.exists(THINGS)
    store.replace(THINGS, rows(spark, FIRST), metadata={"fingerprint": "f1"})
    store.replace(THINGS, rows(spark, []), where="day = DATE'2024-01-02'")
    store.merge(THINGS, rows(spark, [(date(2024, 1, 1), "a", 5)]), {"fingerprint": "f2"})
    assert [tuple(r) for r in store.read(THINGS).collect()] == [(date(2024, 1, 1), "a", 5)]
    assert ids(store.read(THINGS, 0)) == ["a", "b"] and store.is_fresh(THINGS, "f2")
    spark.sql("DROP SCHEMA shop CASCADE")


def test_events_are_read_in_half_open_days(spark, tmp_path):
    events = Table("interactions", "event_time timestamp, event_date date", ("event_time",))
    store = make(spark, tmp_path)
    days = [datetime(2024, 1, d, 12) for d in (1, 2, 3)]
    store.append(events, spark.createDataFrame([(t, t.date()) for t in days], events.ddl))
    assert store.events(events, None, date(2024, 1, 3)).count() == 2
    assert store.events(events, date(2024, 1, 2), date(2024, 1, 3)).count() == 1


def test_digest_of_the_past_does_not_move_with_new_days(spark, tmp_path):
    store = make(spark, tmp_path)
    store.append(THINGS, rows(spark, FIRST))
    early, late = store.digest(THINGS, "day", date(2024, 1, 2)), store.digest(THINGS, "day", date(2024, 1, 3))
    store.append(THINGS, rows(spark, [(date(2024, 1, 2), "new", 9)]))
    assert store.digest(THINGS, "day", date(2024, 1, 2)) == early
    assert store.digest(THINGS, "day", date(2024, 1, 3)) != late


def test_digest_without_a_column_does_not_move_with_it(spark, tmp_path):
    store, end = make(spark, tmp_path), date(2024, 1, 3)
    store.replace(THINGS, rows(spark, FIRST))
    before = [store.digest(THINGS, "day", end, without) for without in ((), ("n",), ("id",))]
    store.merge(THINGS, rows(spark, [(date(2024, 1, 1), "a", 99)]))
    after = [store.digest(THINGS, "day", end, without) for without in ((), ("n",), ("id",))]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]


def test_day_digests_see_content_and_not_order(spark):
    one = rows(spark, FIRST)
    two = rows(spark, [*FIRST, (date(2024, 1, 2), "b", 2)])
    assert day_digests(one, "day") == day_digests(one.orderBy(F.desc("id")).repartition(2), "day")
    assert day_digests(one, "day")["2024-01-01"] == day_digests(two, "day")["2024-01-01"]
    assert day_digests(two, "day")["2024-01-02"].startswith("2:")


def test_row_hash_of_maps_and_nulls(spark):
    frame = spark.sql("SELECT map('x', '1', 'y', '2') AS m UNION ALL SELECT map('y', '2', 'x', '1')")
    assert len({r[0] for r in frame.select(row_hash(frame)).collect()}) == 1
    nulls = spark.createDataFrame([("a", None), (None, "a")], "x string, y string")
    assert len({r[0] for r in nulls.select(row_hash(nulls)).collect()}) == 2


def test_row_hash_takes_nested_columns_of_any_name(spark):
    frame = spark.range(2).select(
        F.struct("id").alias("odd `name`"), F.create_map(F.lit("k"), F.array("id")).alias("m")
    )
    assert len({r[0] for r in frame.select(row_hash(frame)).collect()}) == 2


def looked_at(spark, tmp_path):
    """A new run that has read the state of THINGS."""
    store = make(spark, tmp_path)
    store.token(THINGS)
    return store


def two_days(spark, tmp_path):
    """A store with a slice for each of two days; what is known of it is written down."""
    store = make(spark, tmp_path)
    for day, row in zip(("2024-01-01", "2024-01-02"), FIRST, strict=True):
        store.replace(
            THINGS, rows(spark, [row]), where=f"day = DATE'{day}'", metadata={"as_of": day, "fingerprint": day}
        )
    store.save_states()
    return store


def test_rows_that_others_deleted_are_made_again(spark, tmp_path):
    """The slice of a DELETE by hand is not fresh any more, nor is any other of its table: nobody knows which it was."""
    store = two_days(spark, tmp_path)
    assert looked_at(spark, tmp_path).is_fresh(THINGS, "2024-01-01", as_of="2024-01-01")
    spark.sql(f"DELETE FROM delta.`{store.name('things')}` WHERE day = DATE'2024-01-01'")
    later = looked_at(spark, tmp_path)
    assert not later.is_fresh(THINGS, "2024-01-01", as_of="2024-01-01") and later.stamp(THINGS) is None
    assert later.version(THINGS) == 2 and later.token(THINGS) != store.token(THINGS)


def test_our_own_delete_leaves_the_other_slices_fresh(spark, tmp_path):
    store = two_days(spark, tmp_path)
    store.delete(THINGS, F.col("day") == F.lit(date(2024, 1, 1)), ["as_of=2024-01-01"])
    for found in (store, looked_at(spark, tmp_path)):
        assert found.stamp(THINGS, as_of="2024-01-01") is None
        assert found.is_fresh(THINGS, "2024-01-02", as_of="2024-01-02")
    assert ids(store.read(THINGS)) == ["b"]


def test_a_table_whose_log_was_cleaned_is_still_known(spark, tmp_path):
    """Delta removes commits after thirty days, when a checkpoint has what they say. A table that changed no row since
    has no commit that says how it was made; the first version of recspark ended with an IndexError there."""
    store = two_days(spark, tmp_path)
    token, log = store.token(THINGS), tmp_path / "things" / "_delta_log"
    spark.sql(f"ALTER TABLE delta.`{store.name('things')}` SET TBLPROPERTIES ('note' = 'quiet')")
    looked_at(spark, tmp_path).save_states()  # as every night does
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, store.name("things")).checkpoint()
    assert list(log.glob("*2.checkpoint*.parquet"))
    for version in range(2):
        (log / f"{version:020d}.json").unlink()
        (log / f".{version:020d}.json.crc").unlink(missing_ok=True)
    later = looked_at(spark, tmp_path)
    assert later.token(THINGS) == token and later.is_fresh(THINGS, "2024-01-01", as_of="2024-01-01")
    for file in (tmp_path / "_state").iterdir():  # without what was written down: all is made again, and no error
        file.unlink()
    unknown = looked_at(spark, tmp_path)
    assert unknown.stamp(THINGS, as_of="2024-01-01") is None and unknown.token(THINGS) != token


def test_a_table_that_was_made_again_is_another_one(spark, tmp_path):
    token = two_days(spark, tmp_path).token(THINGS)
    shutil.rmtree(tmp_path / "things")
    store = make(spark, tmp_path)
    store.append(THINGS, rows(spark, FIRST))
    assert looked_at(spark, tmp_path).stamp(THINGS, as_of="2024-01-01") is None
    assert looked_at(spark, tmp_path).token(THINGS) != token


def held_by(warehouse, run_id):
    """A lease of the warehouse, without its heartbeat."""
    held = lease.acquire(str(warehouse), run_id)
    assert isinstance(held, lease.Held)
    return held


def test_a_run_that_lost_its_lease_commits_nothing_more(spark, tmp_path, monkeypatch):
    """Each kind of commit; the table, and what is written down of it, stay as the new holder knows them."""
    old = make(spark, tmp_path, held=held_by(tmp_path, "r1"))
    old.append(THINGS, rows(spark, FIRST), {"fingerprint": "f"})
    assert old.stamp(THINGS)["lease"] == 1
    monkeypatch.setattr(lease, "_runs", lambda pid: False)  # its process seems to be gone
    new = make(spark, tmp_path, held=held_by(tmp_path, "r2"))
    attempts = {
        "append": lambda: old.append(THINGS, rows(spark, FIRST)),
        "replace": lambda: old.replace(THINGS, rows(spark, FIRST[:1])),
        "merge": lambda: old.merge(THINGS, rows(spark, [(date(2024, 1, 1), "a", 10)])),
        "delete": lambda: old.delete(THINGS, F.col("id") == F.lit("a")),
        "states": old.save_states,
    }
    for name, attempt in attempts.items():
        with pytest.raises(BusyError, match=r"run r1 lost the lease of .* to another run"):
            attempt()
        assert new.history(THINGS)[0].version == 0 and not (tmp_path / "_state").exists(), name
    new.append(THINGS, rows(spark, []))


def test_a_write_that_began_before_the_lease_was_lost_fails_at_its_commit(spark, tmp_path, monkeypatch):
    """The machine of the old run slept in the middle of a long write; the new one has the warehouse when it wakes."""
    old = make(spark, tmp_path, held=held_by(tmp_path, "r1"))
    old.append(THINGS, rows(spark, FIRST))
    begun = tmp_path / "begun"

    def slow(batches):
        begun.touch()
        while not (tmp_path / "fenced").exists():
            time.sleep(0.05)
        yield from batches

    failed = []

    def write():
        try:
            old.append(THINGS, rows(spark, FIRST).mapInArrow(slow, THINGS.ddl))
        except BusyError as error:
            failed.append(str(error))

    writer = threading.Thread(target=write)
    writer.start()
    while not begun.exists():
        time.sleep(0.05)
    monkeypatch.setattr(lease, "EXPIRES_S", -1.0)  # no heartbeat since, though its process runs
    held = held_by(tmp_path, "r2")
    assert held.taken_over
    new = make(spark, tmp_path, held=held)
    new.fence([THINGS, Table("never_made", "id string", ("id",))])
    (tmp_path / "fenced").touch()
    writer.join()
    assert len(failed) == 1 and "run r1 lost the lease" in failed[0]
    assert ids(new.read(THINGS)) == ["a", "b"] and new.version(THINGS) == 0
    monkeypatch.setattr(lease, "_runs", lambda pid: False)
    assert not held_by(tmp_path, "r3").taken_over  # a killed process writes nothing
