"""Item texts to vectors, by Spark into Delta: `python -m benchmarks embed --data DIR`.

DIR is a data set's folder, or the folder of several. The texts are those of catalogues, in random order, the first
20,000: title and categories of amazon-beauty-sports-toys (Beauty), title, genres and plot of movielens-1m, descriptions
of online-retail. The encoder is the packaged all-MiniLM-L6-v2 on the CPU.

Ours is the stage's own `refresh`: it reads items, encodes and commits to item_embeddings. It is compared with:
- bare: SentenceTransformer.encode of half of the texts in one process without Spark, a torch thread for each core, with
  the best of four batch sizes on a sample; it writes nothing. It runs before ours.
- pandas UDFs as in tutorials (texts in, array<float> out, written to Delta), on a sample of the same texts. Here a
  worker process keeps its model, although many tutorials load it for every batch. `batch`: SentenceTransformer encodes
  the Arrow batch; `rows`: it encodes text by text; `padded`: an Arrow batch is padded to its longest text, as in the
  code of model cards, with the best of four batch sizes on a sample. They run after ours.

Seconds do not include start-up: worker processes run already, torch is imported, models are loaded. Figures "with
start" include that; the JVM runs already in both. Then 1 % of the items change and `refresh` runs again.
"""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.content import Encoder
from recspark.config.schema import Config
from recspark.encoders.vectors import vectors_to_array
from recspark.encoders.weights import PACKAGED, locate
from recspark.errors import ConfigError
from recspark.session import get_session
from recspark.stages.item_embeddings import embed
from recspark.stages.item_embeddings import stage as item_embeddings
from recspark.tables import item_embeddings as table
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store

BATCH_SIZES = (16, 32, 64, 128)
RUN_DATE = date(2020, 1, 1)
ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
VECTOR = "array<float>"


@dataclass(frozen=True)
class Sizes:
    texts: int = 20_000
    bare_texts: int = 10_000  # fewer than ours: the rates are compared
    udf_texts: int = 1_500
    sample: int = 256  # texts on which batch sizes are tried


# -- texts -------------------------------------------------------------------------------------------------------------


def products(folder: Path) -> list[str]:
    rows = pd.read_parquet(folder / "items.parquet")
    rows = rows[rows["title"] != ""]
    return [f"{title} {categories}" for title, categories in zip(rows["title"], rows["categories"], strict=True)]


def films(folder: Path) -> list[str]:
    lines = (folder / "movies_extrainfos.dat").read_text(encoding="latin-1").split("\n")
    rows = [line.split("::") for line in lines if line]
    return [f"{row[1]} {row[5]} {row[9]}" for row in rows]


def giftware(folder: Path) -> list[str]:
    rows = pd.read_parquet(folder / "transactions.parquet", columns=["Description"])["Description"]
    return rows.dropna().str.strip().drop_duplicates().tolist()


READERS = {"amazon-beauty-sports-toys": products, "movielens-1m": films, "online-retail": giftware}


def read_texts(data: str, num_texts: int) -> list[str]:
    """The texts of the data sets in or at `data`, without empty ones, shuffled. Raises FileNotFoundError if none."""
    root = Path(data).resolve()
    folders = {name: root if root.name == name else root / name for name in READERS}
    found = [text for name, folder in folders.items() if folder.is_dir() for text in READERS[name](folder)]
    if not found:
        raise FileNotFoundError(f"{data}: found none of {', '.join(READERS)}")
    filled = [text for text in found if text.strip()]
    return [filled[row] for row in np.random.default_rng(0).permutation(len(filled))[:num_texts]]


# -- ours --------------------------------------------------------------------------------------------------------------


def write_items(store: Store, texts: list[str]) -> DataFrame:
    """The table items with these texts; returns its rows."""
    rows = [(f"{row:06d}", text) for row, text in enumerate(texts)]
    items = store.spark.createDataFrame(rows, f"{c.ITEM_ID} string, {c.TEXT} string").select(
        c.ITEM_ID,
        c.TEXT,
        F.expr("CAST(map() AS map<string,string>)").alias(c.ATTRIBUTES),
        F.lit(None).cast("string").alias(c.MEDIA),
        F.sha2(c.TEXT, 256).alias(c.CONTENT_HASH),
        F.lit(RUN_DATE).alias(c.FIRST_SEEN),
    )
    store.merge(ITEMS, items)
    return store.read(ITEMS)


