"""What maintenance deletes and keeps, without a change for readers."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from recspark.config.schema import Config
from recspark.stages import maintenance
from recspark.tables import item_embeddings, published_runs, recommendations, rejected_events, stage_runs
from recspark.warehouse.stage_log import StageRun
from recspark.warehouse.store import Store, Table
from recspark.windows import closed_windows

RUN_DATE = date(2024, 6, 14)  # a Friday
SMALL = Table("small", "as_of date, n int", ("n",), ("as_of",))


def config(warehouse: Path, **sections) -> Config:
    source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    return Config.model_validate({"warehouse": str(warehouse), "source": {"interactions": source}, **sections})


def test_recent_nights_and_every_window_of_a_kept_night_stay(tmp_path):
    settings = config(tmp_path, maintenance={"keep_nights": 10})
    days = [RUN_DATE - timedelta(days=n) for n in range(400)]
    gone = set(maintenance.expired(days, RUN_DATE, settings))
    kept_nights = days[:11]
    examples = settings.training_examples
    needed = {w for night in kept_nights for w in closed_windows(night, examples.label_days, examples.num_windows)}
    assert not gone & (needed | set(kept_nights))
    assert days[12] in gone  # a Sunday; the Monday before it may open a window
    assert days[399] in gone
    # at most one Monday too many beside what is needed, a week each
    mondays = {day for day in days if day.weekday() == 0} - gone
    assert min(mondays) >= min(needed) - timedelta(days=7)


def test_old_model_folders_are_deleted_and_unknown_ones_kept(spark, tmp_path):
    names = ["2024-06-13-abc", "2023-01-02-abc", "2023-01-03-abc", "notes"]
    for noun in ("retriever", "given_features"):
        for name in names:
            folder = tmp_path / "models" / noun / name / "users"
            folder.mkdir(parents=True)
            (folder.parent / "manifest.json").write_text("{}")
            (folder / "linear.npy").write_bytes(b"x")
        (tmp_path / "models" / noun / "2023-01-02-what_was_found.txt").write_text("{}")
    settings = config(tmp_path)
    assert maintenance.drop_models(Store(spark, settings, "run"), RUN_DATE, settings) == 4
    for noun in ("retriever", "given_features"):
        assert sorted(p.name for p in (tmp_path / "models" / noun).iterdir()) == ["2024-06-13-abc", "notes"]


def test_vectors_are_deleted_with_the_last_retriever_that_used_them(spark, tmp_path):
    """`base` is used by a kept night and `loose` by none yet: both stay. `adapter` was used by expired nights only."""
    settings = config(tmp_path)
    store = Store(spark, settings, "run")
    read_by = {"2024-06-13-abc": ["base", "new"], "2023-01-03-abc": ["base", "adapter"], "2023-01-04-abc": ["adapter"]}
    for name, encoders in read_by.items():
        folder = tmp_path / "models/retriever" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"encoders": encoders}))
    rows = [("i", encoder, "h", b"", 0) for encoder in ("base", "new", "adapter", "loose")]
    store.append(item_embeddings.TABLE, spark.createDataFrame(rows, item_embeddings.TABLE.schema))
    assert maintenance.drop_embeddings(store, RUN_DATE, settings) == 1
    assert {row.encoder for row in store.read(item_embeddings.TABLE).collect()} == {"base", "new", "loose"}
    (tmp_path / "models/retriever/2024-06-13-abc/manifest.json").unlink()
    assert maintenance.drop_embeddings(store, RUN_DATE, settings) == 0  # no kept night: what is used is unknown


def test_compaction_and_vacuum_keep_the_rows_and_the_version(spark, tmp_path):
    store = Store(spark, config(tmp_path), "run")
    day = date(2024, 6, 13)
    for n in range(3):
        store.append(SMALL, spark.createDataFrame([(day, n)], SMALL.schema))
    store.replace(SMALL, spark.createDataFrame([(day, n) for n in range(5)], SMALL.schema).repartition(4))
    token = store.token(SMALL)
    small = len(store.read(SMALL).inputFiles())
    assert small > 1
    assert maintenance.compact(store, SMALL) == small
    maintenance.vacuum(store, SMALL, 0.0)
    files = [p for p in (tmp_path / "small").rglob("*.parquet") if "_delta_log" not in p.parts]
    assert len(files) == 1
    assert sorted(r.n for r in store.read(SMALL).collect()) == [0, 1, 2, 3, 4]
    assert Store(spark, config(tmp_path), "run").token(SMALL) == token  # maintenance causes no stage to run again
    commits = len(list((tmp_path / "small/_delta_log").glob("*.json")))
    assert maintenance.compact(store, SMALL) == 0
    assert len(list((tmp_path / "small/_delta_log").glob("*.json"))) == commits


def test_expired_dates_are_deleted_and_nothing_is_committed_without_any(spark, tmp_path):
    settings = config(tmp_path)
    store = Store(spark, settings, "run")
    rows = [(date(2024, 6, 13), 1), (date(2023, 1, 3), 2), (date(2023, 1, 4), 3)]
    store.append(SMALL, spark.createDataFrame(rows, SMALL.schema))
    assert maintenance.drop_dates(store, SMALL, RUN_DATE, settings) == 2
    assert [r.n for r in store.read(SMALL).collect()] == [1]
    commits = len(list((tmp_path / "small/_delta_log").glob("*.json")))
    assert maintenance.drop_dates(store, SMALL, RUN_DATE, settings) == 0
    assert len(list((tmp_path / "small/_delta_log").glob("*.json"))) == commits


def test_old_nights_are_deleted_but_not_the_newest(spark, tmp_path):
    """Of lists 400 days are kept, of records 800. The newest night stays, however old it is."""
    settings = config(tmp_path)
    store = Store(spark, settings, "run")
    days = [0, 400, 401, 800, 801]
    nights = [RUN_DATE - timedelta(days=n) for n in days]
    for night in nights:
        row = (night, "s", "u", 1, "i", 0.5, "popular", "blend", "why", "run")
        stamp = {"run_date": str(night), "fingerprint": "f"}
        table = recommendations.TABLE
        store.append(table, spark.createDataFrame([row], table.schema).coalesce(1), stamp)
    records = [(night, "null user_id", n, "{}") for n, night in enumerate(nights)]
    store.append(rejected_events.TABLE, spark.createDataFrame(records, rejected_events.TABLE.schema).coalesce(1))
    summary = maintenance.refresh(store, settings, RUN_DATE)
    assert "4 old nights" in summary.note  # lists of 401, 800 and 801 days ago, rejected rows of 801
    assert {row.run_date for row in store.read(recommendations.TABLE).collect()} == set(nights[:2])
    assert {row.row_hash for row in store.read(rejected_events.TABLE).collect()} == {0, 1, 2, 3}
    fresh = [
        n for n, night in zip(days, nights, strict=True) if store.is_fresh(recommendations.TABLE, "f", run_date=night)
    ]
    assert fresh == [0, 400]
    late = RUN_DATE + timedelta(days=2000)
    maintenance.refresh(store, settings, late)
    assert [row.run_date for row in store.read(recommendations.TABLE).collect()] == [RUN_DATE]


def test_columns_of_older_tables_get_their_comments_and_old_runs_are_forgotten(spark, tmp_path):
    settings = config(tmp_path)
    old = Table("published_runs", published_runs.TABLE.ddl, published_runs.TABLE.key)
    Store(spark, settings, "run").append(old, spark.createDataFrame([], old.schema))
    # a stage 367 days before RUN_DATE, and one of its day
    old = StageRun("a", "2023-06-13", "items", "done", "2023-06-13T02:00:00+00:00")
    new = replace(old, stage="ranker", started_at="2024-06-14T02:00:00+00:00")
    stage_runs.append(Store(spark, settings, "a"), [old, new])
    maintenance.refresh(Store(spark, settings, "run"), settings, RUN_DATE)
    schema = Store(spark, settings, "run").read(published_runs.TABLE).schema
    assert schema["status"].metadata["comment"] == published_runs.TABLE.comment("status")
    assert [row.stage for row in Store(spark, settings, "run").read(stage_runs.TABLE).collect()] == ["ranker"]


def test_an_empty_warehouse_is_no_error(spark, tmp_path):
    settings = config(tmp_path / "none")
    summary = maintenance.refresh(Store(spark, settings, "run"), settings, RUN_DATE)
    assert (
        summary.note
        == "0 files compacted, 0 old dates, 0 old nights, 0 old model folders and the vectors of 0 old encoders dropped"
    )
