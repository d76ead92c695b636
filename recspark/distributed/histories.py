"""The histories of a date from the stored tables, and a batch of them as flat arrays."""

from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Config
from recspark.features import Histories
from recspark.tables import histories as table
from recspark.tables import index
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.store import Store

EPOCH = date(1970, 1, 1)
GROUPS = f"{c.SCENARIO} string, {c.SCENARIO_IDX} int, num_users bigint"


def as_of_day(as_of: date) -> int:
    """Days since the epoch."""
    return (as_of - EPOCH).days


def groups_of(store: Store, config: Config, as_of: date) -> list[Row]:
    """(scenario, scenario_idx, num_users) of every scenario with an event before the date, by name."""
    events = store.events(INTERACTIONS, None, as_of)
    found = table.scenario_groups(events, store.read(index.SCENARIO_INDEX), config.scenarios.min_users)
    return sorted(found.collect(), key=lambda row: row[c.SCENARIO])


def known_items(store: Store, as_of: date) -> DataFrame:
    """(item_id, item_idx, content_hash) of the items first seen before the date."""
    known = store.read(ITEMS).where(F.col(c.FIRST_SEEN) < F.lit(as_of)).select(c.ITEM_ID, c.CONTENT_HASH)
    # item_id is the key of both
    return known.join(store.read(index.ITEM_INDEX), on=c.ITEM_ID, how="inner")


def read(store: Store, config: Config, as_of: date, groups: list[Row]) -> DataFrame:
    """HISTORIES of every user with an event before the date; `groups` as from `groups_of`."""
    return table.build(
        store.events(INTERACTIONS, None, as_of),
        store.read(index.USER_INDEX),
        known_items(store, as_of).select(c.ITEM_ID, c.ITEM_IDX),
        store.spark.createDataFrame(groups, GROUPS),
        rules=config.scenarios,
        event_weights=config.interactions.event_weights,
    )


def arrays(batch: pa.RecordBatch) -> Histories:
    """The list columns of HISTORIES rows as flat arrays; their layout in Arrow is the same, so nothing is copied."""
    items = batch.column(c.ITEM_IDX)
    offsets = items.offsets.to_numpy().astype(np.int64)
    flat = {name: batch.column(name).flatten().to_numpy() for name in table.EVENT_FIELDS}
    return Histories(offsets=offsets - offsets[0], **flat)
