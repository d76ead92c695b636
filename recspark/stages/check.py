"""What a night would refuse, found in seconds: every expression of the configuration is tried, every source opened.

`configuration` reads no data and comes first in every run of several stages. `sources` reads the first rows of each
source. Neither writes anything.
"""

from collections.abc import Iterator, Sequence
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.config.sources import Source
from recspark.encoders.weights import versions
from recspark.errors import DataError
from recspark.sources import catalogue, events, given, raw, users
from recspark.stages.item_embeddings.encoders import ADAPTER, uses_adapter
from recspark.stages.item_rules import PLACE, keys_of
from recspark.tables import item_facts, training_examples
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.interactions import event_weight
from recspark.tables.items import TABLE as ITEMS

FIRST_ROWS = 1000


def configuration(spark: SparkSession, config: Config) -> list[str]:
    """One line for each part of the configuration that was tried.

    Raises: ConfigError and SchemaError for SQL that is wrong over the columns of `interactions` or `items`, ConfigError
    for an encoder that is missing.
    """
    tasks = config.training_examples.tasks
    weighted = _empty(spark, INTERACTIONS.ddl).withColumn(c.WEIGHT, event_weight(config.interactions.event_weights))
    training_examples.labels(weighted, (c.SCENARIO, c.USER_ID, c.ITEM_ID), tasks)
    lines = [f"training_examples.tasks: {', '.join(task.name for task in tasks)}"]
    items = _empty(spark, ITEMS.ddl)
    rules = keys_of(config)
    for (kind, sql), key in rules.items():
        with_date = items.withColumn(c.RUN_DATE, F.lit(date(2000, 1, 1)))
        expressions.column(with_date, sql, "condition" if kind == "where" else "text", key, PLACE)
    lines += [f"scenarios: SQL of rules: {len(rules)}"] if rules else []
    if config.item_facts is not None:
        item_facts.build(items, config.item_facts.relations)
        lines.append(f"item_facts.relations: {', '.join(config.item_facts.relations)}")
    adapter = [ADAPTER] if uses_adapter(config) else []
    found = versions([one for one in config.item_embeddings.all if one.encoder != ADAPTER])
    lines.append(f"item_embeddings: {', '.join((*found, *adapter))}")
    return lines


def sources(spark: SparkSession, config: Config, run_date: date) -> Iterator[str]:
    """A line for each source, after its first rows were read by the configuration's expressions.

    Raises: ConfigError, SchemaError and DataError as the stages do, and DataError if none of the first rows is usable.
    """
    found, candidates = config.source, config.candidates.source
    yield _interactions(_first(spark, found.interactions, events.SECTION), config, run_date)
    if found.items is not None:
        rows = _first(spark, found.items, catalogue.SECTION)
        yield _counted(catalogue.SECTION, rows, catalogue.parse(rows, found.items, run_date))
    if found.users is not None:
        yield _ids(_first(spark, found.users, users.SECTION), found.users, users.SECTION, (c.SCENARIO, c.USER_ID))
    if candidates is not None:
        yield _ids(_first(spark, candidates, given.SECTION), candidates, given.SECTION, given.KEY)


def _interactions(rows: DataFrame, config: Config, run_date: date) -> str:
    parsed = events.parse(rows, config.source.interactions, run_date, None)
    counts = {row[0]: row[1] for row in parsed.groupBy(events.STATE).count().collect()}
    total, good = sum(counts.values()), counts.pop(events.OK, 0)
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(counts.items())) or "none"
    if not good and set(counts) != {events.LATER}:
        first = f"the first {total:,} rows of {raw.place(config.source.interactions)}"
        raise DataError(f"{events.SECTION}: none of {first} can be used ({reasons}); fix the expressions, or the rows")
    named = parsed.where(F.col(events.STATE) == events.OK).select(c.SCENARIO).distinct().limit(5).collect()
    scenarios = ", ".join(sorted(row[0] for row in named)) or "none"
    return f"{events.SECTION}: of the first {total:,} rows {good:,} usable; others: {reasons}; scenarios: {scenarios}"


def _ids(rows: DataFrame, source: Source, section: str, names: Sequence[str]) -> str:
    where = raw.place(source)
    ids = (expressions.column(rows, getattr(source, n), "id", f"{section}.{n}", where).alias(n) for n in names)
    return _counted(section, rows, rows.select(*ids).na.drop())


def _counted(section: str, rows: DataFrame, usable: DataFrame) -> str:
    total, good = rows.count(), usable.count()
    if not good:
        raise DataError(f"{section}: none of the first {total:,} rows can be used; fix the expressions, or the rows")
    return f"{section}: of the first {total:,} rows {good:,} usable"


def _first(spark: SparkSession, source: Source, section: str) -> DataFrame:
    return raw.read(spark, source, section).limit(FIRST_ROWS)


def _empty(spark: SparkSession, ddl: str) -> DataFrame:
    return spark.createDataFrame([], ddl)
