"""item_facts: facts about items as (item, relation, entity), made from `items` by the configured expressions."""

import math
from datetime import date

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.summary import Summary
from recspark.tables.item_facts import PLACE, SECTION, TABLE, build
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

ROWS_A_FILE = 5_000_000


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Rebuild the table if the items or the expressions have changed; skipped without the section item_facts.

    Raises: ConfigError and SchemaError for an expression that cannot be evaluated.
    """
    del run_date  # not needed: the stage `items` has just run for this date
    if config.item_facts is None:
        return Summary(TABLE.noun, skipped=True, note="not configured")
    relations = config.item_facts.relations
    fingerprint = artifacts.fingerprint(TABLE.noun, config, store.token(ITEMS))
    if not force and store.is_fresh(TABLE, fingerprint):
        return Summary(TABLE.noun, skipped=True, version=store.version(TABLE))
    items = store.read(ITEMS)
    try:
        facts = build(items, relations).persist()
        counts = {row[0]: row[1] for row in facts.groupBy(c.RELATION).count().collect()}
    except expressions.FAILURES as error:
        keys = ", ".join(f"{SECTION}.{name}" for name in relations)
        raise ConfigError(
            f"{keys}: cannot be evaluated over {PLACE} ({expressions.first_line(error)}); expected expressions over "
            f"one item's {', '.join(ITEMS.columns)}"
        ) from None
    try:
        count = sum(counts.values())
        rows = facts.coalesce(max(1, math.ceil(count / ROWS_A_FILE)))
        version = store.replace(TABLE, rows, metadata={artifacts.FINGERPRINT: fingerprint})
    finally:
        facts.unpersist()
    note = ", ".join(f"{name} {counts.get(name, 0):,}" for name in relations)  # 0 may be a misspelt attribute
    return Summary(TABLE.noun, items.count(), count, note=note, version=version)
