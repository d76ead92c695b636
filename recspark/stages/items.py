"""items: one row for each item of the catalogue or of the events before run_date, with the date it was first seen."""

import math
from datetime import date

from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.sources import raw
from recspark.sources.catalogue import SECTION, newest, parse
from recspark.summary import Summary
from recspark.tables import index
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE, build
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

ROWS_A_FILE = 1_000_000


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Update items and item_index from the present catalogue and the events before run_date."""
    source = config.source.items
    events = store.digest(INTERACTIONS, c.EVENT_DATE, run_date)
    catalogue = None if source is None else raw.fingerprint(store.spark, source, SECTION)
    fingerprint = artifacts.fingerprint(TABLE.noun, config, run_date, events, catalogue)
    if not force and store.exists(index.ITEM_INDEX) and artifacts.is_fresh(store, TABLE, run_date, fingerprint):
        return Summary(TABLE.noun, skipped=True, version=store.version(TABLE))
    rows = None if source is None else raw.read(store.spark, source, SECTION)
    listed = None if source is None or rows is None else newest(parse(rows, source, run_date), source)
    left_out = 0 if rows is None else raw.num_malformed(rows)
    stored = store.read(TABLE) if store.exists(TABLE) else None
    changed = build(listed, store.events(INTERACTIONS, None, run_date), stored, run_date).persist()
    # Both before the merge: after it Spark may compute `changed` again, from a table that has these rows already.
    count, without_text = changed.agg(F.count("*"), F.count_if(F.col(c.TEXT).isNull())).collect()[0]
    ids = changed.select(c.ITEM_ID) if stored is None else changed.select(c.ITEM_ID).union(stored.select(c.ITEM_ID))
    index.refresh(store, index.ITEM_INDEX, ids)
    if count:
        store.merge(TABLE, changed.coalesce(math.ceil(count / ROWS_A_FILE)), {artifacts.FINGERPRINT: fingerprint})
    changed.unpersist()
    artifacts.confirm(store, TABLE, run_date, fingerprint)
    note = f"{count} new or changed, {without_text} of them without text"
    if left_out:
        note += f"; {left_out} malformed rows of the catalogue left out: their number of values is not the header's"
    return Summary(TABLE.noun, count, store.read(TABLE).count(), note=note, version=store.version(TABLE))
