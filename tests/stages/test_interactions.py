"""Conservation, the reasons of rejection, merging, and nights that rewrite only what changed."""

import json
from datetime import date, datetime

import pytest
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.config.sources import InteractionSource
from recspark.errors import ConfigError, DataError, RecsparkError, SchemaError
from recspark.expressions import CORRUPT
from recspark.sources import events
from recspark.stages import interactions as stage
from recspark.stages.interactions import building, refresh
from recspark.tables import index, interaction_days
from recspark.tables.interactions import TABLE, Counts, changed_days
from recspark.tables.rejected_events import TABLE as REJECTED
from recspark.warehouse.digests import day_digests
from recspark.warehouse.store import Store

HEADER = "country,user,item,time,kind,amount,n"
RUN_DATE = date(2024, 1, 3)
EXPRESSIONS = {
    "scenario": "country",
    "user_id": "user",
    "item_id": "item",
    "event_time": "time",
    "event": "kind",
    "value": "amount",
    "context": {"quantity": "n", "place": "country"},
}
SOURCE = InteractionSource(format="csv", paths=("x",), **EXPRESSIONS)

GOOD = "fr,ann,i1,2024-01-01 10:00:00,buy,2.5,1"
MESSY = {
    GOOD: "accepted",
    "fr,bob,i1,2024-01-02 23:59:59,buy,,2": "accepted",
    "fr,ann,i1,2024-01-03 00:00:00,buy,1,1": "later",
    ",,,2024-01-03 00:00:00,,,": "later",  # not checked before its day
    "fr,,i1,2024-01-01 10:00:00,buy,1,1": "null user_id",
    'fr,ann," ",2024-01-01 10:00:00,buy,1,1': "null item_id",
    ",ann,i1,2024-01-01 10:00:00,buy,1,1": "null scenario",
    "fr,ann,i1,2024-01-01 10:00:00,,1,1": "null event",
    "fr,ann,i1,,buy,1,1": "null event_time",
    "fr,ann,i1,yesterday,buy,1,1": "unparsable event_time",
    "fr,ann,i1,20713,buy,1,1": "unparsable event_time",  # to Spark it is a year
    "fr,ann,i2,2024-01-01 10:00:00,buy,cheap,1": "unparsable value",
    "fr,ann,i2,2024-01-01 10:00:00,buy,NaN,1": "non-finite value",
    "fr,ann,i2,2024-01-01 10:00:00,buy,-Infinity,1": "non-finite value",
    "fr,ann,i9,2024-01-01 10:00:00,buy,1,1": "unknown item",
    "fr,__default__,i1,2024-01-01 10:00:00,buy,1,1": "reserved user_id",
    "fr,ann,i1,1753-01-01 00:00:00,buy,1,1": "event_time before 1900",
    "fr,ann,i1,0001-01-01 00:00:00,buy,1,1": "event_time before 1900",
    "fr,ann,i1,0000-00-00,buy,1,1": "unparsable event_time",
    "fr,ann,i1,9999-12-31 23:59:59,buy,1,1": "later",
    "fr,ann,i2,2024-01-01 10:00:00,buy,1e39,1": "out of range value",  # labels are float32
}


def write(path, lines, header=HEADER):
    path.write_text("\n".join([header, *lines]) + "\n")


def rows_of(spark, lines):
    return spark.read.option("header", "true").csv(spark.sparkContext.parallelize([HEADER, *lines], 1))


def config_of(tmp_path, **sections):
    source = {"format": "csv", "paths": [str(tmp_path / "raw*.csv")], "options": {"header": "true"}, **EXPRESSIONS}
    tree = {"warehouse": str(tmp_path / "warehouse"), "source": {"interactions": source}}
    return Config.model_validate({**tree, **sections})


def run_stage(spark, tmp_path, run_date=RUN_DATE, force=False, **sections):
    """One run as by a new process: with a new Store, since a Store caches what it has read."""
    config = config_of(tmp_path, **sections)
    store = Store(spark, config, "run")
    return refresh(store, config, run_date, force), store


def events_of(store):
    return sorted((r.user_id, str(r.event_date)) for r in store.read(TABLE).collect())


