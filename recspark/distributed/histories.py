"""The histories of a date from the stored tables, and a batch of them as flat arrays."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Config
from recspark.features import Histories
from recspark.tables import histories as table
from recspark.tables import index
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.store import Store
from recspark.training import checkpoint


def groups_of(store: Store, config: Config, as_ofs: Sequence[date]) -> dict[date, list[table.Group]]:
    """Of each date the scenarios with an event before it, by name."""
    events = store.events(INTERACTIONS, None, max(as_ofs))
    return table.scenario_groups(events, store.read(index.SCENARIO_INDEX), config.scenarios.min_users, as_ofs)


def groups_in(bundle: str) -> list[table.Group]:
    """The same of one date, as its retriever keeps them."""
    return [table.Group(*group) for group in checkpoint.read_manifest(bundle)["scenario_groups"]]


def known_items(store: Store, as_of: date) -> DataFrame:
    """(item_id, item_idx, content_hash) of the items first seen before the date."""
    known = store.read(ITEMS).where(F.col(c.FIRST_SEEN) < F.lit(as_of)).select(c.ITEM_ID, c.CONTENT_HASH)
    # item_id is the key of both
    return known.join(store.read(index.ITEM_INDEX), on=c.ITEM_ID, how="inner")


def whole(store: Store, config: Config, run_date: date) -> DataFrame:
    """What everyone did before the date: what `table.as_of` takes the histories of that and any earlier date from."""
    return table.whole(
        store.events(INTERACTIONS, None, run_date),
        store.read(index.USER_INDEX),
        known_items(store, run_date).select(c.ITEM_ID, c.ITEM_IDX),
        store.read(index.SCENARIO_INDEX),
        event_weights=config.interactions.event_weights,
    )


def read(store: Store, config: Config, as_of: date, groups: Sequence[table.Group]) -> DataFrame:
    """HISTORIES of every user with an event before the date; `groups`: those of the date."""
    return table.as_of(whole(store, config, as_of), as_of, groups, config.scenarios)


def arrays(batch: pa.RecordBatch) -> Histories:
    """The list columns of HISTORIES rows as flat arrays; their layout in Arrow is the same, so nothing is copied."""
    items = batch.column(c.ITEM_IDX)
    offsets = items.offsets.to_numpy().astype(np.int64)
    flat = {name: batch.column(name).flatten().to_numpy() for name in table.EVENT_FIELDS}
    return Histories(offsets=offsets - offsets[0], **flat)
