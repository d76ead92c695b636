"""model_metrics: what was measured on the newest closed window and on earlier lists, and what the gate decided."""

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.rankers import Task
from recspark.config.schema import Scenarios
from recspark.tables.interactions import Weights, event_weight
from recspark.tables.scenario_rules import excludes_seen
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="model_metrics",
    ddl=f"{c.RUN_DATE} date, {c.RUN_ID} string, {c.MODEL} string, baseline string, {c.SCENARIO} string, slice string, "
    "metric string, value double, lower double, upper double, num_users bigint, note string",
    key=(c.RUN_DATE, c.RUN_ID, c.MODEL, "baseline", c.SCENARIO, "slice", "metric"),
    row="One figure of one mode in one scenario and slice. metric = publish: model is the mode that orders the lists "
    "of the scenario, baseline the one before, note why.",
    comments={
        c.MODEL: "Mode that was measured; candidates: all retrieved ones; published: an earlier list. Example: gbdt",
        "baseline": "Mode that a gain is over; of publish: the one before, on a first night a simple one. "
        "Example: linear",
        c.SCENARIO: "Scenario; __all__: all together. Example: France",
        "slice": "Lists that count: all, cold_users, new_to_scenario, cold_items, poor_scenarios, or published:<date>, "
        "the lists of that night on what users did since. Example: all",
        "metric": "What was measured, higher is better; recall: of all candidates; publish: says which model is used. "
        "@10, and @k where lists have more places than 10; @k alone where they have fewer. Example: ndcg@10",
        "value": "The figure, 0 to 1; a gain may be negative; 1 for publish. Example: 0.1688",
        "lower": "Lower end of the 95 % interval over users; null: none. Example: 0.1573",
        "upper": "Upper end of the 95 % interval over users; null: none. Example: 0.1804",
        "num_users": "Users who were measured. Example: 1212",
        "note": "What the gate decided and why, or what to know of the figure.",
    },
)
EVERYONE = c.EVERYONE
ALL, EARLIER = "all", "published:"  # slices: every list of a known user; `published:<run_date>`
COLD_USERS = "cold_users"  # without any event before the window, served by `__default__`
NEW_USERS = "new_to_scenario"  # without an event in the scenario before the window, but elsewhere; served likewise
COLD_ITEMS = "cold_items"  # of what users did, only items first seen less than COLD_DAYS before the window, or in it
POOR = "poor_scenarios"  # scenarios with fewer than POOR_LISTS lists in the window
COLD_DAYS, POOR_LISTS = 28, 100
DECISION = "publish"  # the metric of the rows whose `model` is the mode that orders a scenario's lists
PUBLISHED = "published"  # the `model` of an earlier list


def positives(events: DataFrame, task: Task, weights: Weights, by: Sequence[str] = ()) -> DataFrame:
    """(by, scenario, user_id, item_id), distinct: the positives of the task, as in training_examples."""
    weighted = events.withColumn(c.WEIGHT, event_weight(events, weights))
    label = F.expr(task.sql).cast("float").alias("label")
    outcomes = weighted.groupBy(*by, c.SCENARIO, c.USER_ID, c.ITEM_ID).agg(label)
    return outcomes.where("label > 0").drop("label")


def truth(done: DataFrame, before: DataFrame, expected: DataFrame, rules: Scenarios) -> DataFrame:
    """(slice, scenario, user_id, item_id): the items that a list made before the window should contain.

    `done`: positives of the window. `before`: events before it. `expected` (scenario, user_id): the eligible users,
    also those without a list: they are in the slice ALL, all others in COLD_USERS or NEW_USERS. Where the rule excludes
    seen items, only items that are new to the user count.
    """
    yes = F.lit(True)
    seen = before.select(c.USER_ID, c.ITEM_ID).distinct().withColumn("seen", yes)
    known = before.select(c.USER_ID).distinct().withColumn("known", yes)
    own = expected.select(c.SCENARIO, c.USER_ID).distinct().withColumn("own", yes)
    # every table on the right is distinct by the columns joined on
    rows = (
        done.join(own, on=[c.SCENARIO, c.USER_ID], how="left")
        .join(seen, on=[c.USER_ID, c.ITEM_ID], how="left")
        .where(F.col("seen").isNull() | ~excludes_seen(rules))
        .join(known, on=c.USER_ID, how="left")
    )
    stranger = F.when(F.col("known").isNull(), COLD_USERS).otherwise(NEW_USERS)
    return rows.select(F.when(F.col("own"), ALL).otherwise(stranger).alias("slice"), c.SCENARIO, c.USER_ID, c.ITEM_ID)


def earlier_truth(done: DataFrame, first_events: DataFrame, published: DataFrame, rules: Scenarios) -> DataFrame:
    """(run_date, scenario, user_id, item_id): positives since a list was published, of items new to the user then.

    `done`: positives by run_date. `first_events` (user_id, item_id, first_date): the user's first interaction with the
    item. `published` (run_date, scenario, user_id): the lists; each night was checked to have one for every eligible
    user.
    """
    rows = done.join(published, on=[c.RUN_DATE, c.SCENARIO, c.USER_ID], how="left_semi")
    rows = rows.join(first_events, on=[c.USER_ID, c.ITEM_ID], how="inner")  # unique by user and item
    return rows.where((F.col("first_date") >= F.col(c.RUN_DATE)) | ~excludes_seen(rules)).drop("first_date")


def decisions(store: Store, run_date: date) -> dict[str, str]:
    """Scenario -> the mode that orders its lists tonight, as the gate decided; one short row a scenario."""
    rows = store.read(TABLE).where((F.col(c.RUN_DATE) == F.lit(run_date)) & (F.col("metric") == DECISION))
    return {row[0]: row[1] for row in rows.select(c.SCENARIO, c.MODEL).collect()}