def test_every_row_is_counted_exactly_once(spark):
    rows = rows_of(spark, [*MESSY, GOOD])
    items = spark.createDataFrame([("i1",), ("i2",)], "item_id string")
    with building(rows, SOURCE, RUN_DATE, items) as built:
        found = {r.reason: r for r in built.rejected.collect()}
        accepted = built.accepted.collect()
    wanted = list(MESSY.values())
    assert built.counts == Counts(
        raw=len(MESSY) + 1,
        accepted=wanted.count("accepted"),
        merged=0,
        duplicates=1,  # GOOD occurs twice
        later=wanted.count("later"),
        rejected={r: wanted.count(r) for r in wanted if r not in ("accepted", "later")},
    )
    assert set(found) == set(built.counts.rejected)  # each of them is kept
    assert '"user":null,"item":"i1"' in found["null user_id"].raw
    assert {r.user_id: (r.value, r.context, r.event_date) for r in accepted} == {
        "ann": (2.5, {"quantity": "1", "place": "fr"}, date(2024, 1, 1)),
        "bob": (None, {"quantity": "2", "place": "fr"}, date(2024, 1, 2)),
    }
    assert {r.event_time for r in accepted} == {datetime(2024, 1, 1, 10), datetime(2024, 1, 2, 23, 59, 59)}


def test_same_key_is_summed_and_copies_are_not(spark):
    """Four raw rows of one key: 2 copies of (1.5, 2) and one each of (4.0, 3) and (null, 0.5)."""
    key = "fr,ann,i1,2024-01-01 10:00:00,buy"
    lines = [f"{key},1.5,2", f"{key},4.0,3", f"{key},1.5,2", f"{key},,0.5", "uk" + key[2:] + ",7,1"]
    source = SOURCE.model_copy(update={"context": {"quantity": "n", "price": "amount"}})
    with building(rows_of(spark, lines), source, RUN_DATE) as built:
        merged = {r.scenario: r for r in built.accepted.collect()}
    assert merged["fr"].value == 1.5 + 4.0
    # quantities add up, the price is that of the row with the largest value
    assert merged["fr"].context == {"quantity": str(2 + 3 + 0.5), "price": "4.0"}
    assert (built.counts.accepted, built.counts.merged, built.counts.duplicates) == (2, 2, 1)
    assert str(built.counts) == "5 raw = 2 accepted + 2 merged + 0 rejected + 1 duplicates + 0 later"


def test_whole_quantities_stay_whole_and_odd_ones_are_left(spark):
    key = "fr,ann,i1,2024-01-01 10:00:00,buy"
    odd = "fr,bob,i1,2024-01-01 10:00:00,buy"
    lines = [f"{key},1,2", f"{key},2,3", f"{odd},1,2", f"{odd},2,few"]
    with building(rows_of(spark, lines), SOURCE, RUN_DATE) as built:
        quantity = {r.user_id: r.context["quantity"] for r in built.accepted.collect()}
    assert quantity == {"ann": "5", "bob": "few"}  # bob's are no numbers, so that of the larger value stays


def test_sums_do_not_depend_on_the_order_of_rows(spark):
    key = "fr,ann,i1,2024-01-01 10:00:00,buy"
    lines = [f"{key},{v},1" for v in ("0.1", "0.2", "0.3", "1e16", "-1e16", "0.7")]
    found = []
    for order in (lines, lines[::-1]):
        with building(rows_of(spark, order).repartition(2), SOURCE, RUN_DATE) as built:
            found.append(built.days)
    assert found[0] == found[1]


def test_counts_that_do_not_add_up_are_an_error():
    with pytest.raises(DataError, match=r"do not add up: 5 raw = 3 accepted \+ 1 merged \+ 0 rejected"):
        Counts(raw=5, accepted=3, merged=1, duplicates=0, later=0).check()


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["fr,ann,i1,2024-02-01,buy,1,1"], DataError, "no event before run_date 2024-01-03; the first is .*02-01"),
        (["fr,,i1,2024-01-01,buy,1,1"], DataError, "no usable row before run_date .*null user_id: 1"),
        (["fr,ann,i1,soon,buy,1,1"], SchemaError, "source.interactions.event_time: none of 1 rows could be cast"),
        (["fr,ann,i1,2024-01-01,buy,x,1"], SchemaError, "source.interactions.value: none of 1 rows .* a number"),
    ],
)
def test_nothing_usable(spark, lines, error, message):
    with pytest.raises(error, match=message), building(rows_of(spark, lines), SOURCE, RUN_DATE):
        pass


def test_a_misspelt_column_names_its_key(spark):
    source = SOURCE.model_copy(update={"context": {"price": "amout"}})
    with pytest.raises(SchemaError, match=r"interactions\.context\.price: column amout .*did you mean amount"):
        events.parse(rows_of(spark, [GOOD]), source, RUN_DATE, None)


