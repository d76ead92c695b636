"""What a night would refuse, found in seconds: every expression of the configuration is tried, every source opened.

`configuration` and `expressions_of_sources` read no data and come first in every run of several stages. `sources` reads
the first rows of each source. None of them writes anything.
"""

from collections.abc import Iterator
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.config.sources import Source
from recspark.encoders.weights import versions
from recspark.errors import DataError
from recspark.sources import catalogue, events, given, given_features, raw, users
from recspark.stages.item_embeddings.encoders import ADAPTER, uses_adapter
from recspark.stages.item_embeddings.roots import roots_of
from recspark.stages.item_rules import PLACE, keys_of
from recspark.tables import item_facts, training_examples
from recspark.tables.given_features import names_of
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.interactions import event_weight
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.recommendations import TABLE as RECOMMENDATIONS
from recspark.warehouse.store import Store

FIRST_ROWS = 1000
FEW_ROWS, SOME_ROWS = 20_000, 1_000_000
USER = (c.SCENARIO, c.USER_ID)


def configuration(spark: SparkSession, config: Config) -> list[str]:
    """One line for each part of the configuration that was tried.

    Raises: ConfigError and SchemaError for SQL that is wrong over the columns of `interactions` or `items`, ConfigError
    for an encoder that is missing.
    """
    tasks = config.training_examples.tasks
    interactions = _empty(spark, INTERACTIONS.ddl)
    weighted = interactions.withColumn(c.WEIGHT, event_weight(interactions, config.interactions.event_weights))
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
    roots_of(spark, config)
    return lines


def expressions_of_sources(spark: SparkSession, config: Config, run_date: date) -> None:
    """Open each source and try its expressions on its columns; no row is read. JSON is left to the stages: its columns
    are known only when all of it was read.

    Raises: ConfigError, SchemaError and DataError as the stages do.
    """
    for section, source in _configured(config).items():
        if source.format != "json":
            rows = raw.opened(spark, source, section)
            _parse(section, rows, config, run_date)
            _parse_features(section, rows, config)


def sources(spark: SparkSession, config: Config, run_date: date) -> Iterator[str]:
    """A line for each source, after its first rows were read by the configuration's expressions.

    Raises: ConfigError, SchemaError and DataError as the stages do, and DataError if none of the first rows is usable.
    """
    for section, source in _configured(config).items():
        rows = _first(spark, source, section)
        parsed = _parse(section, rows, config, run_date)
        if section == events.SECTION:
            yield _event_counts(parsed, source)
        else:
            total, good = rows.count(), parsed.count()
            if not good:
                raise DataError(
                    f"{section}: none of the first {total:,} rows can be used; fix the expressions, or the rows"
                )
            yield f"{section}: of the first {total:,} rows {good:,} usable"
        yield from _feature_counts(_parse_features(section, rows, config), section, config)


def _configured(config: Config) -> dict[str, Source]:
    """Section -> source, of those that the configuration has."""
    found = config.source
    named: dict[str, Source | None] = {
        events.SECTION: found.interactions,
        catalogue.SECTION: found.items,
        users.SECTION: found.users,
        given.SECTION: config.candidates.source,
    }
    return {section: source for section, source in named.items() if source is not None}


def _parse(section: str, rows: DataFrame, config: Config, run_date: date) -> DataFrame:
    """The rows of a source as its stage reads them; of the events all, of the others those that can be used."""
    if section == events.SECTION:
        return events.parse(rows, config.source.interactions, run_date, None)
    if section == catalogue.SECTION and config.source.items is not None:
        return catalogue.parse(rows, config.source.items, run_date)
    source = _configured(config)[section]
    names: tuple[str, ...] = given.KEY
    if section == users.SECTION:
        names = (c.USER_ID,) if config.source.users_with_lists is None else USER
    where = raw.place(source)
    ids = (expressions.column(rows, getattr(source, n), "id", f"{section}.{n}", where).alias(n) for n in names)
    return rows.select(*ids).na.drop()


def _parse_features(section: str, rows: DataFrame, config: Config) -> DataFrame | None:
    """The features in the rows of a source; None if it has none."""
    for side, source in given_features.sources_of(config).items():
        if given_features.SECTIONS[side] == section:
            return given_features.parse(rows, source, side)
    return None


def _feature_counts(parsed: DataFrame | None, section: str, config: Config) -> Iterator[str]:
    """Of how many of the first rows each feature is known."""
    if parsed is None:
        return
    side = next(side for side, name in given_features.SECTIONS.items() if name == section)
    names = names_of(given_features.sources_of(config)[side].features)
    values = [F.col(c.NUMBERS)[n] for n in range(len(names.numbers))]
    values += [F.col(c.CATEGORIES)[n] for n in range(len(names.texts))]
    total, *known = parsed.agg(F.count("*"), *map(F.count, values)).collect()[0]
    parts = [f"{name} {n / max(total, 1):.0%}" for name, n in zip((*names.numbers, *names.texts), known, strict=True)]
    yield f"{section}.features: known in the first rows: {', '.join(parts)}"


def night(store: Store, config: Config, run_date: date) -> Iterator[str]:
    """What a night of this date would do, and about how long it takes."""
    yield f"run date {run_date}: events of that day and later are not read"
    rows = raw.about_rows(store.spark, config.source.interactions, events.SECTION)
    dates = store.read(RECOMMENDATIONS).agg(F.max(c.RUN_DATE)) if store.exists(RECOMMENDATIONS) else None
    last = dates.collect()[0][0] if dates is not None else None
    if last is None:
        what = "the first night of this warehouse: every stage is built"
    else:
        what = f"the last published night is {last}: what has not changed since is skipped"
    known = "of unknown number" if rows is None else f"about {rows:,}"
    yield f"{what}; events: {known}"
    yield f"about {_minutes(rows)} on two quiet cores if every stage is built, a quarter of it for the next nights"


def _minutes(rows: int | None) -> str:
    """By first nights on two cores: 2 minutes for 5,000 events, 5 to 10 for 50,000 to 540,000, 41 for 8.6 million."""
    if rows is None or rows <= SOME_ROWS:
        return "2 to 10 minutes" if rows is None or rows > FEW_ROWS else "2 to 5 minutes"
    return f"{max(10, round(rows * 5 / SOME_ROWS))} minutes"


def _event_counts(parsed: DataFrame, source: Source) -> str:
    """What became of the first events."""
    counts = {row[0]: row[1] for row in parsed.groupBy(events.STATE).count().collect()}
    total, good = sum(counts.values()), counts.pop(events.OK, 0)
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(counts.items())) or "none"
    if not good and set(counts) != {events.LATER}:
        first = f"the first {total:,} rows of {raw.place(source)}"
        raise DataError(f"{events.SECTION}: none of {first} can be used ({reasons}); fix the expressions, or the rows")
    named = parsed.where(F.col(events.STATE) == events.OK).select(c.SCENARIO).distinct().limit(5).collect()
    scenarios = ", ".join(sorted(row[0] for row in named)) or "none"
    return f"{events.SECTION}: of the first {total:,} rows {good:,} usable; others: {reasons}; scenarios: {scenarios}"


def _first(spark: SparkSession, source: Source, section: str) -> DataFrame:
    """Of JSON the rows of the first file: Spark reads all that it is given to know the columns."""
    if source.format == "json":
        source = source.model_copy(update={"paths": raw.first_file(spark, source, section)})
    return raw.read(spark, source, section).limit(FIRST_ROWS)


def _empty(spark: SparkSession, ddl: str) -> DataFrame:
    return spark.createDataFrame([], ddl)
