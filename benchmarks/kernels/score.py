"""Candidates scored by the torch ranker, by Spark from Delta to Delta: `python -m benchmarks score`.

Lists of 100 candidates with the features of a night, of 30 scenarios; rankers with random weights (`single`: a tower
for each scenario; `shared_bottom`: the default). Ours is the stage's own code: stages/lists.py with
stages/ranker/scorer.py. It is compared with:

(a) a plain scalar pandas UDF with the same weights: it runs the whole network on each batch, all towers for every row,
    and then picks each row's own; in the same session, with its model loaded and its columns pruned, on fewer rows;
(b) the network alone, in this process, a thread for each core, over arrays in memory: nothing is read or written.

All workers are started and have loaded their model before the clock starts. Figures are rows a second.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.kernels.towers import all_towers
from recspark import columns as c
from recspark import model_folder
from recspark.features import FEATURES, ITEM_FEATURES, USER_FEATURES, features_of
from recspark.histories import LENGTH, USERS_A_SHARD, HistoryBook, finish, save_shard
from recspark.models.layers import look_up
from recspark.models.rankers import network
from recspark.models.rankers.single import Single
from recspark.models.rankers.spec import Spec
from recspark.session import get_session
from recspark.stages import lists
from recspark.stages.ranker.modes import RANKER
from recspark.stages.ranker.scorer import Scorer
from recspark.tables.candidates import EXPLAINING_ITEM, TYPES
from recspark.training.ranking import saved, scoring

RETRIEVERS = ("linear", "content", "popular")  # of the default configuration; the features of the others are NaN
NAMES = features_of(RETRIEVERS)
IDS = (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)
DAY, SCENARIOS, CONTENT_DIM = 15_000, 30, 384
LIST, BLOCK = 100, 500  # candidates of a user; users drawn at once
MISSING = 0.3  # share of a retriever's features that are NaN: it did not find the item
MODELS = ("single", "shared_bottom")
FILES = 8
BARE_ROWS = 500_000  # for (b)


@dataclass(frozen=True)
class Sizes:
    users: int = 50_000  # with a list each
    items: int = 20_000
    udf_users: int = 1_000  # for (a)


def features(rng: np.random.Generator, item: np.ndarray, num_items: int) -> dict[str, np.ndarray]:
    """Random FEATURES of BLOCK lists, `item` (BLOCK * LIST,); those of a user or item are the same in all its rows."""
    of_item = np.log1p(np.random.default_rng(1).gamma(1.0, 20.0, (len(ITEM_FEATURES), num_items)).astype(np.int64))
    found = {name: values[item] for name, values in zip(ITEM_FEATURES, of_item, strict=True)}
    found |= {name: np.repeat(rng.normal(size=BLOCK), LIST) for name in USER_FEATURES}
    for name in FEATURES:
        if name in found:
            continue
        found[name] = rng.integers(1, 61, len(item)) if name.endswith("_rank") else rng.normal(size=len(item))
        if name.startswith(RETRIEVERS):
            found[name] = np.where(rng.random(len(item)) < MISSING, np.nan, found[name])
        elif name not in NAMES:
            found[name] = np.full(len(item), np.nan)
    return {name: found[name].astype(np.float32) for name in FEATURES}


def block(number: int, num_items: int) -> pa.RecordBatch:
    """The rows of `candidates` of BLOCK users."""
    rng = np.random.default_rng((number, 2))
    user = np.repeat(np.arange(number * BLOCK, (number + 1) * BLOCK), LIST)
    first, step = rng.integers(0, num_items, BLOCK), rng.integers(1, num_items // LIST, BLOCK)
    item = ((np.arange(LIST) * step[:, None] + first[:, None]) % num_items).ravel()  # distinct within a list
    scenario = user % SCENARIOS
    columns = {
        c.AS_OF: pa.array(np.full(len(user), DAY, np.int32)).cast(pa.date32()),
        c.SCENARIO: pa.array([f"country {n}" for n in range(SCENARIOS)]).take(pa.array(scenario)),
        c.SCENARIO_IDX: scenario.astype(np.int32),
        c.USER_IDX: user.astype(np.int32),
        c.ITEM_IDX: item.astype(np.int32),
        c.SOURCE: pa.array(RETRIEVERS).take(pa.array(rng.integers(0, len(RETRIEVERS), len(user)))),
        EXPLAINING_ITEM: rng.integers(-1, num_items, len(user)).astype(np.int32),
        **features(rng, item, num_items),
    }
    return pa.record_batch([columns[name] for name in TYPES], names=list(TYPES))


def blocks(batches: Iterator[pa.RecordBatch], num_items: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield block(number, num_items)


def plant(spark: SparkSession, folder: str, sizes: Sizes) -> None:
    """Write candidates, histories, content and the rankers where a night writes them."""
    made = spark.range(sizes.users // BLOCK, numPartitions=FILES).mapInArrow(
        partial(blocks, num_items=sizes.items), ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    )
    made.write.format("delta").mode("overwrite").save(f"{folder}/candidates")
    few = spark.read.format("delta").load(f"{folder}/candidates").where(F.col(c.USER_IDX) < sizes.udf_users)
    few.repartition(FILES, c.USER_IDX).write.format("delta").mode("overwrite").save(f"{folder}/few")  # for all cores
    rng = np.random.default_rng(3)
    model_folder.save(
        f"{folder}/bundle", {}, {"content": rng.normal(size=(sizes.items, CONTENT_DIM)).astype(np.float32)}
    )
    shards = range(-(-sizes.users // USERS_A_SHARD))
    for shard in shards:
        users = np.arange(shard * USERS_A_SHARD, min(sizes.users, (shard + 1) * USERS_A_SHARD))
        offsets = np.concatenate(([0], np.cumsum(rng.integers(1, 2 * LENGTH, len(users)))))
        items, zeros = rng.integers(0, sizes.items, offsets[-1]), np.zeros(offsets[-1])
        save_shard(f"{folder}/histories", shard, users, offsets, items, zeros, zeros)
    finish(f"{folder}/histories", list(shards), {})
    for model in MODELS:
        saved.save(f"{folder}/{model}/{RANKER}", random_ranker(model, sizes), {"spread": 1.0})


def random_ranker(model: str, sizes: Sizes) -> network.Network:
    """A ranker as wide as the default one, with random weights; its feature statistics are those of sample rows."""
    sample = block(0, sizes.items)
    dense = np.column_stack([sample.column(name).to_numpy() for name in NAMES])
    spec = Spec(
        features=NAMES, tasks=("click",), kinds=("binary",), num_items=sizes.items, num_scenarios=SCENARIOS,
        num_missing=network.num_missing(dense), content_dim=CONTENT_DIM, embedding_dim=32, hidden=(128, 64),
        history_length=LENGTH, dropout=0.1, model=model,
    )  # fmt: skip
    found = network.build(spec, 0)
    found.fit(dense, np.arange(len(dense)) % SCENARIOS, np.ones((len(dense), 1), np.float32))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in found.parameters():  # initial scales, shifts and scenario parts are all equal
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return found


def ours(frame: DataFrame, folder: str, model: str) -> DataFrame:
    scorer = Scorer(f"{folder}/{model}", None, f"{folder}/histories", f"{folder}/bundle", DAY, RETRIEVERS)
    return lists.scored(frame, scorer, (RANKER,))


def pandas_udf(frame: DataFrame, folder: str, model: str) -> DataFrame:
    """The scores by (a)."""

    def predict(*columns: pd.Series) -> pd.Series:
        scenario, user, item, *dense = (column.to_numpy() for column in columns)
        return pd.Series(scores_of_all(folder, model, np.column_stack(dense), (scenario, user, item)))

    score = F.pandas_udf(predict, "double")
    return frame.select(*lists.NAMES, score(*IDS, *NAMES).alias(f"score_{RANKER}"))


@lru_cache(maxsize=2)
def opened(folder: str, model: str) -> tuple[network.Network, HistoryBook, np.ndarray]:
    torch.set_num_threads(1)
    found = saved.load(f"{folder}/{model}/{RANKER}")
    return found, HistoryBook({DAY: f"{folder}/histories"}), model_folder.open_array(f"{folder}/bundle", "content")


def scores_of_all(folder: str, model: str, dense: np.ndarray, ids: tuple[np.ndarray, ...]) -> np.ndarray:
    """Probabilities (n,); every tower runs for every row."""
    made, book, content = opened(folder, model)
    scenario, user, item = ids
    x = look_up(dense, scenario, item, book.block(user, np.full(len(user), DAY), LENGTH), content)
    with torch.inference_mode():
        if not isinstance(made.body, Single):
            return torch.sigmoid(made(x)[:, 0].double()).numpy()
        tower_B = made.body.router.tower_S[x.scenario_B]
        hidden_BH = all_towers(made.body.towers, made.encoder(x).x_BX, tower_B)
        heads = made.body.heads
        logits_BG = hidden_BH @ heads.weight_GXH[:, :, 0].T + heads.bias_GH[:, 0]
        return torch.sigmoid(logits_BG.gather(1, tower_B[:, None])[:, 0].double()).numpy()


def written(found: Callable[[DataFrame, str, str], DataFrame], rows: DataFrame, folder: str, model: str) -> float:
    """Seconds until the rows' scores are in Delta, by workers that have loaded their model."""
    few = rows.where(F.col(c.USER_IDX) < BLOCK // 10).repartition(FILES)
    found(few, folder, model).write.format("noop").mode("overwrite").save()
    began = time.monotonic()
    found(rows, folder, model).write.format("delta").mode("overwrite").save(f"{folder}/{found.__name__}")
    return time.monotonic() - began


def bare(folder: str, model: str, sizes: Sizes, cores: int) -> float:
    """Rows a second of (b), the best of three."""
    where = (f"{folder}/{model}/{RANKER}", f"{folder}/histories", f"{folder}/bundle", DAY)
    dense, ids = arrays(sizes, BARE_ROWS)
    dense = np.asfortranarray(dense)
    seconds = []
    for _ in range(4):  # the first one loads the model
        began = time.monotonic()
        scoring.probabilities(*where, dense, ids)
        seconds.append(time.monotonic() - began)
        torch.set_num_threads(cores)
    torch.set_num_threads(1)
    return len(dense) / min(seconds[1:])


def arrays(sizes: Sizes, num_rows: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Dense features and ids of the first `num_rows` rows."""
    numbers = range(min(-(-num_rows // (BLOCK * LIST)), sizes.users // BLOCK))
    table = pa.Table.from_batches([block(number, sizes.items) for number in numbers]).slice(0, num_rows)
    return np.column_stack([table[name].to_numpy() for name in NAMES]), tuple(table[name].to_numpy() for name in IDS)


def largest_gap(spark: SparkSession, folder: str, model: str, sizes: Sizes) -> float:
    """The largest difference of our scores from those of the network with all towers, and from (a), for some users."""
    users = min(BLOCK, sizes.udf_users)

    def stored(name: str) -> np.ndarray:
        rows = spark.read.format("delta").load(f"{folder}/{name}").where(F.col(c.USER_IDX) < users).toPandas()
        assert len(rows) == users * LIST
        return rows.sort_values([c.USER_IDX, c.ITEM_IDX])[f"score_{RANKER}"].to_numpy()

    dense, ids = arrays(sizes, users * LIST)
    parts = [slice(low, low + 10_000) for low in range(0, len(dense), 10_000)]
    found = [scores_of_all(folder, model, dense[part], tuple(column[part] for column in ids)) for part in parts]
    expected = np.concatenate(found)[np.lexsort((ids[2], ids[1]))]
    assert expected.std() > 0.01
    mine = stored(ours.__name__)
    return float(max(np.abs(mine - expected).max(), np.abs(mine - stored(pandas_udf.__name__)).max()))


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """No data set is read; one run, `seeds` is not used."""
    sizes = Sizes(users=BLOCK, items=2_000, udf_users=BLOCK // 10) if quick else Sizes()
    cores = os.cpu_count() or 1
    figures: dict[str, Any] = {"rows": sizes.users * LIST, "udf_rows": sizes.udf_users * LIST}
    with tempfile.TemporaryDirectory() as folder:
        spark, new = get_session({"spark.master": f"local[{cores}]", "spark.driver.memory": "4g"}, app_name="score")
        plant(spark, folder, sizes)
        for model in MODELS:
            seconds = written(ours, spark.read.format("delta").load(f"{folder}/candidates"), folder, model)
            udf_seconds = written(pandas_udf, spark.read.format("delta").load(f"{folder}/few"), folder, model)
            rates = {
                "ours": sizes.users * LIST / seconds,
                "udf": sizes.udf_users * LIST / udf_seconds,
                "bare": bare(folder, model, sizes, cores),
            }
            found = {
                f"{model} seconds": round(seconds, 1),
                **{f"{model} {name} rows/s": round(rate) for name, rate in rates.items()},
                f"{model} over udf": round(rates["ours"] / rates["udf"], 2),
                f"{model} over bare": round(rates["ours"] / rates["bare"], 3),
                f"{model} largest gap": largest_gap(spark, folder, model, sizes),
            }
            for name, value in found.items():
                print(f"{name:26s} {value:>12}", flush=True)
            figures |= found
        if new:
            spark.stop()
    return figures
