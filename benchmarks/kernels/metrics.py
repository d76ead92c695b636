"""Six metrics at four cutoffs of two tables, lists and what users did, by Spark: `python -m benchmarks metrics`.

138,000 users with lists of 20 items, 20 million interactions. Ours is `list_metrics` of
recspark/stages/model_metrics/evaluation.py, which measures published lists. It is compared with RePlay's Spark metrics
(PyPI replay-rec) in an environment of their own: make one with
`uv venv ENV && uv pip install --python ENV/bin/python "replay-rec[spark]"` and set REPLAY_PYTHON=ENV/bin/python.
Without that it is compared with MLlib's RankingMetrics, which has four of the six. Both use the same number of cores
and inputs cached in memory, are warmed up on 5,000 users, and have a heap that is touched before the clock starts:
where a virtual machine gets its memory at the first touch, that took a third of the time.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import metrics
from recspark.histories import owners, ranges
from recspark.session import get_session
from recspark.stages.model_metrics import evaluation

CUTOFFS = (1, 5, 10, 20)
LIST, POOL, KNOWN = 20, 64, 16  # a list is drawn from a pool; the user interacted with a quarter of it
FILES = 8
WARM = 5_000  # users, see WARM in replay_metrics.py


@dataclass(frozen=True)
class World:
    """`item` (n,): the items that users interacted with, sorted by user, with `offsets` (U + 1,); `lists` (U, LIST)."""

    offsets: np.ndarray
    item: np.ndarray
    lists: np.ndarray


def world(users: int, interactions: int, items: int) -> World:
    """Random interactions and lists, always the same ones. `items` must be a prime number: a user's items are then the
    steps of a walk around the catalogue, and none comes twice."""
    rng = np.random.default_rng(0)
    share = rng.lognormal(0.0, 0.8, users)
    size = KNOWN + np.minimum((share / share.sum() * (interactions - KNOWN * users)).astype(int), items // 2)
    offsets = np.concatenate(([0], np.cumsum(size)))
    first, step = rng.integers(0, items, users), rng.integers(1, items, users)
    item = (np.repeat(first, size) + ranges(size) * np.repeat(step, size)) % items
    drawn = rng.random((users, POOL)).argpartition(LIST, axis=1)[:, :LIST]
    places = np.where(drawn < KNOWN, drawn, drawn + size[:, None])  # after the user's own items: not interacted with
    return World(offsets, item, (first[:, None] + places * step[:, None]) % items)


def write(made: World, folder: str) -> None:
    """Write both tables as Parquet; RePlay orders lists by a rating."""
    users = len(made.lists)
    rank = np.tile(np.arange(1, LIST + 1, dtype=np.int32), users)
    tables = {
        "recommendations": {
            "user_id": np.repeat(np.arange(users, dtype=np.int32), LIST),
            "item_id": made.lists.ravel().astype(np.int32),
            "rank": rank,
            "rating": -rank.astype(np.float64),
        },
        "truth": {
            "user_id": np.repeat(np.arange(users, dtype=np.int32), np.diff(made.offsets)),
            "item_id": made.item.astype(np.int32),
        },
    }
    for name, columns in tables.items():
        Path(folder, name).mkdir()
        table = pa.table(columns)
        table = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))  # events are not sorted by user
        size = -(-len(table) // FILES)
        for number in range(FILES):
            pq.write_table(table.slice(number * size, size), f"{folder}/{name}/part-{number}.parquet")


def expected(made: World) -> dict[str, float]:
    """The values by the NumPy definitions of recspark.metrics."""
    users = len(made.lists)
    width = int(made.item.max()) + 1
    done = owners(made.offsets) * width + made.item
    hit = np.isin((np.arange(users)[:, None] * width + made.lists).ravel(), done).astype(float)
    offsets, relevant = np.arange(users + 1) * LIST, np.diff(made.offsets)
    return {
        f"{name}@{k}": float(measured(hit, offsets, relevant, k).mean())
        for name, measured in metrics.AT_K.items()
        for k in CUTOFFS
    }


def ours(tables: tuple[DataFrame, DataFrame]) -> tuple[float, dict[str, float]]:
    few = (table.where(F.col("user_id") < WARM) for table in tables)
    evaluation.list_metrics(*few, CUTOFFS).collect()
    began = time.monotonic()
    rows = evaluation.list_metrics(*tables, CUTOFFS).collect()
    return time.monotonic() - began, {row["metric"]: row["value"] for row in rows}


def replay(python: str, folder: str, cores: int) -> tuple[float, dict[str, float]]:
    script = str(Path(__file__).with_name("replay_metrics.py"))
    cutoffs = ",".join(str(k) for k in CUTOFFS)
    command = [python, script, folder, f"local[{cores}]", cutoffs]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK", "SPARK", "PYTHONPATH"))
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found["seconds"], found["values"]


def mllib(tables: tuple[DataFrame, DataFrame]) -> tuple[float, dict[str, float]]:
    """Seconds and values of RankingMetrics, which makes a Java object of every item of every list."""
    _mllib(*(table.where(F.col("user_id") < WARM) for table in tables))
    began = time.monotonic()
    values = _mllib(*tables)
    return time.monotonic() - began, values


def _mllib(recommendations: DataFrame, truth: DataFrame) -> dict[str, float]:
    from pyspark.mllib.evaluation import RankingMetrics

    ordered = F.sort_array(F.collect_list(F.struct("rank", "item_id")))
    found = recommendations.groupBy("user_id").agg(ordered.alias("found"))
    done = truth.groupBy("user_id").agg(F.collect_set("item_id").alias("done"))
    pairs = found.join(done, on="user_id", how="right").select(F.col("found.item_id").alias("found"), "done").cache()
    pairs.count()
    measured = RankingMetrics(pairs.rdd.map(lambda row: (row[0] or [], row[1])))
    names = {"precision": "precisionAt", "recall": "recallAt", "ndcg": "ndcgAt", "map": "meanAveragePrecisionAt"}
    values = {f"{name}@{k}": getattr(measured, theirs)(k) for name, theirs in names.items() for k in CUTOFFS}
    pairs.unpersist()
    return values


def gap(left: dict[str, float], right: dict[str, float]) -> float:
    """The largest difference of the values that are in both."""
    return max(abs(left[name] - right[name]) for name in left.keys() & right.keys())


def cached(spark: SparkSession, folder: str) -> tuple[DataFrame, DataFrame]:
    tables = tuple(spark.read.parquet(f"{folder}/{name}").cache() for name in ("recommendations", "truth"))
    for table in tables:
        table.count()
    return tables[0], tables[1]


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """No data set is read; one run, `seeds` is not used."""
    made = world(2_000, 200_000, 5_003) if quick else world(138_000, 20_000_000, 27_011)
    cores, python = os.cpu_count() or 1, os.environ.get("REPLAY_PYTHON")
    with tempfile.TemporaryDirectory() as folder:
        write(made, folder)
        settings = {
            "spark.master": f"local[{cores}]",
            "spark.driver.memory": "8g",
            "spark.driver.extraJavaOptions": "-XX:InitialHeapSize=8g -XX:MinHeapSize=8g -XX:+AlwaysPreTouch",
        }
        spark, new = get_session(settings, app_name="metrics")
        tables = cached(spark, folder)
        seconds, values = ours(tables)
        print(f"ours: {seconds:.2f} s", flush=True)
        peer, theirs = (0.0, {}) if python else mllib(tables)
        for table in tables:
            table.unpersist()
        if new:
            spark.stop()
        if python:
            peer, theirs = replay(python, folder, cores)
    if not python:
        print("REPLAY_PYTHON is not set: compared with MLlib's RankingMetrics, which has four of the six metrics")
    found = {
        "peer": "replay" if python else "mllib",
        "users": len(made.lists),
        "interactions": len(made.item),
        "seconds": round(seconds, 2),
        "peer_seconds": round(peer, 2),
        "times_faster": round(peer / seconds, 2),
        "largest_gap_to_numpy": gap(expected(made), values),
        "largest_gap_of_the_peer": gap(expected(made), theirs),
    }
    for name, value in found.items():
        print(f"{name:26s} {value}")
    return found
