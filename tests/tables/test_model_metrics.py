"""What counts as a hit: a positive of an eligible user, of an unseen item where the rule excludes seen ones."""

from datetime import date, datetime

from recspark.config.rankers import Task
from recspark.config.schema import ScenarioRule, Scenarios
from recspark.tables import interactions
from recspark.tables import model_metrics as table

TASK = Task(name="purchase", kind="binary", sql="sum(weight) > 0")
WEIGHTS = {"return": -1.0}
RULES = Scenarios(overrides={"open": ScenarioRule(seen="allow")})


def events(spark, *rows):
    """(scenario, user, item, day of June, event)."""
    full = [(s, u, i, datetime(2024, 6, d, 9), e, 1.0, None, date(2024, 6, d)) for s, u, i, d, e in rows]
    return spark.createDataFrame(full, interactions.TABLE.schema)


def test_a_returned_purchase_is_not_done(spark):
    rows = events(
        spark,
        ("DE", "u1", "a", 1, "purchase"), ("DE", "u1", "a", 2, "return"),
        ("DE", "u1", "b", 1, "purchase"), ("FR", "u1", "b", 1, "purchase"),
    )  # fmt: skip
    found = sorted(tuple(r) for r in table.positives(rows, TASK, WEIGHTS).collect())
    assert found == [("DE", "u1", "b"), ("FR", "u1", "b")]


def test_truth_is_new_to_eligible_users(spark):
    before = events(spark, ("DE", "u1", "a", 1, "purchase"), ("open", "u1", "c", 1, "return"))
    done = events(
        spark,
        ("DE", "u1", "a", 9, "purchase"),  # seen
        ("DE", "u1", "b", 9, "purchase"),
        ("DE", "u1", "c", 9, "purchase"),  # seen in another scenario: any event counts
        ("open", "u1", "a", 9, "purchase"),  # seen items may return here
        ("DE", "u2", "b", 9, "purchase"),  # without any event before
        ("FR", "u1", "b", 9, "purchase"),  # known in another scenario
        ("FR", "u1", "a", 9, "purchase"),  # there
        ("DE", "u3", "b", 9, "purchase"),  # eligible, without any history
    )
    expected = spark.createDataFrame([("DE", "u1"), ("open", "u1"), ("DE", "u3")], "scenario string, user_id string")
    found = table.truth(table.positives(done, TASK, WEIGHTS), before, expected, RULES)
    assert sorted(tuple(r) for r in found.collect()) == [
        ("all", "DE", "u1", "b"),
        ("all", "DE", "u3", "b"),
        ("all", "open", "u1", "a"),
        ("cold_users", "DE", "u2", "b"),
        ("new_to_scenario", "FR", "u1", "b"),
    ]


def test_earlier_lists_count_what_was_new_on_their_own_date(spark):
    first = spark.createDataFrame(
        [("u1", "a", date(2024, 6, 5)), ("u1", "b", date(2024, 6, 15))],
        "user_id string, item_id string, first_date date",
    )
    days = (date(2024, 6, 1), date(2024, 6, 10))
    done = [(day, s, "u1", item) for day in days for s, item in (("DE", "a"), ("DE", "b"), ("open", "a"))]
    lists = [(day, s, "u1") for day in days for s in ("DE", "open")]
    found = table.earlier_truth(
        spark.createDataFrame(done, "run_date date, scenario string, user_id string, item_id string"),
        first,
        spark.createDataFrame(lists, "run_date date, scenario string, user_id string"),
        RULES,
    )
    got = sorted((r.run_date.day, r.scenario, r.item_id) for r in found.collect())
    assert got == [(1, "DE", "a"), (1, "DE", "b"), (1, "open", "a"), (10, "DE", "b"), (10, "open", "a")]