@pytest.mark.parametrize(
    "sql,message",
    (
        ("timestamp_millis(CAST(amount AS BIGINT))", "all events lie in 1970; unix seconds need timestamp_seconds"),
        ("timestamp_seconds(CAST(amount AS BIGINT) * 1000)", "none of 2 rows could be cast; .*timestamp_millis"),
    ),
)
def test_a_wrong_unit_of_time_is_named(spark, sql, message):
    """1,700,000,000 seconds are in 2023, as milliseconds in January 1970; 1.7e12 seconds are in the year 55,840, which
    Spark holds as a timestamp only up to 294,247, and is no time for us above 9999."""
    source = SOURCE.model_copy(update={"event_time": sql, "value": "1"})
    rows = rows_of(spark, ["fr,ann,i1,x,buy,1700000000,1", "fr,bob,i1,x,buy,1700000100,1"])
    with pytest.raises(RecsparkError, match=message), building(rows, source, RUN_DATE):
        pass


def test_a_row_of_another_width_is_rejected_with_its_text(spark, tmp_path):
    wide = "fr,ann,i1,2024-01-01 10:00:00,buy,2.5,1,more"
    write(tmp_path / "raw.csv", [GOOD, wide, "fr,bob,i1", '"a, b",eve,i2,2024-01-01 10:00:00,buy,1,1'])
    summary, store = run_stage(spark, tmp_path)
    assert summary.rejected == {"malformed row": 2} and summary.rows_in == 4
    texts = [json.loads(row.raw)[CORRUPT] for row in store.read(REJECTED).collect()]
    assert sorted(texts) == sorted([wide, "fr,bob,i1"])
    assert {row.scenario for row in store.read(TABLE).collect()} == {"fr", "a, b"}


def test_blanks_around_ids_do_not_make_others(spark, tmp_path):
    write(tmp_path / "raw.csv", [GOOD, "fr , ann, i1 ,2024-01-02 10:00:00,buy,1,1"])
    _, store = run_stage(spark, tmp_path)
    assert {(r.scenario, r.user_id, r.item_id) for r in store.read(TABLE).collect()} == {("fr", "ann", "i1")}


def test_changed_days_leave_what_is_later_alone():
    old = {"2024-01-01": "1:a", "2024-01-02": "1:b", "2024-01-03": "1:c"}
    assert changed_days({"2024-01-01": "1:a"}, old, RUN_DATE) == ["2024-01-02"]
    new = {"2024-01-01": "2:x", "2023-12-31": "1:y"}
    assert changed_days(new, old, date(2024, 1, 2)) == ["2023-12-31", "2024-01-01"]


def test_nights(spark, tmp_path):
    """First night, the same again, a new day, a lost day, and an earlier run_date. For a late event: the next test."""
    write(tmp_path / "raw1.csv", [GOOD, "fr,bob,i1,2024-01-02 10:00:00,buy,1,1", ",bad,i1,2024-01-02,buy,1,1"])
    summary, store = run_stage(spark, tmp_path)
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (3, 2, {"null scenario": 1})
    first_files = store.files(TABLE, 0)
    assert len(first_files) == 1

    skipped, store = run_stage(spark, tmp_path)
    assert skipped.skipped and skipped.note == summary.note and store.version(TABLE) == 0
    forced, store = run_stage(spark, tmp_path, force=True)
    assert not forced.skipped
    assert [store.version(t) for t in (TABLE, REJECTED, index.USER_INDEX, index.SCENARIO_INDEX)] == [0, 0, 0, 0]

    write(tmp_path / "raw2.csv", ["fr,cid,i1,2024-01-03 09:00:00,buy,1,1"])
    _, store = run_stage(spark, tmp_path, date(2024, 1, 4))
    assert events_of(store) == [("ann", "2024-01-01"), ("bob", "2024-01-02"), ("cid", "2024-01-03")]
    second_files = store.files(TABLE, 1)
    assert set(first_files) < set(second_files) and len(second_files) == 2
    assert {r.user_id: r.user_idx for r in store.read(index.USER_INDEX).collect()} == {"ann": 0, "bob": 1, "cid": 2}
    assert store.read(REJECTED).count() == 1 and store.version(REJECTED) == 0

    write(tmp_path / "raw1.csv", [GOOD])
    _, store = run_stage(spark, tmp_path, date(2024, 1, 3))  # earlier: only the days before the 3rd are compared
    assert events_of(store) == [("ann", "2024-01-01"), ("cid", "2024-01-03")]
    assert set(store.files(TABLE, 1)) - set(first_files) <= set(store.files(TABLE, 2))


