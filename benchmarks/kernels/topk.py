"""The K best items of every user, by Spark into Delta: `python -m benchmarks topk`.

Random factors; the kernel of recspark/models/topk.py runs in blocks of users, as in the stage candidates, and leaves
out every user's seen items (100 on average, one user has 20,000). It is compared with MLlib's
ALSModel.recommendForAllUsers, which leaves nothing out, on the same factors and written the same way. Without Spark, on
one thread: the kernel compared with a bare matrix product of the same size, and the time that the heavy user adds.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from pyspark.sql import SparkSession

from recspark.models.topk import Product, top_k
from recspark.session import get_session

USERS_A_BLOCK = 512  # config.candidates.block_users
TASKS_A_CORE = 4
HEAVY = 20_000  # items that one user has seen


@dataclass(frozen=True)
class Sizes:
    users: int = 100_000
    items: int = 50_000
    factors: int = 64
    k: int = 100
    seen: int = 100  # items of a user, on average


def world(sizes: Sizes, folder: str, heavy: int) -> None:
    """Save factors and seen items as arrays that every worker maps into its memory."""
    rng = np.random.default_rng(0)
    for name, rows in (("users", sizes.users), ("items", sizes.items)):
        np.save(f"{folder}/{name}.npy", rng.normal(size=(rows, sizes.factors)).astype(np.float32))
    size = rng.poisson(sizes.seen, sizes.users)
    size[0] = heavy
    offsets = np.concatenate(([0], np.cumsum(size)))
    seen = rng.integers(0, sizes.items, offsets[-1]).astype(np.int32)
    seen[:heavy] = rng.permutation(sizes.items)[:heavy]
    np.save(f"{folder}/offsets.npy", offsets)
    np.save(f"{folder}/seen.npy", seen)


def lists(ids: np.ndarray, folder: str, sizes: Sizes) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(users (U,), items (U, K), scores (U, K)) of each block of users; `ids` are ascending and without gaps."""
    users, items, offsets, seen = (
        np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in ("users", "items", "offsets", "seen")
    )
    items_FI = np.ascontiguousarray(items.T)
    for low in range(0, len(ids), USERS_A_BLOCK):
        some = ids[low : low + USERS_A_BLOCK]
        ends = offsets[some[0] : some[-1] + 2]
        columns = seen[ends[0] : ends[-1]]
        masked = sp.csr_matrix((np.ones(len(columns), bool), columns, ends - ends[0]), shape=(len(some), sizes.items))
        yield some, *top_k(Product(users[some], items_FI), sizes.k, masked)


def rows(batches: Iterator[pa.RecordBatch], folder: str, sizes: Sizes) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for some, found, score in lists(batch.column(0).to_numpy(), folder, sizes):
            rank = np.tile(np.arange(1, sizes.k + 1, dtype=np.int32), len(some))
            user = np.repeat(some.astype(np.int32), sizes.k)
            yield pa.RecordBatch.from_arrays(
                [pa.array(column) for column in (user, rank, found.ravel(), score.ravel())],
                names=["user_idx", "rank", "item_idx", "score"],
            )


def ours(spark: SparkSession, folder: str, sizes: Sizes, num_users: int, cores: int) -> float:
    began = time.monotonic()
    users = spark.range(num_users, numPartitions=cores * TASKS_A_CORE)
    found = users.mapInArrow(
        partial(rows, folder=folder, sizes=sizes), "user_idx int, rank int, item_idx int, score float"
    )
    ranged = {"delta.dataSkippingStatsColumns": "user_idx"}  # as in recspark's tables
    found.write.format("delta").options(**ranged).mode("overwrite").save(f"{folder}/ours")
    seconds = time.monotonic() - began
    assert spark.read.format("delta").load(f"{folder}/ours").count() == num_users * sizes.k
    return seconds


