"""Dense, append-only numbers."""

import pytest

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.tables import index
from recspark.warehouse.store import Store


def ids(spark, *names, table=index.USER_INDEX):
    return spark.createDataFrame([(n,) for n in names], f"{table.columns[0]} string")


def numbers(rows):
    return {r[0]: r[1] for r in rows.collect()}


def test_new_ids_are_numbered_in_their_order(spark):
    with index.extension(index.USER_INDEX, None, ids(spark, "c", "a", None, "b", "a")) as (rows, count):
        assert (numbers(rows), count) == ({"a": 0, "b": 1, "c": 2}, 3)
        assert rows.dtypes == [(c.USER_ID, "string"), (c.USER_IDX, "int")]


def test_scenarios_start_at_one(spark):
    """0 is the group of small scenarios."""
    new = ids(spark, "uk", "fr", table=index.SCENARIO_INDEX)
    with index.extension(index.SCENARIO_INDEX, None, new) as (rows, _):
        assert numbers(rows) == {"fr": 1, "uk": 2}


def test_old_numbers_stay_and_new_ones_follow(spark):
    old = spark.createDataFrame([("m", 0), ("z", 1)], index.USER_INDEX.ddl)
    with index.extension(index.USER_INDEX, old, ids(spark, "z", "b", "m", "a")) as (rows, count):
        assert (numbers(rows), count) == ({"a": 2, "b": 3}, 2)


def test_many_ranges_number_as_one_does(spark, monkeypatch):
    names = [f"u{i:03d}" for i in range(200)]
    monkeypatch.setattr(index, "ROWS_A_TASK", 30)  # 200 ids -> 7 ranges
    with index.extension(index.USER_INDEX, None, ids(spark, *reversed(names))) as (rows, _):
        assert rows.rdd.getNumPartitions() == 7
        assert numbers(rows) == {name: i for i, name in enumerate(names)}


def test_overflow_is_refused(spark):
    old = spark.createDataFrame([("a", index.MAX_INT)], index.USER_INDEX.ddl)
    error = pytest.raises(DataError, match="user_index: 2147483649 ids do not fit in int32")
    with error, index.extension(index.USER_INDEX, old, ids(spark, "b")):
        pass


def test_refresh_commits_nothing_without_new_ids(spark, tmp_path):
    source = {"format": "csv", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    config = Config.model_validate({"warehouse": str(tmp_path), "source": {"interactions": source}})
    store = Store(spark, config, "run")
    assert index.refresh(store, index.USER_INDEX, ids(spark, "b", "a")) == 2
    assert index.refresh(store, index.USER_INDEX, ids(spark, "a")) == 0
    assert index.refresh(store, index.USER_INDEX, ids(spark, "0")) == 1
    assert numbers(store.read(index.USER_INDEX)) == {"a": 0, "b": 1, "0": 2}
    assert store.version(index.USER_INDEX) == 1  # two commits, 0 and 1


@pytest.mark.parametrize("row", (("a", 7), ("z", 0)), ids=("an id twice", "a number twice"))
def test_a_doubled_index_is_refused(spark, tmp_path, row):
    source = {"format": "csv", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    config = Config.model_validate({"warehouse": str(tmp_path), "source": {"interactions": source}})
    store = Store(spark, config, "run")
    index.refresh(store, index.USER_INDEX, ids(spark, "a", "b"))
    store.append(index.USER_INDEX, spark.createDataFrame([row], index.USER_INDEX.ddl))
    with pytest.raises(DataError, match=r"user_index: found 3 rows with \d ids and \d numbers, .*RESTORE TABLE"):
        index.refresh(store, index.USER_INDEX, ids(spark, "c"))


def store_of(spark, tmp_path):
    source = {"format": "csv", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    return Store(spark, Config.model_validate({"warehouse": str(tmp_path), "source": {"interactions": source}}), "run")


def test_numbers_have_a_name_that_new_ids_do_not_change(spark, tmp_path):
    """As long as every id keeps its number, what holds numbers stays valid; afterwards it must be made again."""
    first = store_of(spark, tmp_path / "a")
    for table in (index.ITEM_INDEX, index.USER_INDEX, index.SCENARIO_INDEX):
        index.refresh(first, table, ids(spark, "a", "b", table=table))
    name = index.numbering(first)
    index.refresh(first, index.USER_INDEX, ids(spark, "0"))  # numbered 2, after the others
    assert index.numbering(store_of(spark, tmp_path / "a")) == name

    same = store_of(spark, tmp_path / "b")  # another warehouse, the same numbers
    for table in (index.ITEM_INDEX, index.USER_INDEX, index.SCENARIO_INDEX):
        index.refresh(same, table, ids(spark, "b", "a", table=table))
    assert index.numbering(same) == name

    spark.sql(f"UPDATE delta.`{first.name('user_index')}` SET user_idx = 3 - user_idx")  # 3, 2 and 1
    assert index.numbering(store_of(spark, tmp_path / "a")) != name


def test_an_id_that_was_replaced_leaves_its_number_and_every_name(spark, tmp_path):
    store = store_of(spark, tmp_path)
    for table in (index.ITEM_INDEX, index.USER_INDEX, index.SCENARIO_INDEX):
        index.refresh(store, table, ids(spark, "a", "b", table=table))
    name = index.numbering(store)
    gone = spark.createDataFrame([("b", "erased-1"), ("x", "erased-2")], "user_id string, new string")
    assert index.replace_ids(store, index.USER_INDEX, gone) == 1  # nobody is called x
    assert numbers(store.read(index.USER_INDEX)) == {"a": 0, "erased-1": 1}
    store.save_states()
    later = store_of(spark, tmp_path)
    index.refresh(later, index.USER_INDEX, ids(spark, "b"))  # came back, as somebody new
    assert numbers(later.read(index.USER_INDEX)) == {"a": 0, "erased-1": 1, "b": 2}
    assert index.numbering(later) == name


def test_numbers_that_others_took_away_are_noticed(spark, tmp_path):
    """After a RESTORE the next user gets a number that somebody else had in models made meanwhile."""
    store = store_of(spark, tmp_path)
    for table in (index.ITEM_INDEX, index.USER_INDEX, index.SCENARIO_INDEX):
        index.refresh(store, table, ids(spark, "a", "b", table=table))
    index.refresh(store, index.USER_INDEX, ids(spark, "c"))
    name = index.numbering(store)
    spark.sql(f"RESTORE TABLE delta.`{store.name('user_index')}` TO VERSION AS OF 0")
    later = store_of(spark, tmp_path)
    index.refresh(later, index.USER_INDEX, ids(spark, "d"))
    assert index.numbering(later) != name
    spark.sql(f"INSERT INTO delta.`{store.name('user_index')}` VALUES ('a', 7)")
    with pytest.raises(DataError, match=r"user_index: found 4 rows with 3 ids and 4 numbers"):
        index.numbering(store_of(spark, tmp_path))
