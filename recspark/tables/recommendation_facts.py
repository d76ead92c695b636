"""recommendation_facts: the fact that links a listed item to an item of the user's history; for audits and reasons.

A row is one (run_date, scenario, user_id, item_id) of recommendations that shares a fact (relation, entity) with
another item of the user's history. Of several links the one with the rarest entity is kept, then the first in the order
of item_facts.reasons.
"""

from collections.abc import Mapping, Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.tables.candidates import REPEAT
from recspark.warehouse.store import Table

HISTORY_ITEM_ID = "history_item_id"
TABLE = Table(
    noun="recommendation_facts",
    ddl=f"{c.RUN_DATE} date, {c.SCENARIO} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.RELATION} string, "
    f"{c.ENTITY} string, {HISTORY_ITEM_ID} string, {c.RUN_ID} string",
    key=(c.RUN_DATE, c.SCENARIO, c.USER_ID, c.ITEM_ID),
    partition_by=(c.RUN_DATE,),
    row="The fact that links a listed item to an item of the user's history, where there is one. While a night is "
    "published again, the facts of both runs are there: join by run_id too.",
    comments={HISTORY_ITEM_ID: "Item of the user's history that shares the fact. Example: 22866"},
)
PLACE = (c.SCENARIO, c.USER_ID, c.ITEM_ID)  # the key of a row within one night's lists


def build(
    rows: DataFrame, events: DataFrame, facts: DataFrame, reasons: Mapping[str, str], run_date: date, run_id: str
) -> DataFrame:
    """Rows of TABLE for the rows of recommendations (`rows`) that have a link, at most one each.

    `events`: interactions before the night; `facts`: item_facts, of which only the relations of `reasons` count. Of the
    history only the newest item of each entity is joined, so a user has as many rows in the join as facts on the lists.
    """
    known = facts.where(F.col(c.RELATION).isin(*reasons))
    order = F.create_map(*(F.lit(part) for n, name in enumerate(reasons) for part in (name, n)))
    sizes = known.groupBy(c.RELATION, c.ENTITY).agg(F.count("*").alias("items"))
    # (relation, entity) is the key of sizes, so the join keeps one row a fact
    of_lists = rows.where(F.col(c.SOURCE) != REPEAT).select(*PLACE)  # a repeat has its own reason
    of_lists = of_lists.join(known.join(sizes, on=[c.RELATION, c.ENTITY], how="inner"), on=c.ITEM_ID)
    history = events.groupBy(c.USER_ID, c.ITEM_ID).agg(F.max(c.EVENT_TIME).alias("last"))
    by_entity = history.join(known, on=c.ITEM_ID, how="inner").groupBy(c.USER_ID, c.RELATION, c.ENTITY)
    newest = by_entity.agg(F.max(F.struct("last", F.col(c.ITEM_ID).alias(HISTORY_ITEM_ID))).alias("newest"))
    shared = of_lists.join(newest, on=[c.USER_ID, c.RELATION, c.ENTITY], how="inner")
    other = shared.withColumn(HISTORY_ITEM_ID, F.col("newest")[HISTORY_ITEM_ID])
    link = F.struct("items", order[F.col(c.RELATION)].alias("place"), c.RELATION, c.ENTITY, HISTORY_ITEM_ID)
    best = other.where(F.col(HISTORY_ITEM_ID) != F.col(c.ITEM_ID)).groupBy(*PLACE).agg(F.min(link).alias("link"))
    linked = (F.col("link")[name].alias(name) for name in (c.RELATION, c.ENTITY, HISTORY_ITEM_ID))
    found = best.select(F.lit(run_date).alias(c.RUN_DATE), *PLACE, *linked, F.lit(run_id).alias(c.RUN_ID))
    return found.select(TABLE.columns)


def explained(
    rows: DataFrame, links: DataFrame, names: DataFrame, reasons: Mapping[str, str], promoted: Sequence[str]
) -> DataFrame:
    """Rows of recommendations with the reason that their link gives. `names` (item_id, name), unique by item_id.
    `promoted`: what boosts and pins have added to reasons, which stays."""
    history_names = names.select(F.col(c.ITEM_ID).alias(HISTORY_ITEM_ID), "name")
    named = links.join(history_names, on=HISTORY_ITEM_ID, how="inner").select(*PLACE, _sentence(reasons).alias("why"))
    # PLACE is unique among the links, so the join keeps one row a place on a list
    joined = rows.join(named, on=list(PLACE), how="left")
    added = (F.when(F.col(c.REASON).endswith(f", {text}"), F.lit(f", {text}")) for text in promoted)
    why = F.concat("why", F.coalesce(*added, F.lit("")))
    return joined.withColumn(c.REASON, F.coalesce(why, c.REASON)).select(rows.columns)


def _sentence(reasons: Mapping[str, str]) -> Column:
    """The template of a relation with `{item}` and `{entity}` filled in."""
    templates = F.create_map(*(F.lit(part) for pair in reasons.items() for part in pair))[F.col(c.RELATION)]
    return F.replace(F.replace(templates, F.lit("{item}"), F.col("name")), F.lit("{entity}"), F.col(c.ENTITY))
