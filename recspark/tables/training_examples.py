"""training_examples: past candidates, labelled with what users did in the window after their as_of date.

Examples are exactly the retrieved candidates. A later purchase that was not retrieved is no example; it counts in the
recall of the candidates (model_metrics).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.arrays import Array
from recspark.config.rankers import Task
from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.expressions import first_line
from recspark.features import FEATURES, meaning
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.interactions import event_weight
from recspark.warehouse.store import Table
from recspark.windows import as_of_day

FOLDS = 10
NEGATIVE_USERS = 0.5  # users without a positive, for each user with one, whose lists are examples too
RATE = "rate"


class Rates(NamedTuple):
    """The shares of a window's lists that are examples: of those without a positive of the first task, and, by scenario
    and where it is not all, of those with one."""

    others: float
    of_scenarios: dict[str, float]


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
        row="A past candidate with what the user did in the window after as_of: what the rankers learn from.",
        comments={
            "as_of_day": "as_of as days since 1970-01-01. Example: 15292",
            **{name: meaning(name) for name in FEATURES},
            **{label_column(t.name): f"Label of the task {t.name}: {t.kind}, {t.sql}" for t in tasks},
        },
    )


def outcomes(events: DataFrame, users: DataFrame, items: DataFrame, config: Config) -> DataFrame:
    """(scenario, user_idx, item_idx, label_<task> ...) of everything that happened in a window.

    `users` and `items` are the indices: unique by id, so the joins keep one row an event.
    Raises: see `labels`.
    """
    weighted = events.withColumn(c.WEIGHT, event_weight(events, config.interactions.event_weights))
    indexed = weighted.join(users, on=c.USER_ID, how="inner").join(items, on=c.ITEM_ID, how="inner")
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


def users_of_window(
    known: DataFrame, events: DataFrame, users: DataFrame, config: Config, as_of: date, whole: bool
) -> tuple[DataFrame, int, Rates]:
    """The users of `known` (user_idx, distinct) whose lists are candidates of the window with these events: (user_idx)
    of those with a positive of the first task in a list that is `drawn` at the rate of its scenario, and of a sample of
    those without a positive; about how many; and the rates. `whole`: all users with a positive, as the modes are judged
    on them; the rates, and so the examples, are the same.

    `users` is the index: unique by id and by number, so the joins keep one row a user.
    """
    first = config.training_examples.tasks[0]
    weighted = events.withColumn(c.WEIGHT, event_weight(events, config.interactions.event_weights))
    done = labels(weighted, (c.SCENARIO, c.USER_ID, c.ITEM_ID), [first]).where(F.col(label_column(first.name)) > 0)
    lists = done.select(c.SCENARIO, c.USER_ID).distinct().join(users, on=c.USER_ID, how="inner")
    active = lists.join(known, on=c.USER_IDX, how="left_semi").persist()
    try:
        of_scenarios = list_rates(active, config.training_examples.max_lists)
        kept = F.max(drawn(config, as_of, F.col(RATE))).alias("kept")
        flagged = with_rate(active, of_scenarios).groupBy(c.USER_IDX).agg(kept)
        found = known.select(c.USER_IDX).join(flagged, on=c.USER_IDX, how="left")
        num_users, num_active, num_kept = found.agg(F.count("*"), F.count("kept"), F.count_if("kept")).collect()[0]
    finally:
        active.unpersist()
    rate = max(1e-6, min(1.0, NEGATIVE_USERS * num_kept / max(1, num_users - num_active)))
    others = F.col("kept").isNull() & drawn(config, as_of, F.lit(rate))
    wanted = F.col("kept").isNotNull() if whole else F.coalesce("kept", F.lit(False))
    sampled = found.join(users, on=c.USER_IDX, how="inner").where(wanted | others)
    num_wanted = num_active if whole else num_kept
    num_sampled = round(num_wanted + rate * (num_users - num_active))
    return sampled.select(c.USER_IDX), num_sampled, Rates(rate, of_scenarios)


def list_rates(active: DataFrame, max_lists: int) -> dict[str, float]:
    """Scenario -> the share of its lists with a positive that are examples, where not all are. `active`: a row each.

    Where there are more than `max_lists` in all scenarios, the large ones give the same number each, and the small ones
    all: poor scenarios are whole. A row a scenario comes to the driver.
    """
    counts = {row[0]: row[1] for row in active.groupBy(c.SCENARIO).count().collect()}
    level = water_level(np.array([*counts.values()]), max_lists)
    return {scenario: level / counts[scenario] for scenario in sorted(counts) if counts[scenario] > level}


def with_rate(lists: DataFrame, of_scenarios: Mapping[str, float]) -> DataFrame:
    """Lists with the RATE of their scenario: 1 where none is given."""
    named = lists.sparkSession.createDataFrame([*of_scenarios.items()], f"{c.SCENARIO} string, {RATE} double")
    found = lists.join(F.broadcast(named), on=c.SCENARIO, how="left")  # one row a scenario on the right
    return found.withColumn(RATE, F.coalesce(RATE, F.lit(1.0)))


def water_level(sizes: Array, total: int) -> float:
    """The number at which sizes are cut so that their sum is `total`; infinity if it is no more.

    >>> water_level(np.array([2, 10, 30]), 20)
    9.0
    """
    ordered = np.sort(sizes)
    before = np.concatenate(([0], np.cumsum(ordered)[:-1]))
    levels = (total - before) / np.arange(len(ordered), 0, -1)
    fitting = np.flatnonzero(levels < ordered)
    return float(levels[fitting[0]]) if len(fitting) else float("inf")


def drawn(config: Config, as_of: date, rate: Column) -> Column:
    """Is the user of a row in the sample at this rate? By a hash of user_id."""
    number = F.pmod(F.xxhash64(c.USER_ID, F.lit(as_of.toordinal()), F.lit(config.seed)), F.lit(1_000_000))
    return number < F.round(rate * 1_000_000)


def build(
    candidate_rows: DataFrame, labels: DataFrame, users: DataFrame, config: Config, as_of: date, rates: Rates
) -> DataFrame:
    """Label the candidates of one as_of date: of the lists whose user is `drawn` at their rate. Rows have the inverse
    of the rate as their weight.

    Without an event a binary label is 0 and a regression label NaN (regressions learn only from measured values).
    `users` is the index: unique by number.
    """
    tasks = config.training_examples.tasks
    key, user = [c.SCENARIO, c.USER_IDX, c.ITEM_IDX], [c.SCENARIO, c.USER_IDX]
    # Lists first, over the key columns alone: so the wide rows are sampled before they are shuffled.
    positives = labels.where(F.col(label_column(tasks[0].name)) > 0).select(key)
    hits = candidate_rows.select(key).join(positives, on=key, how="left_semi")
    active = with_rate(hits.select(user).distinct(), rates.of_scenarios)
    # distinct lists; users are unique: both joins keep one row a list
    lists = candidate_rows.select(user).distinct().join(active, on=user, how="left").join(users, on=c.USER_IDX)
    fold = F.pmod(F.xxhash64(c.USER_ID, F.lit(config.seed)), F.lit(FOLDS)).cast("int").alias(c.FOLD)
    of_list = F.coalesce(RATE, F.lit(rates.others))
    sampled = lists.where(drawn(config, as_of, of_list)).select(*user, (1.0 / of_list).alias("inverse"), fold)
    # a row has one list, and (scenario, user_idx, item_idx) is unique on both sides: candidates' key within a date, the
    # outcomes' group
    kept = candidate_rows.join(sampled, on=user, how="inner").join(labels, on=key, how="left")
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
        F.col("inverse").cast("float").alias(c.WEIGHT),
        c.FOLD,
    )
    return built.select(table(tasks).columns)


def in_hash_order(rows: DataFrame, key: tuple[str, ...], num_files: int) -> DataFrame:
    """Rows ordered by a hash of their key, so that any row group is a random sample; the same files whatever the
    partitioning of the input."""
    hashed = F.xxhash64(*key)
    return rows.repartition(num_files, hashed).sortWithinPartitions(hashed, *key)
