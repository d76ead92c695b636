"""Item embeddings in Spark equal the encoder called directly; only changed content is embedded."""

import io
import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyspark.sql import functions as F
from pyspark.sql import types as T
from transformers import BertModel

from recspark import model_folder
from recspark.config.content import Encoder
from recspark.config.schema import Config
from recspark.encoders import batches, image, media, text
from recspark.encoders.vectors import vectors_to_array
from recspark.encoders.weights import locate, versions
from recspark.errors import ConfigError
from recspark.sources.catalogue import newest, parse
from recspark.stages import items as items_stage
from recspark.stages.item_embeddings import compact as compact_embeddings
from recspark.stages.item_embeddings import embed
from recspark.stages.item_embeddings import stage as job
from recspark.stages.retriever import stage as retriever
from recspark.stages.retriever.bundle import item_arrays, open_bundle
from recspark.tables import item_embeddings as table
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.rejected_events import TABLE as REJECTED
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from tests import world
from tests.encoders import tiny

NOT_FINITE = batches.reason("text", batches.NOT_FINITE)
ENCODER = "all-MiniLM-L6-v2"
TEXTS = {"a": "WHITE METAL LANTERN", "b": None, "c": "red mug", "d": " ", "e": "set of 6 holders", "f": "red mug"}


@pytest.fixture(scope="module")
def direct() -> np.ndarray:
    """(6, 384): the texts of TEXTS by the encoder core in this process."""
    return text.load(ENCODER, device="cpu").encode(list(TEXTS.values()))


@pytest.fixture(scope="module")
def items(spark):
    rows = [(item, content, f"hash-{item}", 1.0) for item, content in TEXTS.items()]
    return spark.createDataFrame(rows, "item_id string, text string, content_hash string, price double")


@pytest.fixture(scope="module")
def embedded(items):
    return embed.embed(items, ENCODER).cache()


def ids(rows) -> list[str]:
    return sorted(row.item_id for row in rows.select("item_id").collect())


# -- the API of the job ------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_the_encoder(embedded, direct):
    rows = embedded.orderBy("item_id").collect()
    assert [row.item_id for row in rows] == list(TEXTS)
    found = vectors_to_array([row.embedding for row in rows])
    np.testing.assert_allclose(found, direct, atol=1e-5)
    assert [row.embedding is None for row in rows] == [False, True, False, True, False, False]


def test_rows_carry_version_hash_and_dim(embedded):
    version = locate(ENCODER).version
    assert {(r.encoder, r.dim) for r in embedded.collect()} == {(version, 384)}
    assert all(r.content_hash == f"hash-{r.item_id}" for r in embedded.collect())
    assert [(f.name, f.dataType) for f in embedded.schema] == [
        (f.name, f.dataType) for f in T.StructType.fromDDL(table.SCHEMA)
    ]


def test_partitions_do_not_move_vectors(items, direct, monkeypatch):
    monkeypatch.setattr(embed, "MAX_ROWS_PER_TASK", 2)
    spread = embed.embed(items.repartition(3), ENCODER)
    assert spread.rdd.getNumPartitions() == 3  # 6 rows, 2 a task
    rows = sorted(spread.collect(), key=lambda row: row.item_id)
    np.testing.assert_allclose(vectors_to_array([row.embedding for row in rows]), direct, atol=1e-5)


def test_no_items_no_rows(items):
    assert embed.embed(items.where("false"), ENCODER).collect() == []


def test_unknown_encoder_fails_before_the_job(items):
    with pytest.raises(ConfigError, match="there is no such folder"):
        embed.embed(items, "/nowhere/model")
    with pytest.raises(ConfigError, match="there is no such folder"):
        embed.embed_udf("/nowhere/model")