def in_every_worker(spark: SparkSession, cores: int, task: Callable[[], None]) -> float:
    """Seconds to run `task` once in each Python worker, with the start of the workers."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            task()
            time.sleep(0.5)  # so that no worker takes two tasks
            yield batch

    began = time.monotonic()
    spark.range(cores, numPartitions=cores).mapInArrow(run, "id long").collect()
    return time.monotonic() - began - 0.5


def load_ours(version: str) -> None:
    embed.task_encoder(Encoder(encoder=PACKAGED), version).encode(["one text"])


def ours(store: Store, config: Config) -> tuple[float, int]:
    """Seconds of the stage, and the number of texts that it encoded."""
    began = time.monotonic()
    summary = item_embeddings.refresh(store, config, RUN_DATE)
    return time.monotonic() - began, summary.rows_out


def stored(store: Store) -> np.ndarray:
    """(n, 384) as the table has them, by item_id."""
    rows = store.read(table.TABLE).orderBy(c.ITEM_ID).select(c.EMBEDDING).toPandas()
    return vectors_to_array(rows[c.EMBEDDING].tolist())


# -- peers -------------------------------------------------------------------------------------------------------------


def sentence_transformer(path: str) -> Any:
    """The model of a folder. Raises ConfigError if sentence-transformers is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "embed: sentence-transformers, which this is compared with, is not installed; run `uv sync --group peers`"
        ) from error
    return SentenceTransformer(path, device="cpu")


def bare(texts: list[str], path: str, sample: int, threads: int) -> tuple[dict[str, float], np.ndarray]:
    """Seconds of start-up and of encoding with the best batch size, and the vectors. Runs in a process of its own."""
    began = time.monotonic()
    import torch

    torch.set_num_threads(threads)
    model = sentence_transformer(path)
    started = time.monotonic() - began
    tried = {}
    for size in BATCH_SIZES:
        began = time.monotonic()
        model.encode(texts[:sample], batch_size=size, show_progress_bar=False)
        tried[size] = time.monotonic() - began
    size = min(tried, key=tried.__getitem__)
    began = time.monotonic()
    vectors = model.encode(texts, batch_size=size, show_progress_bar=False)
    return {"start": started, "seconds": time.monotonic() - began, "batch_size": size}, np.asarray(vectors)


MODELS: dict[str, Any] = {}  # folder -> model, in a worker process


def kept(path: str) -> Any:
    if path not in MODELS:
        MODELS[path] = sentence_transformer(path)
    return MODELS[path]


def udf_batch(texts: pd.Series, path: str) -> pd.Series:
    return pd.Series(list(kept(path).encode(texts.tolist(), show_progress_bar=False)))


def udf_rows(texts: pd.Series, path: str) -> pd.Series:
    return texts.apply(lambda text: kept(path).encode(text, show_progress_bar=False))


