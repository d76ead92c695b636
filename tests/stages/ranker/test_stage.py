"""Launching the training from Spark, the histories' shards, and the scores that lists are ordered by."""

import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recspark import columns as c
from recspark import model_folder
from recspark.config.rankers import Gbdt
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import Config
from recspark.errors import DataError, TrainingError
from recspark.features import FEATURES
from recspark.histories import HistoryBook
from recspark.metrics import auc
from recspark.models.rankers import gbdt
from recspark.stages.launch import launch
from recspark.stages.ranker import boosted, neural
from recspark.stages.ranker import stage as ranker
from recspark.stages.ranker.examples import Examples, examples_of
from recspark.stages.ranker.modes import transferring_modes
from recspark.stages.ranker.scorer import Scorer
from recspark.stages.ranker.scorer import scorer as make_scorer
from recspark.tables import histories as histories_table
from recspark.tables import training_examples
from recspark.tables.histories import HISTORIES
from recspark.training.ranking.fit import train_all
from recspark.training.ranking.job import TRAINER, RankerModel, Window
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_of_day
from tests import world
from tests.training import planted
from tests.training.ranking.predicted import scores


def test_two_processes_learn_what_one_does(spark, real_launches: None, tmp_path: Path) -> None:
    """TorchDistributor in local mode, against the same job in this process."""
    window = planted.window(tmp_path)
    here, there = (RankerModel("evaluated", f"{tmp_path}/{name}", (window,)) for name in ("here", "there"))
    train_all(planted.job((here,)))
    began = time.monotonic()
    answer = launch(spark, "ranker", TRAINER, planted.job((there,)), num_processes=2, use_gpu=False)
    print(f"launch with 2 processes: {time.monotonic() - began:.1f} s")
    assert answer["models"]["evaluated"]["num_epochs"] >= 1
    np.testing.assert_allclose(scores(here.folder, window), scores(there.folder, window), atol=1e-5)


def test_errors_of_the_processes_reach_the_driver(spark, tmp_path: Path) -> None:
    window = planted.window(tmp_path)
    gone = Window(window.day, ("/nowhere/part.parquet",), window.histories, window.bundle)
    with pytest.raises(TrainingError, match=r"ranker: training file /nowhere/part.parquet is gone"):
        launch(
            spark, "ranker", TRAINER, planted.job((RankerModel("evaluated", f"{tmp_path}/model", (gone,)),)), 1, False
        )


def test_a_lost_process_says_how_to_go_on(spark, real_launches: None, tmp_path: Path) -> None:
    window = planted.window(tmp_path)
    crashing = replace(planted.job((RankerModel("evaluated", f"{tmp_path}/model", (window,)),)), settings=None)
    with pytest.raises(TrainingError, match=r"a training process was lost .* Run the same command again"):
        launch(spark, "ranker", TRAINER, crashing, num_processes=1, use_gpu=False)


