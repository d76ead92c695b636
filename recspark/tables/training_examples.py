"""training_examples: past candidates, labelled with what users did in the window after their as_of date.

Examples are exactly the retrieved candidates. A later purchase that was not retrieved is no example; it counts in the
recall of the candidates (model_metrics).
"""

from collections.abc import Sequence
from datetime import date

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config, Task
from recspark.errors import ConfigError
from recspark.expressions import first_line
from recspark.features import FEATURES
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.interactions import event_weight
from recspark.warehouse.store import Table
from recspark.windows import as_of_day

FOLDS = 10


def label_column(task: str) -> str:
    return f"{c.LABEL}_{task}"


def table(tasks: tuple[Task, ...]) -> Table:
    """The contract for these tasks: plain numbers only, since list columns are slow to read in training."""
    numbers = ", ".join(f"{name} float" for name in (*FEATURES, *(label_column(t.name) for t in tasks)))
    keys = f"{c.AS_OF} date, as_of_day int, {c.SCENARIO_IDX} int, {c.USER_IDX} int, {c.ITEM_IDX} int"
    return Table(
        noun="training_examples",
        ddl=f"{keys}, {numbers}, {c.WEIGHT} float, {c.FOLD} int",
        key=(c.AS_OF, c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX),
        partition_by=(c.AS_OF,),
    )


def outcomes(events: DataFrame, users: DataFrame, items: DataFrame, config: Config) -> DataFrame:
    """(scenario, user_idx, item_idx, label_<task> ...) of everything that happened in a window.

    `users` and `items` are the indices: unique by id, so the joins keep one row an event.
    Raises: see `labels`.
    """
    weighted = events.withColumn(c.WEIGHT, event_weight(config.interactions.event_weights))
    indexed = weighted.join(users, on=c.USER_ID, how="inner").join(F.broadcast(items), on=c.ITEM_ID, how="inner")
    return labels(indexed, (c.SCENARIO, c.USER_IDX, c.ITEM_IDX), config.training_examples.tasks)


def labels(weighted: DataFrame, keys: Sequence[str], tasks: Sequence[Task]) -> DataFrame:
    """(keys, label_<task> ...) of events with their weight.

    Raises: ConfigError when a task's SQL does not parse or names an unknown column.
    """
    try:
        return weighted.groupBy(*keys).agg(*(F.expr(t.sql).cast("float").alias(label_column(t.name)) for t in tasks))
    except (AnalysisException, ParseException) as error:
        raise ConfigError(
            f"training_examples.tasks: {first_line(error)}; expected aggregates over "
            f"{', '.join((*INTERACTIONS.columns, c.WEIGHT))}, such as `sum(weight) > 0`"
        ) from None


def build(candidate_rows: DataFrame, labels: DataFrame, config: Config, as_of: date) -> DataFrame:
    """Label the candidates of one as_of date, and sample the users without a positive of the first task.

    Without an event a binary label is 0 and a regression label NaN (regressions learn only from measured values).
    A sampled user's rows have the inverse of the rate as their weight.
    """
    tasks = config.training_examples.tasks
    key, user = [c.SCENARIO, c.USER_IDX, c.ITEM_IDX], [c.SCENARIO, c.USER_IDX]
    # Users first, over the key columns alone: so the wide rows are sampled before they are shuffled.
    positives = labels.where(F.col(label_column(tasks[0].name)) > 0).select(key)
    hits = candidate_rows.select(key).join(positives, on=key, how="left_semi")
    active = hits.select(user).distinct().withColumn("active", F.lit(True))  # distinct: the join keeps one row a row
    rate = config.training_examples.negative_user_rate
    draw = F.pmod(F.xxhash64(c.USER_IDX, c.SCENARIO, F.lit(as_of.toordinal()), F.lit(config.seed)), F.lit(1_000_000))
    sampled = candidate_rows.join(active, on=user, how="left").where(F.col("active") | (draw < rate * 1_000_000))
    # (scenario, user_idx, item_idx) is unique on both sides: candidates' key within a date, the outcomes' group
    kept = sampled.join(labels, on=key, how="left")
    for task in tasks:
        empty = F.lit(0.0 if task.kind == "binary" else float("nan"))
        kept = kept.withColumn(label_column(task.name), F.coalesce(label_column(task.name), empty).cast("float"))
    built = kept.select(
        F.lit(as_of).alias(c.AS_OF),
        F.lit(as_of_day(as_of)).alias("as_of_day"),
        c.SCENARIO_IDX,
        c.USER_IDX,
        c.ITEM_IDX,
        *FEATURES,
        *(label_column(t.name) for t in tasks),
        F.when(F.col("active"), 1.0).otherwise(1.0 / rate).cast("float").alias(c.WEIGHT),
        F.pmod(F.xxhash64(c.USER_IDX, F.lit(config.seed)), F.lit(FOLDS)).cast("int").alias(c.FOLD),
    )
    return built.select(table(tasks).columns)


def in_hash_order(rows: DataFrame, key: tuple[str, ...], num_files: int) -> DataFrame:
    """Rows ordered by a hash of their key, so that any row group is a random sample; the same files whatever the
    partitioning of the input."""
    hashed = F.xxhash64(*key)
    return rows.repartition(num_files, hashed).sortWithinPartitions(hashed, *key)
