"""The night's adapter: its pairs by hand, when it is trained again, and its use by item_embeddings."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from pyspark.sql import functions as F

from recspark import cli, model_folder
from recspark.config.content import TextAdapter
from recspark.config.schema import Config
from recspark.encoders import text
from recspark.encoders.vectors import vectors_to_array
from recspark.encoders.weights import locate
from recspark.errors import ConfigError, DataError
from recspark.stages import text_adapter
from recspark.stages.item_embeddings import stage as item_embeddings
from recspark.stages.item_embeddings.encoders import content_encoders, encoders_of
from recspark.tables import item_embeddings as table
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store
from tests import world
from tests.encoders import tiny
from tests.training.content.planted import LEFT, RIGHT, together

SOURCE = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
RUN_DATE = world.AS_OF + timedelta(days=84)  # the oldest of three windows of 28 days opens at AS_OF


@pytest.fixture(scope="module")
def adapter_night(spark, tmp_path_factory):
    """(store, config, summary of the first night). Users buy LEFT i and RIGHT i on one day, the next two 10 days on."""
    folder = tmp_path_factory.mktemp("night")
    config = Config.model_validate(
        {
            "warehouse": str(folder / "warehouse"),
            "source": {"interactions": SOURCE},
            "seed": 3,
            "text_adapter": {
                "encoder": str(tiny.build("bert", folder / "tiny")), "learning_rate": 0.01, "temperature": 0.2,
                "batch_size": 16, "max_tokens": 12, "max_epochs": 6,
            },
            "item_embeddings": {"encoder": "text_adapter"},
        }
    )  # fmt: skip
    pairs = together()
    nth = [int(sum(pairs.user[:row] == user)) for row, user in enumerate(pairs.user)]
    events = [
        ("home", f"u{user}", pairs.texts[side], 1 + 10 * n, "purchase", 1.0, 1.0)
        for user, left, right, n in zip(pairs.user, pairs.left, pairs.right, nth, strict=True)
        for side in (left, right)
    ]
    store = Store(spark, config, "run")
    world.write(world.World(events, {t: (t in RIGHT, t) for t in pairs.texts}, {}, {}), store, "other")
    return store, config, text_adapter.refresh(store, config, RUN_DATE)


# -- the pairs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(spark):
    """events and items: `u` buys a, a, b, x (no text), c a day apart, then d 7 days later and a 8 days after that; `v`
    buys b and c in two scenarios, and both again."""
    day = date(2024, 1, 1)
    bought = [("home", "u", "a", 0), ("home", "u", "a", 1), ("cart", "u", "b", 2), ("home", "u", "x", 3),
              ("home", "u", "c", 4), ("home", "u", "d", 11), ("home", "u", "a", 19),
              ("home", "v", "b", 0), ("cart", "v", "c", 1), ("home", "v", "b", 2), ("home", "v", "c", 3)]  # fmt: skip
    rows = []
    for scenario, user, item, after in bought:
        time = datetime(day.year, day.month, day.day) + timedelta(days=after)
        rows.append((scenario, user, item, time, "purchase", 1.0, None, time.date()))
    texts = [(i, None if i == "x" else f"text {i}", None, None, i, day, None) for i in "abcdx"]
    return spark.createDataFrame(rows, INTERACTIONS.schema), spark.createDataFrame(texts, ITEMS.schema)


def found(few, seed: int = 0, **settings) -> list[tuple[str, str]]:
    rows = text_adapter.pairs(*few, TextAdapter(**settings), seed).collect()
    return sorted((row.left.removeprefix("text "), row.right.removeprefix("text ")) for row in rows)


def test_pairs_are_consecutive_different_items_within_the_days(few) -> None:
    """u: a b, b c (x does not count), c d after exactly 7 days, not d a after 8. v: b c once, c b."""
    assert found(few) == [("a", "b"), ("b", "c"), ("b", "c"), ("c", "b"), ("c", "d")]
    assert found(few, window_days=6.9) == [("a", "b"), ("b", "c"), ("b", "c"), ("c", "b")]
    # at home u buys a, a, c (3 days after), d, a; v b, b, c
    assert found(few, scenarios=("home",)) == [("a", "c"), ("b", "c"), ("c", "d")]


def test_the_sample_does_not_depend_on_partitions(few, spark) -> None:
    events, items = few
    one = found(few, max_pairs=3)
    assert len(one) == 3
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        assert found((events.repartition(5, F.rand(1)), items.repartition(3)), max_pairs=3) == one
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
    assert any(found(few, seed=seed, max_pairs=3) != one for seed in range(1, 5))


def test_corrupt_and_blank_texts_make_no_pair(few) -> None:
    events, items = few
    bad = F.when(F.col("item_id") == "b", F.expr("CAST(X'FF' AS STRING)")).when(F.col("item_id") == "c", " ")
    broken = items.withColumn("text", bad.otherwise(F.col("text")))
    # u: a, a, d 10 days after, a 8 days after that
    assert found((events, broken), window_days=10.0) == [("a", "d"), ("d", "a")]


# -- the night ---------------------------------------------------------------------------------------------------------


def test_the_first_night_trains(adapter_night) -> None:
    store, config, summary = adapter_night
    path = text_adapter.folder(store, config, RUN_DATE)
    assert not summary.skipped and summary.rows_out == 400
    assert summary.note.startswith(locate(path).version) and "pairs before 2024-03-04: epoch " in summary.note
    manifest = model_folder.read_manifest(path)
    assert manifest["data"]["as_of"] == "2024-03-04" and manifest["base"]["name"] == config.text_adapter.encoder
    assert not (Path(path) / "pairs").exists()


def test_item_embeddings_are_those_of_the_adapter(adapter_night) -> None:
    store, config, _ = adapter_night
    path = text_adapter.folder(store, config, RUN_DATE)
    (chosen,) = encoders_of(store, config, RUN_DATE)
    assert chosen.settings.encoder == path
    assert item_embeddings.refresh(store, config, RUN_DATE).rows_out == 32
    version = chosen.version
    rows = {r.item_id: r.embedding for r in store.read(table.TABLE).where(F.col("encoder") == version).collect()}
    stored = vectors_to_array([rows[item] for item in [*LEFT, *RIGHT]])
    np.testing.assert_allclose(stored, text.load(path, device="cpu").encode([*LEFT, *RIGHT]), atol=1e-5)
    frozen = text.load(config.text_adapter.encoder, device="cpu").encode([*LEFT, *RIGHT])
    right, before = (((v[:16] @ v[16:].T).argmax(axis=1) == np.arange(16)).mean() for v in (stored, frozen))
    assert right > before
    assert item_embeddings.refresh(store, config, RUN_DATE).skipped


def test_the_adapter_stands_beside_other_encoders(adapter_night) -> None:
    store, config, _ = adapter_night
    tree = config.model_dump()
    tree["item_embeddings"] = {"encoder": tree["text_adapter"]["encoder"], "also": [{"encoder": "text_adapter"}]}
    first, second = (one.version for one in encoders_of(store, Config.model_validate(tree), RUN_DATE))
    assert (first.split("@")[0], second.split("@")[0]) == ("tiny", "tiny+lora")


def test_it_is_trained_again_when_the_window_moves(adapter_night, monkeypatch) -> None:
    """Not with the next nights of the week or with their events; with other settings, older events or the next week."""
    store, config, _ = adapter_night
    path = text_adapter.folder(store, config, RUN_DATE)
    late = store.read(INTERACTIONS).limit(1).withColumns(
        {"event_time": F.lit(datetime(2024, 3, 5)), "event_date": F.lit(date(2024, 3, 5))}
    )  # fmt: skip
    store.append(INTERACTIONS, late)
    for later in range(1, 7):
        assert text_adapter.folder(store, config, RUN_DATE + timedelta(days=later)) == path
    again = text_adapter.refresh(store, config, RUN_DATE + timedelta(days=6))
    assert again.skipped and again.note == locate(path).version
    next_week = RUN_DATE + timedelta(days=7)
    others = [config.text_adapter.model_copy(update={key: value}) for key, value in (("rank", 2), ("window_days", 1))]
    paths = {path, text_adapter.folder(store, config, next_week)}
    paths |= {text_adapter.folder(store, config.model_copy(update={"text_adapter": o}), RUN_DATE) for o in others}
    assert len(paths) == 4 and text_adapter.as_of(config, next_week) == date(2024, 3, 11)
    with pytest.raises(DataError, match=r"no text_adapter as of 2024-06-03 .*; run jobs/text_adapter\.py"):
        encoders_of(store, config, next_week)


def test_without_pairs_the_frozen_model_stays(adapter_night) -> None:
    """Before the first night's oldest window there is no event."""
    store, config, _ = adapter_night
    early = world.AS_OF - timedelta(days=1)
    summary = text_adapter.refresh(store, config, early)
    assert summary.rows_out == 0 and "no better than the frozen model" in summary.note
    path = encoders_of(store, config, early)[0].settings.encoder
    expected = text.load(config.text_adapter.encoder, device="cpu").encode(LEFT)
    np.testing.assert_allclose(text.load(path, device="cpu").encode(LEFT), expected, atol=1e-6)