def mllib(spark: SparkSession, folder: str, sizes: Sizes, num_users: int) -> float:
    """Seconds of an ALSModel with the same factors. Python has no API for its constructor: it is called in the JVM."""
    from pyspark.ml.recommendation import ALSModel

    def factors(name: str) -> Any:
        array = np.load(f"{folder}/{name}.npy", mmap_mode="r")[: num_users if name == "users" else None]
        table = pa.table({
            "id": np.arange(len(array), dtype=np.int32),
            "features": pa.FixedSizeListArray.from_arrays(array.ravel(), sizes.factors).cast(pa.list_(pa.float32())),
        })  # fmt: skip
        pq.write_table(table, f"{folder}/{name}.parquet")
        return spark.read.parquet(f"{folder}/{name}.parquet").repartition(spark.sparkContext.defaultParallelism).cache()

    sides = [factors(name) for name in ("users", "items")]
    for side in sides:
        side.count()
    java = spark._jvm.org.apache.spark.ml.recommendation.ALSModel
    built = java("als", sizes.factors, *(side._jdf for side in sides))
    model = ALSModel(built.setUserCol("user_idx").setItemCol("item_idx").setBlockSize(4096))  # the default block
    began = time.monotonic()
    model.recommendForAllUsers(sizes.k).write.format("delta").mode("overwrite").save(f"{folder}/mllib")
    seconds = time.monotonic() - began
    for side in sides:
        side.unpersist()  # else the next call, whose plan is equal, would read these rows
    assert spark.read.format("delta").load(f"{folder}/mllib").count() == num_users
    return seconds


def same(spark: SparkSession, folder: str, sizes: Sizes) -> float:
    """The share of MLlib's unseen items that are first in our lists too, for some users: 1 except for rounding."""
    theirs = spark.read.format("delta").load(f"{folder}/mllib").where("user_idx < 50")
    kept = {row[0]: [item[0] for item in row[1]] for row in theirs.collect()}
    mine = (
        spark.read.format("delta").load(f"{folder}/ours").where("user_idx < 50").orderBy("user_idx", "rank").collect()
    )
    offsets, seen = np.load(f"{folder}/offsets.npy"), np.load(f"{folder}/seen.npy")
    hits = []
    for user, items in kept.items():
        hidden = set(seen[offsets[user] : offsets[user + 1]].tolist())
        allowed = [item for item in items if item not in hidden]
        ordered = [row["item_idx"] for row in mine if row["user_idx"] == user][: len(allowed)]
        hits.append(np.isin(allowed, ordered).mean() if allowed else 1.0)
    return float(np.mean(hits))


def alone(folder: str, sizes: Sizes, users: int) -> dict[str, float]:
    """CPU seconds of this process, best of three: the matrix product alone, and with the choice of the best items."""
    ids = np.arange(users)
    queries = np.load(f"{folder}/users.npy")[:users]
    items_FI = np.ascontiguousarray(np.load(f"{folder}/items.npy").T)

    def product() -> None:
        for low in range(0, users, USERS_A_BLOCK):
            np.matmul(queries[low : low + USERS_A_BLOCK], items_FI)

    def kernel() -> None:
        for _ in lists(ids, folder, sizes):
            pass

    found = {}
    for name, task in (("product", product), ("kernel", kernel)):
        seconds = []
        for _ in range(3):
            began = time.process_time()
            task()
            seconds.append(time.process_time() - began)
        found[name] = min(seconds)
    return found


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """No data set is read; one run, `seeds` is not used."""
    sizes = Sizes(users=4_000, items=5_000) if quick else Sizes()
    heavy, cores = min(HEAVY, sizes.items // 2), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        world(sizes, folder, heavy=sizes.seen)
        light = alone(folder, sizes, 8 * USERS_A_BLOCK if not quick else USERS_A_BLOCK)
        world(sizes, folder, heavy=heavy)
        loaded = alone(folder, sizes, 8 * USERS_A_BLOCK if not quick else USERS_A_BLOCK)
        spark, _ = get_session({"spark.master": f"local[{cores}]", "spark.driver.memory": "8g"}, app_name="topk")
        for num_users in (sizes.users // 20, sizes.users):  # a few first: Java warms up
            seconds = {
                "ours": ours(spark, folder, sizes, num_users, cores),
                "mllib": mllib(spark, folder, sizes, num_users),
            }
        agree = same(spark, folder, sizes)
        spark.stop()
    found = {
        "seconds": round(seconds["ours"], 1),
        "mllib_seconds": round(seconds["mllib"], 1),
        "times_faster": round(seconds["mllib"] / seconds["ours"], 2),
        "of_the_product": round(loaded["product"] / loaded["kernel"], 3),
        "heavy_user_adds": round(loaded["kernel"] / light["kernel"] - 1, 3),
        "same_items": round(agree, 4),
    }
    for name, value in found.items():
        print(f"{name:16s} {value}")
    return {**found, "users": sizes.users, "items": sizes.items}
