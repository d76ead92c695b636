"""model_metrics: what was measured on the newest closed window and on earlier lists, and what the gate decided."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Scenarios, Task
from recspark.tables.training_examples import event_weight
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="model_metrics",
    ddl=f"{c.RUN_DATE} date, {c.RUN_ID} string, {c.MODEL} string, baseline string, {c.SCENARIO} string, slice string, "
    "metric string, value double, lower double, upper double, num_users bigint, note string",
    key=(c.RUN_DATE, c.RUN_ID, c.MODEL, "baseline", c.SCENARIO, "slice", "metric"),
)
EVERYONE = "__all__"  # all scenarios together
ALL, COLD, EARLIER = "all", "cold", "published:"  # slices: every user, users without history, `published:<run_date>`
DECISION = "publish"  # the metric of the rows that say what orders a scenario's lists
PUBLISHED = "published"  # the `model` of an earlier list


def positives(events: DataFrame, task: Task, weights: dict[str, float], by: Sequence[str] = ()) -> DataFrame:
    """(by, scenario, user_id, item_id), distinct: what counts as done by the first task, as in training_examples."""
    weighted = events.withColumn(c.WEIGHT, event_weight(weights))
    outcomes = weighted.groupBy(*by, c.SCENARIO, c.USER_ID, c.ITEM_ID).agg(F.expr(task.sql).cast("float").alias("done"))
    return outcomes.where("done > 0").drop("done")


def truth(done: DataFrame, before: DataFrame, owed: DataFrame, rules: Scenarios) -> DataFrame:
    """(scenario, user_id, item_id, cold): what a list made before the window should have held.

    `done`: positives of the window. `before`: events before it. `owed` (scenario, user_id): who was due a list, whether
    or not there is one. Where the rule excludes seen items, only what the user never had counts. `cold`: no history.
    """
    had = before.select(c.USER_ID, c.ITEM_ID).distinct().withColumn("had", F.lit(True))
    known = before.select(c.USER_ID).distinct().withColumn("known", F.lit(True))
    hidden = [
        F.when(F.col(c.SCENARIO) == name, F.lit(rule.seen == "exclude")) for name, rule in rules.overrides.items()
    ]
    excluded = F.coalesce(*hidden, F.lit(rules.default.seen == "exclude"))
    # every table on the right is distinct by the columns joined on
    rows = (
        done.join(owed.select(c.SCENARIO, c.USER_ID), on=[c.SCENARIO, c.USER_ID], how="left_semi")
        .join(had, on=[c.USER_ID, c.ITEM_ID], how="left")
        .where(F.col("had").isNull() | ~excluded)
        .join(known, on=c.USER_ID, how="left")
    )
    return rows.select(c.SCENARIO, c.USER_ID, c.ITEM_ID, F.col("known").isNull().alias("cold"))


def earlier_truth(done: DataFrame, first_events: DataFrame, published: DataFrame, rules: Scenarios) -> DataFrame:
    """(run_date, scenario, user_id, item_id) for lists that were published: done since, and new to the user then.

    `done`: positives by run_date. `first_events` (user_id, item_id, first_date): when the user first had the item.
    `published` (run_date, scenario, user_id): lists; each night was checked to have one for everybody due.
    """
    hidden = [
        F.when(F.col(c.SCENARIO) == name, F.lit(rule.seen == "exclude")) for name, rule in rules.overrides.items()
    ]
    excluded = F.coalesce(*hidden, F.lit(rules.default.seen == "exclude"))
    rows = done.join(published, on=[c.RUN_DATE, c.SCENARIO, c.USER_ID], how="left_semi")
    rows = rows.join(first_events, on=[c.USER_ID, c.ITEM_ID], how="inner")  # unique by user and item
    return rows.where((F.col("first_date") >= F.col(c.RUN_DATE)) | ~excluded).drop("first_date")


def decisions(store: Store, run_date: object) -> dict[str, str]:
    """Scenario -> the mode that the gate lets order its lists tonight; one short row a scenario."""
    rows = store.read(TABLE).where((F.col(c.RUN_DATE) == F.lit(run_date)) & (F.col("metric") == DECISION))
    return {row[0]: row[1] for row in rows.select(c.SCENARIO, c.MODEL).collect()}
