"""The ranker's view of users' histories, written by Spark tasks: a shard of users each, as flat arrays."""

from collections.abc import Callable
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Config
from recspark.distributed import histories as histories_of
from recspark.tables.store import Store
from recspark.training import checkpoint
from recspark.training.histories import USERS_A_SHARD, finish, save_shard

SHARD = "shard"
LISTS = (c.ITEM_IDX, c.SCENARIO_IDX, "time", c.WEIGHT)


def folder(store: Store, bundle: str) -> str:
    """Named like the retriever's bundle of the date: the same events make both."""
    return f"{store.models('histories')}/{bundle.rsplit('/', 1)[-1]}"


def ensure(store: Store, config: Config, as_of: date, bundle: str) -> str:
    """Write the histories of a date unless the retriever stage has; returns their folder."""
    target = folder(store, bundle)
    if not checkpoint.exists(target):
        write(histories_of.read(store, config, as_of, histories_of.groups_in(bundle)), target)
    return target


def write(histories: DataFrame, target: str) -> None:
    """Positive events of HISTORIES rows -> shards. A task holds the events of at most USERS_A_SHARD users."""
    rows = histories.where(F.col(c.USER_IDX) >= 0).select(
        F.expr(f"{c.USER_IDX} div {USERS_A_SHARD}").cast("int").alias(SHARD), c.USER_IDX, *LISTS
    )
    written = rows.groupBy(SHARD).applyInArrow(_writer(target), f"{SHARD} int").collect()  # one row a shard
    finish(target, [row[0] for row in written], {})


def _writer(target: str) -> Callable[[pa.Table], pa.Table]:
    def save(rows: pa.Table) -> pa.Table:
        batch = rows.combine_chunks().to_batches()[0]
        shard = int(batch.column(SHARD)[0].as_py())
        lists = batch.column(c.ITEM_IDX)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        item, scenario, time, weight = (batch.column(name).flatten().to_numpy() for name in LISTS)
        positive = weight > 0
        ends = np.concatenate(([0], np.cumsum(positive)))[offsets - offsets[0]]
        users = batch.column(c.USER_IDX).to_numpy()
        save_shard(target, shard, users, ends, item[positive], scenario[positive], time[positive])
        return pa.table({SHARD: pa.array([shard], pa.int32())})

    return save