def test_what_does_not_fit_is_refused(adapter_night) -> None:
    store, config, _ = adapter_night
    with pytest.raises(ConfigError, match="expected a section of that name"):
        encoders_of(store, config.model_copy(update={"text_adapter": None}), RUN_DATE)
    strange = config.text_adapter.model_copy(update={"scenarios": ("home", "hmoe")})
    with pytest.raises(ConfigError, match=r"found hmoe, .* known scenarios: home"):
        text_adapter.refresh(store, config.model_copy(update={"text_adapter": strange}), RUN_DATE)
    off = config.model_copy(update={"text_adapter": None})
    assert text_adapter.refresh(store, off, RUN_DATE).skipped
    plain = off.model_copy(update={"item_embeddings": Config.model_fields["item_embeddings"].default})
    assert content_encoders(store, plain, RUN_DATE) == plain.item_embeddings.all


def test_the_command_uses_the_adapter(adapter_night, tmp_path, capsys) -> None:
    """As the command line runs them; the adapter is there already."""
    store, config, _ = adapter_night
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    assert cli.run(("text_adapter", "item_embeddings"), str(path), str(RUN_DATE)) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    version = locate(text_adapter.folder(store, config, RUN_DATE)).version
    assert done["text_adapter"]["skipped"] and done["text_adapter"]["note"] == version
    assert done["item_embeddings"]["note"] == version
