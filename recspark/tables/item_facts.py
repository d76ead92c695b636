"""item_facts: what is known of an item as a graph, one row an (item, relation, entity), made from `items`."""

import math
from collections.abc import Mapping
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Config
from recspark.errors import ConfigError
from recspark.summary import Summary
from recspark.tables import raw
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.store import Store, Table

TABLE = Table(
    noun="item_facts",
    ddl=f"{c.ITEM_ID} string, {c.RELATION} string, {c.ENTITY} string",
    key=(c.ITEM_ID, c.RELATION, c.ENTITY),
)

SECTION = "item_facts.relations"
PLACE = "the table items"
ENTITIES = "_entities"
ROWS_A_FILE = 5_000_000


def build(items: DataFrame, relations: Mapping[str, str]) -> DataFrame:
    """Every fact once, trimmed; nulls, blanks and what is no UTF-8 are none. `relations`: name -> SQL over `items`.

    Raises ConfigError and SchemaError for an expression that gives no text and no array of texts.
    """
    found = [
        F.struct(
            F.lit(name).alias(c.RELATION), raw.column(items, sql, "texts", f"{SECTION}.{name}", PLACE).alias(ENTITIES)
        )
        for name, sql in relations.items()
    ]
    each = items.select(c.ITEM_ID, F.inline(F.array(*found)))
    facts = each.select(c.ITEM_ID, c.RELATION, F.explode(ENTITIES).alias(c.ENTITY))
    good = (F.trim(c.ENTITY) != "") & F.is_valid_utf8(c.ENTITY)  # a Spark string may hold any bytes
    return facts.where(good).select(c.ITEM_ID, c.RELATION, F.trim(c.ENTITY).alias(c.ENTITY)).distinct()


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Make the table anew when the items or the expressions have changed; nothing without `item_facts.relations`.

    Raises ConfigError and SchemaError for an expression that cannot be evaluated.
    """
    del run_date  # `items` are those of the night
    if config.item_facts is None:
        return Summary(TABLE.noun, skipped=True, note="not configured")
    relations = config.item_facts.relations
    fingerprint = store.fingerprint(sorted(relations.items()), store.token(ITEMS))
    if not force and store.is_fresh(TABLE, fingerprint):
        return Summary(TABLE.noun, skipped=True, version=store.version(TABLE))
    items = store.read(ITEMS)
    try:
        facts = build(items, relations).persist()
        counts = {row[0]: row[1] for row in facts.groupBy(c.RELATION).count().collect()}
    except raw.FAILURES as error:
        keys = ", ".join(f"{SECTION}.{name}" for name in relations)
        raise ConfigError(
            f"{keys}: cannot be evaluated over {PLACE} ({raw.first_line(error)}); expected expressions over one item's "
            f"{', '.join(ITEMS.columns)}"
        ) from None
    try:
        count = sum(counts.values())
        rows = facts.coalesce(max(1, math.ceil(count / ROWS_A_FILE)))
        version = store.replace(TABLE, rows, metadata={"fingerprint": fingerprint})
    finally:
        facts.unpersist()
    note = ", ".join(f"{name} {counts.get(name, 0):,}" for name in relations)  # 0: perhaps a misspelt attribute
    return Summary(TABLE.noun, items.count(), count, note=note, version=version)