def test_worker_with_other_weights_is_refused(spark):
    def embed_batches(batches):
        for batch in batches:
            embed.task_encoder(Encoder(encoder=ENCODER), "all-MiniLM-L6-v2@another")
            yield batch

    with pytest.raises(Exception, match=r"this worker has all-MiniLM-L6-v2@.*install the same weights on every node"):
        spark.range(1).mapInArrow(embed_batches, "id long").collect()


def test_model_is_loaded_once_in_a_worker(spark):
    version = locate(ENCODER).version

    def same_object(batches):
        for batch in batches:
            first, second = (embed.task_encoder(Encoder(encoder=ENCODER), version) for _ in range(2))
            found = {"same": first is second, "threads": torch.get_num_threads()}
            yield pa.RecordBatch.from_pylist([found] * batch.num_rows)

    found = spark.range(4).mapInArrow(same_object, "same boolean, threads long").distinct().collect()
    assert [(row.same, row.threads) for row in found] == [(True, 1)]  # spark.task.cpus = 1


# -- texts that cannot be encoded --------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path) -> str:
    """A model that returns NaN for `green`, the word with id 5."""
    folder = tiny.build("bert", tmp_path / "broken")
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[5] = float("nan")
    model.save_pretrained(folder)
    return str(folder)


def test_a_corrupt_text_is_null_with_its_reason_and_the_rest_goes_on(spark, tmp_path, broken):
    source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    tree = {"warehouse": str(tmp_path / "warehouse"), "source": {"interactions": source}}
    config = Config.model_validate({**tree, "item_embeddings": {"encoder": broken}})
    store = Store(spark, config, "run")
    rows = [("a", "red mug"), ("b", "green mug"), ("c", "bytes"), ("d", None), ("e", "mug lamp")]
    listed = spark.createDataFrame(rows, "item_id string, text string").select(
        "item_id",
        F.expr("CASE text WHEN 'bytes' THEN CAST(unhex('C328') AS string) ELSE text END AS text"),  # no UTF-8
        F.expr("CAST(map() AS map<string,string>) AS attributes"),
        F.expr("CAST(null AS string) AS media"),
        F.concat(F.lit("hash-"), "item_id").alias("content_hash"),
        F.lit(world.AS_OF).alias("first_seen"),
        F.expr("CAST(null AS string) AS name"),
    )
    store.merge(ITEMS, listed)
    summary = job.refresh(store, config, world.AS_OF)
    assert (summary.rows_in, summary.rows_out) == (5, 5)
    assert summary.rejected == {NOT_FINITE: 1}
    found = {row.item_id: row.embedding for row in store.read(table.TABLE).collect()}
    assert {item for item, cell in found.items() if cell is None} == {"b", "d"}
    direct = text.load(broken, device="cpu").encode(["red mug", "\ufffd(", "mug lamp"])  # of "c" what can be read
    np.testing.assert_allclose(vectors_to_array([found["a"], found["c"], found["e"]]), direct, atol=1e-5)
    kept = {(json.loads(row.raw)["item_id"], row.reason) for row in store.read(REJECTED).collect()}
    assert kept == {("b", NOT_FINITE)}
    again = job.refresh(store, config, world.AS_OF, force=True)
    assert again.rejected == summary.rejected and store.read(REJECTED).count() == 1 and store.version(REJECTED) == 0
    store.merge(ITEMS, listed.where("item_id = 'a'").withColumn("content_hash", F.lit("changed")))
    assert job.refresh(store, config, world.AS_OF).rows_out == 1  # the corrupt ones are not tried every night
    udf = listed.where("item_id IN ('a', 'b')").orderBy("item_id").select(embed.embed_udf(broken)("text").alias("v"))
    assert [row.v is None for row in udf.collect()] == [False, True]


# -- only what changed -------------------------------------------------------------------------------------------------