def test_shards_hold_positive_events_in_order(spark, tmp_path: Path) -> None:
    rows = [
        # user, scenarios, items, groups, times, weights, values, prices
        (3, ["a"], [5, 6, 7], [1, 0, 1], [1.0, 2.0, 3.0], [1.0, -1.0, 1.0], [1.0] * 3, [1.0] * 3),
        (70_000, ["a"], [9], [1], [2.0], [1.0], [1.0], [1.0]),
        (4, ["a"], [], [], [], [], [], []),
        (-1, ["a"], [], [], [], [], [], []),  # the default user
    ]
    histories = spark.createDataFrame(rows, HISTORIES.schema).repartition(3)
    histories_table.write_shards(histories, f"{tmp_path}/histories")
    assert model_folder.read_manifest(f"{tmp_path}/histories")["shards"] == [0, 1]
    block = HistoryBook({0: f"{tmp_path}/histories"}).block(np.array([3, 70_000, 4, -1]), np.zeros(4, int), 3)
    assert block.tolist() == [[7, 5, -1], [9, -1, -1], [-1, -1, -1], [-1, -1, -1]]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """Both models, trained on random features of which the first one decides."""
    from recspark.models.rankers import network as networks
    from recspark.models.rankers.spec import Spec
    from recspark.training.ranking import saved

    folder = tmp_path_factory.mktemp("models")
    window = planted.window(folder)
    features = np.random.default_rng(0).normal(size=(400, len(FEATURES))).astype(np.float32)
    keys = np.column_stack([np.zeros(400, int), np.zeros(400, int), np.arange(400) // 10, np.arange(400) % 10])
    labels = (features[:, 0] > 0).astype(np.float32)
    trees = gbdt.fit_ensemble(features, labels, keys, np.full(400, 9), FEATURES, Gbdt(max_rounds=5), 0, 5, 1)
    manifest, texts = gbdt.to_texts(trees)
    model_folder.save(f"{folder}/gbdt/evaluated", manifest, texts=texts)
    spec = Spec(FEATURES, ("click",), ("binary",), 20, 3, 0, 6, 4, (16, 8), 3, 0.0)
    network = networks.build(spec, 0)
    network.fit(features, np.zeros(400, int), labels[:, None])
    saved.save(f"{folder}/ranker/evaluated/ranker", network, {"spread": 0.5})
    places = f"{folder}/ranker/evaluated", f"{folder}/gbdt/evaluated", window.histories, window.bundle
    return Scorer(*places, planted.DAY, RETRIEVERS)


def candidates(num_rows: int = 300, seed: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    features = {name: rng.normal(size=num_rows).astype(np.float32) for name in FEATURES}
    features["content_score"][::2] = np.nan  # not scored by content
    ids = {c.SCENARIO_IDX: rng.integers(0, 4, num_rows), c.USER_IDX: rng.integers(-1, 60, num_rows)}
    ids[c.ITEM_IDX] = rng.integers(0, 25, num_rows)
    return pa.table({name: values.astype(np.int32) for name, values in ids.items()} | features)


TRAINED = ("ranker", "gbdt", "blend")


def test_every_trained_mode_gives_finite_scores(scorer: Scorer) -> None:
    assert scorer.modes == (*TRAINED, *RETRIEVERS)
    assert tuple(scorer(candidates(), ("gbdt",))) == ("gbdt",)
    found = scorer(candidates(), TRAINED)
    for mode, score in found.items():
        assert score.dtype == np.float64 and score.shape == (300,) and np.isfinite(score).all(), mode
    assert ((found["ranker"] > 0) & (found["ranker"] < 1)).all()


def test_a_blend_computes_its_parts_itself(scorer: Scorer) -> None:
    alone = scorer(candidates(), ("blend",))
    assert tuple(alone) == ("blend",)
    np.testing.assert_array_equal(alone["blend"], scorer(candidates(), TRAINED)["blend"])


def test_scores_do_not_depend_on_the_batch(scorer: Scorer) -> None:
    rows = candidates()
    expected = scorer(rows, TRAINED)
    order = np.random.default_rng(0).permutation(300)
    mixed = scorer(rows.take(pa.array(order)), TRAINED)
    parts = [scorer(batch, TRAINED) for batch in rows.to_batches(max_chunksize=7)]
    for mode in TRAINED:
        np.testing.assert_allclose(mixed[mode], expected[mode][order], atol=1e-6, rtol=0)
        np.testing.assert_allclose(np.concatenate([part[mode] for part in parts]), expected[mode], atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", TRAINED)
def test_it_reads_no_other_columns_than_it_names(scorer: Scorer, mode: str) -> None:
    rows = candidates()
    narrow = rows.select(list(scorer.columns((mode,))))
    np.testing.assert_array_equal(scorer(narrow, (mode,))[mode], scorer(rows, (mode,))[mode])
    assert scorer.columns((mode, *TRAINED)) == scorer.columns(("blend",))
    assert scorer.columns(()) == (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)


def test_without_trained_models_the_retrievers_still_order(scorer: Scorer) -> None:
    names = ("linear", "content", "popular")
    assert Scorer(None, None, scorer.histories, scorer.bundle, scorer.day, names).modes == names


def test_gbdt_publishes_with_the_rounds_of_the_evaluated_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    tasks = [{"name": name, "kind": "binary", "sql": "x"} for name in ("interaction", "other")]
    config = Config.model_validate({
        "warehouse": str(tmp_path),
        "source": {"interactions": source},
        "gbdt": {"max_rounds": 8},
        "training_examples": {"tasks": tasks},
    })  # fmt: skip
    found = []
    for number in range(2):
        table = {name: rng.normal(size=1000).astype(np.float32) for name in FEATURES}
        best = table[FEATURES[3]].reshape(100, 10).argmax(axis=1)  # one positive a list: a list without one is left out
        table["label_interaction"] = np.eye(10, dtype=np.float32)[best].ravel()
        table["label_other"] = np.zeros(1000, np.float32)  # trees learn the first task; this one has no positive
        user = np.arange(1000) // 10
        ids = {"as_of_day": user * 0 + number, c.SCENARIO_IDX: user % 2, c.USER_IDX: user, c.ITEM_IDX: np.arange(1000)}
        ids[c.FOLD] = user % 10
        table |= {name: values.astype(np.int32) for name, values in ids.items()}
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet")
        found.append(Examples(date(2020, 1, 6), "f", (f"file://{tmp_path}/{number}.parquet",), "bundle", 1))
    done = boosted.train(config, found, f"{tmp_path}/run")
    assert done["evaluated"]["rows"] == 900  # 90 of 100 users; a tenth stops the training
    assert done["published"] == {"num_rounds": done["evaluated"]["num_rounds"], "rows": 2000}
    assert model_folder.exists(f"{tmp_path}/run/published")


def test_gbdt_learns_from_given_features_and_says_what_they_are_worth(tmp_path: Path) -> None:
    """Odd users take items of the kind 1, even ones those above the number .95; nothing else shows it."""
    source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    config = Config.model_validate({
        "warehouse": str(tmp_path), "source": {"interactions": source}, "gbdt": {"max_rounds": 60},
    })  # fmt: skip
    rng = np.random.default_rng(0)
    table = {name: rng.normal(size=20_000).astype(np.float32) for name in FEATURES}
    user, item = np.arange(20_000) // 10 % planted.NUM_USERS, rng.integers(0, planted.NUM_ITEMS, 20_000)
    table["label_interaction"] = np.where(user % 2, item % 2, item >= 10).astype(np.float32)
    ids = {c.SCENARIO_IDX: np.arange(20_000) // 500, c.USER_IDX: user, c.ITEM_IDX: item, c.FOLD: user % 10}
    ids["as_of_day"] = np.full(20_000, planted.DAY)
    rows = pa.table(table | {name: values.astype(np.int32) for name, values in ids.items()})
    pq.write_table(rows, tmp_path / "rows.parquet")
    as_of, given = date(1970, 1, 1) + timedelta(planted.DAY), planted.given(tmp_path)
    window = Examples(as_of, "f", (f"file://{tmp_path}/rows.parquet",), "bundle", 20_000, given)
    boosted.train(config, [window, window], f"{tmp_path}/run")
    manifest = model_folder.read_manifest(f"{tmp_path}/run/published")
    assert sum(manifest["importance"].values()) > 0.9 and manifest["importance"]["given_user_group"] > 0.1
    scorer = Scorer(None, f"{tmp_path}/run/published", "", "", planted.DAY, RETRIEVERS, given=given)
    assert not {name for name in scorer.columns(("gbdt",)) if name.startswith("given")}
    found = scorer(rows.select(list(scorer.columns(("gbdt",)))), ("gbdt",))["gbdt"]
    assert auc(table["label_interaction"], found) > 0.95
    order = rng.permutation(20_000)
    np.testing.assert_array_equal(scorer(rows.take(pa.array(order)), ("gbdt",))["gbdt"], found[order])
    with pytest.raises(DataError, match=r"other features than .* was trained with"):
        replace(scorer, given=None)(rows, ("gbdt",))


def test_given_features_are_part_of_what_models_are_made_of(tmp_path: Path) -> None:
    plain = Examples(date(2020, 1, 6), "f", (), "bundle", 1)
    assert plain.inputs == ("f",) and replace(plain, given="w/models/given_features/2020-a").inputs == ("f", "2020-a")


RUN_DATE = date(2024, 5, 6)  # 28-day windows that closed before it open on 8 April and 11 March
WINDOWS = (date(2024, 4, 8), date(2024, 3, 11))


@pytest.fixture(scope="module")
def trained_night(spark, tmp_path_factory: pytest.TempPathFactory):
    """A store with events, examples whose label is `linear_share` > 0, and stand-ins for the retriever's bundles."""
    place = str(tmp_path_factory.mktemp("warehouse"))
    source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    config = Config.model_validate({
        "warehouse": place,
        "source": {"interactions": source},
        "training_examples": {"num_windows": 2},
        "ranker": {"embedding_dim": 4, "hidden": [16], "batch_size": 256, "max_epochs": 12, "learning_rate": 0.01},
        "gbdt": {"max_rounds": 20},
    })  # fmt: skip
    store = Store(spark, config, "run")
    world.write(world.tastes(), store, "encoder")
    for as_of in (RUN_DATE, *WINDOWS):
        arrays = {"content": np.random.default_rng(0).normal(size=(18, 6)).astype(np.float32)}
        groups = [["poor", 1, 0, 10], ["rich", 2, 2, 100]]
        manifest = {"scenarios": {"rich": 2, "poor": 0}, "scenario_groups": groups}
        path = artifacts.folder(store, "retriever", f"{as_of}-made")
        model_folder.save(path, manifest, arrays)
        artifacts.point(store, config, "retriever", as_of, path)
        groups_of_date = histories_table.groups_in(path)
        everyone = histories_table.read(store, config, as_of, groups_of_date)
        histories_table.write_shards(everyone, histories_table.shards_folder(store, path))
    for as_of in WINDOWS:
        write_examples(store, config, as_of)
    return store, config, ranker.refresh(store, config, RUN_DATE)


def write_examples(store: Store, config: Config, as_of: date) -> None:
    table = training_examples.table(config.training_examples.tasks)
    rows = candidates(2000, as_of.day)
    user = rows[c.USER_IDX].to_numpy()
    label = (rows["linear_share"].to_numpy() > 0).astype(np.float32)
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    columns |= {c.AS_OF: [as_of] * 2000, "as_of_day": np.full(2000, as_of_day(as_of)), "label_interaction": label}
    columns |= {c.WEIGHT: np.ones(2000), c.FOLD: user % 10}
    schema = table.schema
    frame = store.spark.createDataFrame(pd.DataFrame({name: columns[name] for name in table.columns}), schema)
    stamp = {"fingerprint": f"of {as_of}", "as_of": str(as_of)}
    store.replace(table, frame, where=f"as_of = '{as_of}'", metadata=stamp)


def test_a_night_learns_four_models_and_says_so(trained_night) -> None:
    store, config, summary = trained_night
    assert not summary.skipped and summary.rows_out == 4
    found = examples_of(store, config, RUN_DATE)
    assert [window.as_of for window in found] == list(WINDOWS)
    manifest = model_folder.read_manifest(neural.folder(store, config, found))
    trees = model_folder.read_manifest(boosted.folder(store, config, found))
    for one in (manifest, trees):
        assert one["windows"] == ["2024-04-08", "2024-03-11"] and one["models"] == ["evaluated", "published"]
    # evaluated: the older window without the tenth of users that stops it; published: both, all users, the same epochs
    tenth = int((candidates(2000, 11)[c.USER_IDX].to_numpy() % 10 == 0).sum())
    assert manifest["ranker"]["evaluated"]["rows"] == 2000 - tenth
    assert manifest["ranker"]["published"]["rows"] == 4000
    assert manifest["ranker"]["published"]["num_epochs"] == manifest["ranker"]["evaluated"]["num_epochs"]
    assert trees["gbdt"]["published"]["num_rounds"] == trees["gbdt"]["evaluated"]["num_rounds"]


def test_a_funnel_and_the_choice_of_model_reach_the_training(trained_night, monkeypatch, tmp_path) -> None:
    store, config, _ = trained_night
    steps = [
        {"name": "buy", "kind": "binary", "sql": "x", "given": "cart"},
        {"name": "cart", "kind": "binary", "sql": "x"},
    ]
    tree = config.model_dump() | {
        "training_examples": {"tasks": steps, "half_life_days": 30},
        "ranker": {"model": "ple", "int8": True},
    }
    launched = []
    monkeypatch.setattr(neural, "launch", lambda _, noun, function, job, *__: launched.append(job) or {"models": {}})
    found = examples_of(store, config, RUN_DATE)
    shards = {w.as_of: "there" for w in found}
    neural.train(store, Config.model_validate(tree), found, shards, f"{tmp_path}/target")
    assert [(task.name, task.given) for task in launched[0].tasks] == [("buy", "cart"), ("cart", None)]
    assert (launched[0].settings.model, launched[0].settings.int8) == ("ple", True)
    assert launched[0].half_life_days == 30


@pytest.mark.parametrize("copy", ["evaluated", "published"])
def test_both_kinds_find_what_decides(trained_night, copy: str) -> None:
    store, config, _ = trained_night
    as_of = RUN_DATE if copy == "published" else WINDOWS[0]
    scoring = make_scorer(store, config, RUN_DATE, as_of, copy)
    rows = candidates(1000, 77)
    liked = rows["linear_share"].to_numpy() > 0
    found = scoring(rows, TRAINED)
    for mode in TRAINED:
        auc = (found[mode][liked][:, None] > found[mode][~liked][None, :]).mean()
        assert auc > 0.95, mode


def test_the_next_night_with_the_same_windows_learns_nothing_new(trained_night) -> None:
    store, config, _ = trained_night
    again = ranker.refresh(store, config, RUN_DATE)
    assert again.skipped
    changed = config.model_copy(update={"ranker": config.ranker.model_copy(update={"dropout": 0.5})})
    found = examples_of(store, config, RUN_DATE)
    assert neural.folder(store, changed, found) != neural.folder(store, config, found)
    assert boosted.folder(store, changed, found) == boosted.folder(store, config, found)


def test_a_transfer_is_a_mode_of_its_own(trained_night) -> None:
    """`alone` for the scenarios of the bundle, 0 and 2; rows of the others (1 and 3) get the scores of `ranker`."""
    store, config, _ = trained_night
    chosen = config.model_copy(update={"ranker": config.ranker.model_copy(update={"transfer": ("joint", "alone")})})
    assert transferring_modes(chosen) == ("ranker",)
    summary = ranker.refresh(store, chosen, RUN_DATE)
    assert summary.rows_out == 4  # ranker and ranker_alone, evaluated and published; gbdt is as it was
    scoring = make_scorer(store, chosen, RUN_DATE, WINDOWS[0], "evaluated")
    assert scoring.modes == ("ranker", "ranker_alone", "gbdt", "blend", *config.retriever.names)
    for copy in ("evaluated", "published"):
        found = [Path(scoring.rankers).parent / copy / "ranker_alone" / str(n) / "manifest.json" for n in range(4)]
        assert [file.exists() for file in found] == [True, False, True, False]
    rows = candidates(1000, 77)
    scores, scenario = scoring(rows, ("ranker", "ranker_alone")), rows[c.SCENARIO_IDX].to_numpy()
    own, liked = np.isin(scenario, (0, 2)), rows["linear_share"].to_numpy() > 0
    # the same network on other batches of rows: equal to 1e-6
    np.testing.assert_allclose(scores["ranker_alone"][~own], scores["ranker"][~own], atol=1e-6, rtol=0)
    assert (scores["ranker_alone"][own] != scores["ranker"][own]).mean() > 0.99
    alone = scores["ranker_alone"]
    assert (alone[own & liked][:, None] > alone[own & ~liked][None, :]).mean() > 0.8  # 500 rows to learn from
    mixed = scoring(rows.take(pa.array(np.arange(999, -1, -1))), ("ranker_alone",))["ranker_alone"]
    np.testing.assert_allclose(mixed[::-1], alone, atol=1e-6, rtol=0)


def test_no_closed_window_is_a_clear_error(trained_night) -> None:
    store, config, _ = trained_night
    with pytest.raises(DataError, match=r"no training examples before 2024-03-20 .* run jobs/training_examples.py"):
        ranker.refresh(store, config, date(2024, 3, 20))
