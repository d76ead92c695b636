"""item_facts: the facts of each item as a graph, one row an (item, relation, entity), made from `items`."""

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.warehouse.store import Table

TABLE = Table(
    noun="item_facts",
    ddl=f"{c.ITEM_ID} string, {c.RELATION} string, {c.ENTITY} string",
    key=(c.ITEM_ID, c.RELATION, c.ENTITY),
    row="A fact of an item, made from items by item_facts.relations.",
)

SECTION = "item_facts.relations"
PLACE = "the table items"
ENTITIES = "_entities"


def build(items: DataFrame, relations: Mapping[str, str]) -> DataFrame:
    """Every fact once, trimmed; nulls, blanks and invalid UTF-8 are left out. `relations`: name -> SQL over `items`.

    Raises: ConfigError and SchemaError for an expression that gives neither a text nor an array of texts.
    """
    found = [
        F.struct(
            F.lit(name).alias(c.RELATION),
            expressions.column(items, sql, "texts", f"{SECTION}.{name}", PLACE).alias(ENTITIES),
        )
        for name, sql in relations.items()
    ]
    each = items.select(c.ITEM_ID, F.inline(F.array(*found)))
    facts = each.select(c.ITEM_ID, c.RELATION, F.explode(ENTITIES).alias(c.ENTITY))
    good = (F.trim(c.ENTITY) != "") & F.is_valid_utf8(c.ENTITY)  # a Spark string may hold any bytes
    return facts.where(good).select(c.ITEM_ID, c.RELATION, F.trim(c.ENTITY).alias(c.ENTITY)).distinct()