def built_again(monkeypatch):
    """Days whose rows are merged again: each night adds a set."""
    found = []

    def spy(merged):
        made = events.merged_days(merged)
        found.append({str(day) for day in made})
        return made

    monkeypatch.setattr(stage, "merged_days", spy)
    return found


def test_only_changed_days_are_built_again(spark, tmp_path, monkeypatch):
    """The result equals that of a night that builds all days from the same files."""
    merged = built_again(monkeypatch)
    lines = [GOOD, GOOD, "fr,bob,i1,2024-01-02 10:00:00,buy,1,1", "fr,cid,i1,2024-01-03 09:00:00,buy,1,1"]
    bad = [",bad,i1,2024-01-02 10:00:00,buy,1,1", "fr,ann,i1,yesterday,buy,1,1"]
    write(tmp_path / "raw1.csv", lines + bad)
    summary, _ = run_stage(spark, tmp_path)
    assert summary.note == "6 raw = 2 accepted + 0 merged + 2 rejected + 1 duplicates + 1 later"
    late = ["fr,ann,i1,2024-01-01 10:00:00,buy,4,1", "fr,ann,i1,tomorrow,buy,1,1"]  # same key as GOOD: it is merged
    write(tmp_path / "raw2.csv", late)
    summary, store = run_stage(spark, tmp_path, date(2024, 1, 4))
    assert summary.note == "8 raw = 3 accepted + 1 merged + 3 rejected + 1 duplicates + 0 later"
    assert merged == [{"2024-01-01", "2024-01-02"}, {"2024-01-01", "2024-01-03"}]
    assert summary.rejected == {"null scenario": 1, "unparsable event_time": 2}
    assert store.read(REJECTED).count() == 3
    values = {r.user_id: r.value for r in store.read(TABLE).collect()}
    assert values == {"ann": 2.5 + 4, "bob": 1, "cid": 1}

    other = tmp_path / "other"
    other.mkdir()
    for number, part in enumerate((lines + bad, late)):
        write(other / f"raw{number}.csv", part)
    fresh, at_once = run_stage(spark, other, date(2024, 1, 4))
    assert fresh.note == summary.note
    assert store.digest(TABLE, c.EVENT_DATE, date(2024, 1, 4)) == at_once.digest(TABLE, c.EVENT_DATE, date(2024, 1, 4))
    assert day_digests(store.read(TABLE), c.EVENT_DATE) == day_digests(at_once.read(TABLE), c.EVENT_DATE)


def test_all_days_are_built_again_where_the_table_was_touched(spark, tmp_path, monkeypatch):
    merged = built_again(monkeypatch)
    write(tmp_path / "raw.csv", [GOOD, "fr,bob,i1,2024-01-02 10:00:00,buy,1,1"])
    _, store = run_stage(spark, tmp_path)
    store.delta(TABLE).delete("user_id = 'ann'")
    _, store = run_stage(spark, tmp_path, date(2024, 1, 4))
    assert merged[1] == {"2024-01-01", "2024-01-02"}
    assert events_of(store) == [("ann", "2024-01-01"), ("bob", "2024-01-02")]

    write(tmp_path / "raw.csv", [GOOD, "fr,bob,i1,2024-01-02 10:00:00,buy,1,1"])
    run_stage(spark, tmp_path, date(2024, 1, 4), interactions={"event_weights": {"buy": 2.0}})  # no part of these rows
    assert merged[2] == set()

    source = config_of(tmp_path).source.interactions.model_copy(update={"value": "2 * CAST(amount AS DOUBLE)"})
    run_stage(spark, tmp_path, date(2024, 1, 4), source={"interactions": source.model_dump()})  # read in another way
    assert merged[3] == {"2024-01-01", "2024-01-02"}


def test_days_are_counted_though_a_run_ended_after_the_commit_of_their_events(spark, tmp_path, monkeypatch):
    write(tmp_path / "raw1.csv", [GOOD])
    run_stage(spark, tmp_path)
    write(tmp_path / "raw2.csv", ["fr,bob,i1,2024-01-03 10:00:00,buy,1,1"])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(interaction_days, "write", killed)
        run_stage(spark, tmp_path, date(2024, 1, 4))
    _, store = run_stage(spark, tmp_path, date(2024, 1, 4))
    assert events_of(store) == [("ann", "2024-01-01"), ("bob", "2024-01-03")]
    counted = {str(row[c.EVENT_DATE]): row["accepted"] for row in store.read(interaction_days.TABLE).collect()}
    assert counted == {"2024-01-01": 1, "2024-01-03": 1}
    summary, _ = run_stage(spark, tmp_path, date(2024, 1, 4))
    assert summary.skipped