def test_only_changed_content_or_encoder_is_embedded(items, embedded):
    version = locate(ENCODER).version
    assert ids(table.only_new(items, embedded, version)) == []
    assert ids(table.only_new(items, embedded, f"{ENCODER}@next")) == list(TEXTS)
    edited = items.withColumn("content_hash", F.when(F.col("item_id") == "c", "new").otherwise(F.col("content_hash")))
    assert ids(table.only_new(edited, embedded, version)) == ["c"]
    assert ids(embed.embed_new(edited, embedded, ENCODER)) == ["c"]
    assert ids(table.only_new(items, embedded.where("item_id <> 'e'"), version)) == ["e"]
    # the same hash at another item is no match: the key has both
    one_hash = embedded.withColumn("content_hash", F.lit("hash-a"))
    assert ids(table.only_new(items, one_hash, version)) == ["b", "c", "d", "e", "f"]


def test_a_second_encoder_stands_beside_the_first(spark, tmp_path):
    """Only its vectors are computed; the retrievers get both parts, and a third run computes nothing."""
    small = str(tiny.build("bert", tmp_path / "tiny"))
    source = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    tree = {"warehouse": str(tmp_path / "warehouse"), "source": {"interactions": source}}
    config = Config.model_validate({**tree, "item_embeddings": {"also": [{"encoder": small}]}})
    store, planted = Store(spark, config, "run"), world.tastes()
    first, second = versions(config.item_embeddings.all)
    assert (first, second) == (locate(ENCODER).version, locate(small).version)
    world.write(planted, store, first)
    assert job.refresh(store, config, world.AS_OF).rows_out == len(planted.items)
    dims = {row.encoder: row.dim for row in store.read(table.TABLE).select("encoder", "dim").distinct().collect()}
    assert dims[second] == tiny.SHAPE["hidden_size"]
    assert job.refresh(store, config, world.AS_OF).skipped
    retriever.refresh(store, config, world.AS_OF)
    bundle = artifacts.require(store, config, "retriever", world.AS_OF, "retriever")
    assert model_folder.read_manifest(bundle)["content_parts"] == [dims[first], dims[second]]
    assert open_bundle(bundle).content.shape[1] == dims[first] + dims[second]


def test_an_encoder_named_twice_is_refused():
    settings = Config.model_validate({"warehouse": "w", "source": {"interactions": dict.fromkeys(
        ("scenario", "user_id", "item_id", "event_time"), "x") | {"format": "table", "table": "t"}},
        "item_embeddings": {"also": [{"encoder": ENCODER}]}})  # fmt: skip
    with pytest.raises(ConfigError, match=r"found the encoders .* expected different ones"):
        versions(settings.item_embeddings.all)


# -- the API for notebooks and SQL -------------------------------------------------------------------------------------


def test_pandas_udf_gives_the_same_vectors(items, spark, direct):
    rows = items.select("item_id", embed.embed_udf(ENCODER)("text").alias("vector")).orderBy("item_id").collect()
    assert [row.vector is None for row in rows] == [False, True, False, True, False, False]
    found = np.array([row.vector or np.zeros(384) for row in rows], dtype=np.float32)
    np.testing.assert_allclose(found, direct, atol=1e-5)


def test_pandas_udf_in_sql(spark, direct):
    spark.udf.register("embed", embed.embed_udf(ENCODER))
    [row] = spark.sql("SELECT embed('red mug') AS vector, size(embed('red mug')) AS width").collect()
    assert row.width == 384
    np.testing.assert_allclose(row.vector, direct[2], atol=1e-5)


# -- tasks and devices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "slots", "expected"),
    [
        (0, 8, 1),
        (512, 8, 1),
        (513, 8, 2),  # one row more than a task's least
        (3_900, 2, 2),  # more would wait for a slot
        (3_900, 64, 8),  # 3,900 / 512 = 7.6
        (100_001, 2, 6),  # 100,001 / 20,000 = 5.0 and a row
    ],
)
def test_tasks_follow_the_rows(rows, slots, expected):
    assert embed.num_tasks(rows, slots) == expected