def udf_padded(texts: pd.Series, path: str) -> pd.Series:
    import torch

    tokenizer, model = kept(path).tokenizer, kept(path)[0].auto_model
    with torch.no_grad():
        inputs = tokenizer(texts.tolist(), padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return pd.Series(list(torch.nn.functional.normalize(mean, dim=1).numpy()))


def udf_seconds(items: DataFrame, function: Callable[..., pd.Series], path: str, folder: str, arrow_rows: int) -> float:
    from pyspark.sql.functions import pandas_udf

    def embed(texts: pd.Series) -> pd.Series:
        return function(texts, path)

    items.sparkSession.conf.set(ARROW_ROWS, arrow_rows)
    began = time.monotonic()
    rows = items.select(c.ITEM_ID, pandas_udf(embed, VECTOR)(c.TEXT).alias(c.EMBEDDING))
    rows.write.format("delta").mode("overwrite").save(f"{folder}/udf")
    return time.monotonic() - began


def load_peer(path: str) -> None:
    udf_batch(pd.Series(["one text"]), path)


def udfs(items: DataFrame, path: str, folder: str, cores: int, sample: int, default_rows: int) -> dict[str, float]:
    """Seconds of each form of UDF on all of `items`, which have one partition for each core."""
    few = items.limit(sample).repartition(cores).persist()
    few.count()
    tried = {size: udf_seconds(few, udf_padded, path, folder, size) for size in BATCH_SIZES}
    best = min(tried, key=tried.__getitem__)
    print(f"padded: best Arrow batch {best} of { ({size: round(s, 1) for size, s in tried.items()}) }", flush=True)
    forms = {"batch": (udf_batch, default_rows), "rows": (udf_rows, default_rows), "padded": (udf_padded, best)}
    return {name: udf_seconds(items, function, path, folder, rows) for name, (function, rows) in forms.items()}


# -- all of it ---------------------------------------------------------------------------------------------------------


def tokens(texts: list[str], path: str) -> int:
    """Number of tokens of all texts, without padding."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(path)(texts, truncation=True, max_length=256)
    return sum(len(ids) for ids in found["input_ids"])


def in_a_process(task: Callable[[], Any]) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task)


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """One run; `seeds` is not used."""
    sizes = Sizes(texts=100, bare_texts=50, udf_texts=20, sample=8) if quick else Sizes()
    weights, cores = locate(PACKAGED), os.cpu_count() or 1
    path, texts = str(weights.path), read_texts(data, sizes.texts)
    peer, expected = in_a_process(partial(bare, texts[: sizes.bare_texts], path, sizes.sample, cores))
    print(f"bare: {json.dumps(peer)}", flush=True)
    spark, owned = get_session({"spark.master": f"local[{cores}]"}, app_name="embed")
    default_rows = int(spark.conf.get(ARROW_ROWS))
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = {"format": "parquet", "paths": ["x"], **dict.fromkeys((c.SCENARIO, c.USER_ID, c.ITEM_ID), "x")}
            tree = {"warehouse": folder, "source": {"interactions": {**source, c.EVENT_TIME: "x"}}}
            config = Config.model_validate(tree)
            store = Store(spark, config, "benchmark")
            items = write_items(store, texts)
            start = in_every_worker(spark, cores, partial(load_ours, weights.version))
            seconds, encoded = ours(store, config)
            print(f"ours: {seconds:.1f} s and {start:.1f} s of start-up", flush=True)
            assert encoded == len(texts)
            apart = float(np.abs(stored(store)[: len(expected)] - expected).max())
            assert apart < 1e-4, f"vectors differ by {apart} from the bare encoder's"
            some = items.limit(sizes.udf_texts).repartition(cores).persist()
            num_udf = some.count()
            udf_start = in_every_worker(spark, cores, partial(load_peer, path))
            udf = udfs(some, path, folder, cores, sizes.sample, default_rows)
            changed = [f"{text} new" for text in texts[: len(texts) // 100]]
            write_items(store, changed)
            again, encoded_again = ours(store, config)
    finally:
        spark.conf.set(ARROW_ROWS, default_rows)
        if owned:
            spark.stop()
    num_tokens = tokens(texts, path)
    bare_seconds = peer["seconds"] / len(expected) * len(texts)
    udf_all = {name: took / num_udf * len(texts) for name, took in udf.items()}  # seconds of all texts
    found = {
        "texts": len(texts),
        "tokens_a_text": round(num_tokens / len(texts), 1),
        "seconds": round(seconds, 1),
        "start_seconds": round(start, 1),
        "bare_texts": len(expected),
        "bare_seconds": round(peer["seconds"], 1),
        "bare_start_seconds": round(peer["start"], 1),
        "bare_batch_size": int(peer["batch_size"]),
        "of_bare": round(bare_seconds / seconds, 3),
        "of_bare_with_start": round((bare_seconds + peer["start"]) / (seconds + start), 3),
        "udf_texts": num_udf,
        "udf_start_seconds": round(udf_start, 1),
        **{f"udf_{name}_seconds": round(took, 1) for name, took in udf.items()},
        **{f"times_udf_{name}": round(took / seconds, 2) for name, took in udf_all.items()},
        "again_seconds": round(again, 1),
        "again_texts": round(encoded_again / len(texts), 4),
        "again_tokens": round(tokens(changed, path) / num_tokens, 4) if changed else 0.0,
        "largest_difference": apart,
    }
    for name, value in found.items():
        print(f"{name:22s} {value}")
    return found