def test_an_item_that_becomes_known_brings_its_days_back(spark, tmp_path, monkeypatch):
    merged = built_again(monkeypatch)
    items = {"format": "csv", "options": {"header": "true"}, "paths": [str(tmp_path / "items.csv")], "item_id": "id"}
    source = {**config_of(tmp_path).source.model_dump(exclude={"items"}), "items": items}
    settings = {"source": source, "interactions": {"unknown_items": "reject"}}
    write(tmp_path / "raw.csv", [GOOD, "fr,bob,i2,2024-01-02 10:00:00,buy,1,1"])
    write(tmp_path / "items.csv", ["i1"], header="id")
    summary, _ = run_stage(spark, tmp_path, **settings)
    assert summary.rejected == {"unknown item": 1}
    write(tmp_path / "items.csv", ["i1", "i2"], header="id")
    summary, store = run_stage(spark, tmp_path, **settings)
    assert summary.rejected == {} and merged[1] == {"2024-01-02"}
    assert events_of(store) == [("ann", "2024-01-01"), ("bob", "2024-01-02")]


def test_given_users_and_unknown_items_need_their_sources(spark, tmp_path, caplog):
    write(tmp_path / "raw.csv", [GOOD])
    with pytest.raises(ConfigError, match=r"unknown_items: reject needs source\.items"):
        run_stage(spark, tmp_path, interactions={"unknown_items": "reject"})

    write(tmp_path / "users.csv", ["de,zoe", ",nobody", "de,__default__", "__all__,eve"], header="where,who")
    config = config_of(tmp_path)
    csv = {"format": "csv", "options": {"header": "true"}}
    users = {**csv, "paths": [str(tmp_path / "users.csv")], "scenario": "where", "user_id": "who"}
    write(tmp_path / "items.csv", ["i2"], header="id")
    items = {**csv, "paths": [str(tmp_path / "items.csv")], "item_id": "id"}
    source = {**config.source.model_dump(exclude={"items", "users"}), "users": users, "items": items}
    write(tmp_path / "raw.csv", [GOOD, "fr,bob,i2,2024-01-01,buy,1,1"])
    summary, store = run_stage(spark, tmp_path, source=source, interactions={"unknown_items": "reject"})
    assert summary.rejected == {"unknown item": 1}
    assert {r.user_id for r in store.read(index.USER_INDEX).collect()} == {"bob", "zoe"}
    assert "source.users: 2 rows with reserved ids" in caplog.text
    assert {r.scenario: r.scenario_idx for r in store.read(index.SCENARIO_INDEX).collect()} == {"de": 1, "fr": 2}


def test_users_without_a_scenario_give_no_ids(spark, tmp_path):
    """Their features are read by a stage of their own; here the file need not even be there."""
    write(tmp_path / "raw.csv", [GOOD])
    users = {"format": "csv", "paths": ["nowhere.csv"], "user_id": "who"}
    source = {
        **config_of(tmp_path).source.model_dump(exclude={"items", "users"}),
        "users": {**users, "features": {"age": {"kind": "number", "sql": "age"}}},
    }
    _, store = run_stage(spark, tmp_path, source=source)
    assert {r.user_id for r in store.read(index.USER_INDEX).collect()} == {"ann"}


def test_all_events_on_one_day_in_many_files(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "ROWS_A_FILE", 2)
    write(tmp_path / "raw.csv", [f"fr,u{i},i1,2024-01-0{1 + i % 2} 10:00:00,buy,1,1" for i in range(4)])
    _, store = run_stage(spark, tmp_path)
    assert 1 <= len(store.files(TABLE, 0)) <= 2
    assert store.read(TABLE).count() == 4


def test_a_failed_night_leaves_no_table(spark, tmp_path):
    write(tmp_path / "raw.csv", ["fr,ann,i1,2024-02-01,buy,1,1"])
    with pytest.raises(DataError):
        run_stage(spark, tmp_path)
    assert not (tmp_path / "warehouse").exists()


def test_accepted_rows_fit_the_contract(spark):
    with building(rows_of(spark, [GOOD]), SOURCE, RUN_DATE) as built:
        assert built.accepted.select(F.count("*")).first()[0] == 1
        assert [f.dataType for f in built.accepted.schema] == [f.dataType for f in TABLE.schema]
        assert built.accepted.columns == [
            c.SCENARIO, c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT, c.VALUE, c.CONTEXT, c.EVENT_DATE,
        ]  # fmt: skip