@pytest.mark.parametrize(
    ("addresses", "partition", "gpus", "expected"),
    [
        ([], 5, 0, "cpu"),
        ([], 5, 4, "cuda:1"),  # 5 mod 4
        (["3"], 0, 4, "cuda:3"),
        (["3"], 0, 1, "cuda:0"),  # the executor sees one of the four
        (["MIG-7f2a"], 2, 4, "cuda:2"),
    ],
)
def test_device_of_a_task(addresses, partition, gpus, expected):
    assert embed.device_for(addresses, partition, gpus) == expected


# -- files, and smaller vectors ----------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def catalogue(spark, tmp_path):
    """Six items: two pictures as files, one as content, one broken, one missing file, one item without a picture."""
    files = {item: png(tiny.picture(seed)) for seed, item in enumerate("abc")}
    (tmp_path / "a.png").write_bytes(files["a"])
    (tmp_path / "b.png").write_bytes(files["b"])
    (tmp_path / "broken.png").write_bytes(files["a"][:40])
    paths = {"a": f"{tmp_path}/a.png", "b": f"file://{tmp_path}/b.png"}
    paths |= {"d": f"{tmp_path}/broken.png", "e": f"{tmp_path}/gone.png"}
    rows = [(item, paths.get(item), files["c"] if item == "c" else None) for item in "abcdef"]
    raw = spark.createDataFrame(rows, "sku string, path string, content binary")
    raw.write.parquet(str(tmp_path / "catalogue"))
    return files


def config_of(tmp_path, **sections) -> Config:
    events = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    content = "coalesce(path, concat('data:;base64,', base64(content)))"
    items = {"format": "parquet", "paths": [str(tmp_path / "catalogue")], "item_id": "sku", "text": "sku"}
    items |= {"media": content, "attributes": {"twin": "path"}, "media_roots": [str(tmp_path)]}
    tree = {"warehouse": str(tmp_path / "warehouse"), "source": {"interactions": events, "items": items}}
    return Config.model_validate({**tree, **sections})


def test_pictures_are_read_where_they_lie(spark, tmp_path):
    """Together with texts, in one commit; a second run opens no file; a picture in a binary column is the same."""
    files = catalogue(spark, tmp_path)
    vit = str(tiny.build("vit", tmp_path / "vit"))
    of_paths = {"encoder": vit, "modality": "image", "input": "attributes['twin']"}
    also = [{"encoder": vit, "modality": "image"}, of_paths]
    config = config_of(tmp_path, item_embeddings={"encoder": str(tiny.build("bert", tmp_path / "bert")), "also": also})
    store = Store(spark, config, "run")
    store.append(INTERACTIONS, spark.createDataFrame([], INTERACTIONS.schema))
    items_stage.refresh(store, config, world.AS_OF)
    summary = job.refresh(store, config, world.AS_OF)
    assert summary.rows_out == 18 and store.version(table.TABLE) == 0
    # the broken and the missing one, once for each of the two encoders of pictures
    assert summary.rejected == {"item image: cannot be decoded": 2, "item image: cannot be opened": 2}
    direct = image.load(vit, device="cpu").encode(list(files.values()))
    _, by_media, by_path = versions(config.item_embeddings.all)
    found = {(row.encoder, row.item_id): row.embedding for row in store.read(table.TABLE).collect()}
    np.testing.assert_allclose(vectors_to_array([found[by_media, item] for item in "abc"]), direct, atol=1e-5)
    np.testing.assert_allclose(vectors_to_array([found[by_path, item] for item in "ab"]), direct[:2], atol=1e-5)
    assert [item for item in "abcdef" if found[by_path, item] is None] == list("cdef")
    assert job.refresh(store, config, world.AS_OF).skipped
    # another code or catalogue version asks again, and nothing is new
    assert job.refresh(store, config_of(tmp_path, item_embeddings=config.item_embeddings.model_dump(), seed=7),
                       world.AS_OF).rows_out == 0  # fmt: skip


