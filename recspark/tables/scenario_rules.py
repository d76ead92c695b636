"""The rule of a row's scenario (`scenarios` in the configuration) as a Spark column."""

from collections.abc import Callable

from pyspark.sql import Column
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import ScenarioRule, Scenarios


def by_rule(rules: Scenarios, value: Callable[[ScenarioRule], Column]) -> Column:
    """`value` of the rule of the row's scenario; null only where `value` is."""
    named = [F.when(F.col(c.SCENARIO) == name, value(rule)) for name, rule in rules.overrides.items()]
    return F.coalesce(*named, value(rules.default))


def excludes_seen(rules: Scenarios) -> Column:
    """True in the scenarios whose lists must not hold items that the user has interacted with (`seen: exclude`)."""
    return by_rule(rules, lambda rule: F.lit(rule.seen == "exclude"))