def test_media_may_be_binary(spark, tmp_path):
    files = catalogue(spark, tmp_path)
    config = config_of(tmp_path)
    source = config.source.items.model_copy(update={"media": "content", "attributes": {}})
    rows = newest(parse(spark.read.parquet(*source.paths), source, world.AS_OF), source)
    found = {row.item_id: row.media for row in rows.collect()}
    assert media.read(found["c"]) == files["c"] and found["a"] is None


def test_smaller_vectors_lie_in_one_space_night_after_night(spark, tmp_path):
    """pca and int8: the projection is fitted once and used for new items; the note has the share of kept neighbours."""
    bert = str(tiny.build("bert", tmp_path / "bert"))
    settings = {"encoder": bert, "storage": "int8", "pca": 4}
    config = config_of(tmp_path, item_embeddings=settings)
    store = Store(spark, config, "run")
    first = listed(
        spark, {f"{n:02d}": f"{a} {b}" for n, (a, b) in enumerate(itertools.product(tiny.WORDS[:4], repeat=2))}
    )
    store.merge(ITEMS, first)
    summary = job.refresh(store, config, world.AS_OF)
    (version,) = versions(config.item_embeddings.all)
    assert version.endswith("+pca4+int8") and re.search(rf"{re.escape(version)} keeps [01]\.\d\d\d of", summary.note)
    store.merge(ITEMS, listed(spark, {"new": f"{tiny.WORDS[4]} {tiny.WORDS[0]}"}))
    assert job.refresh(store, config, world.AS_OF).rows_out == 1
    rows = {row.item_id: row for row in store.read(table.TABLE).collect()}
    assert {(row.dim, len(row.embedding)) for row in rows.values()} == {(4, 8)}
    encoder, fitted = text.load(bert, device="cpu"), compact_embeddings.folder(store, config.item_embeddings.all[0])
    mean, components = (np.asarray(model_folder.open_array(fitted, name)) for name in ("mean", "components"))
    expected = (encoder.encode([f"{tiny.WORDS[4]} {tiny.WORDS[0]}"]) - mean) @ components.T
    found = vectors_to_array([rows["new"].embedding], storage="int8")
    np.testing.assert_allclose(found, expected, atol=np.abs(expected).max() / 127)
    retriever_parts, parts = item_arrays(
        pa.table({"item_id": ["new"], "item_idx": [0], "embedding_0": [rows["new"].embedding]}), 1, ["int8"]
    )
    assert parts == [4] and np.isclose(np.linalg.norm(retriever_parts["content"]), 1, atol=1e-6)
    # without the projection all vectors are computed again: old and new ones must lie in the same space
    model_folder.remove(fitted)
    assert job.refresh(store, config, world.AS_OF, force=False).skipped
    store.merge(ITEMS, listed(spark, {"newer": tiny.WORDS[4]}))
    assert job.refresh(store, config, world.AS_OF).rows_out == 18


def test_more_components_than_items_are_refused(spark, tmp_path):
    bert = str(tiny.build("bert", tmp_path / "bert"))
    config = config_of(tmp_path, item_embeddings={"encoder": bert, "pca": 4})
    store = Store(spark, config, "run")
    store.merge(ITEMS, listed(spark, {"a": tiny.WORDS[0], "b": tiny.WORDS[1]}))
    with pytest.raises(ConfigError, match=r"4 components of .* cannot be fitted on 2 items with \d+ numbers"):
        job.refresh(store, config, world.AS_OF)


def listed(spark, texts: dict[str, str]):
    return spark.createDataFrame(list(texts.items()), "item_id string, text string").select(
        "item_id",
        "text",
        F.expr("CAST(map() AS map<string,string>) AS attributes"),
        F.expr("CAST(null AS string) AS media"),
        F.concat(F.lit("hash-"), "item_id").alias("content_hash"),
        F.lit(world.AS_OF).alias("first_seen"),
        F.expr("CAST(null AS string) AS name"),
    )
