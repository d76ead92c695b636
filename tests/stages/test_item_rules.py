"""Rules over a hand-made table of items: each expression's array, and each mistake as one line."""

from datetime import date, timedelta

import numpy as np
import pytest

from recspark.config.schema import AtMost, ScenarioRule
from recspark.errors import ConfigError, SchemaError
from recspark.stages import item_rules as rules
from recspark.tables import index, items
from recspark.warehouse.store import Store
from tests.stages import hand_made

TONIGHT = date(2024, 3, 1)
STOCK = "CAST(attributes['stock'] AS INT) > 0"
BRAND = "attributes['brand']"
# item_id, number, days since it is known, attributes: c is as new as tonight, so it is not known yet; 2 has no row
ITEMS = [
    ("a", 3, 400, {"stock": "5", "brand": "x"}),
    ("b", 1, 10, {"stock": "0", "brand": "y"}),
    ("c", 5, 0, {"stock": "5", "brand": "x"}),
    ("d", 4, 1, {"brand": "x"}),
    ("e", 0, 10, {"stock": "many"}),
]


@pytest.fixture(scope="module")
def store(spark, tmp_path_factory):
    made = Store(spark, hand_made.config(tmp_path_factory.mktemp("rules")), "run")
    write(made, ITEMS)
    return made


def write(store, rows):
    listed = [(i, f"THING {i}", held, None, "h", TONIGHT - timedelta(days=age), None) for i, _, age, held in rows]
    store.replace(items.TABLE, store.spark.createDataFrame(listed, items.TABLE.schema))
    numbers = [(i, n) for i, n, _, _ in rows]
    store.replace(index.ITEM_INDEX, store.spark.createDataFrame(numbers, index.ITEM_INDEX.schema))


def config(store, default=None, **overrides):
    scenarios = {"default": default or ScenarioRule(), "overrides": overrides}
    return hand_made.config(store.warehouse, scenarios=scenarios)


def where(sql):
    return ScenarioRule(where=sql)


def test_arrays_by_hand(store):
    deny, young = "item_id NOT IN ('a', 'e')", "first_seen >= date_sub(run_date, 30)"
    limit = AtMost(items=2, of=BRAND)
    ruled = config(store, where(deny), DE=ScenarioRule(where=STOCK, at_most=limit), FR=where(young), IT=where(STOCK))
    path = rules.refresh(store, ruled, TONIGHT)
    found = rules.open_rules(path)
    # by number: 0 e, 1 b, 2 no item, 3 a, 4 d
    assert {sql: array.tolist() for sql, array in found.allowed.items()} == {
        deny: [False, True, False, False, True],
        STOCK: [False, False, False, True, False],  # neither a text nor null is more than 0
        young: [True, True, False, False, True],
    }
    e, b, no_item, a, d = found.code[BRAND].tolist()
    assert e == no_item == -1 and a == d >= 0 and b >= 0 and b != a
    assert found.code[BRAND].dtype == np.int32
    assert rules.limit_of(ruled.scenarios, path, "DE").items == 2
    assert rules.limit_of(ruled.scenarios, path, "FR") is None


def test_without_rules_nothing_is_written(store):
    assert rules.refresh(store, config(store, DE=ScenarioRule(seen="allow")), TONIGHT) is None
    assert rules.open_rules(None) == rules.ItemRules({}, {})
    assert rules.limit_of(config(store).scenarios, None, "DE") is None


def test_other_items_or_rules_make_another_folder(spark, tmp_path):
    made = Store(spark, hand_made.config(tmp_path), "run")
    write(made, ITEMS)
    first = rules.refresh(made, config(made, where(STOCK)), TONIGHT)
    assert rules.refresh(made, config(made, DE=where(STOCK)), TONIGHT) == first  # the same expression
    assert rules.refresh(made, config(made, where(f"NOT ({STOCK})")), TONIGHT) != first
    write(made, [*ITEMS[:-1], ("e", 0, 10, {"stock": "1"})])
    second = rules.refresh(made, config(made, where(STOCK)), TONIGHT)
    assert second != first and rules.open_rules(second).allowed[STOCK].tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (where("stok > 0"), SchemaError, r"overrides.DE.where: column stok is not in the table items; .* run_date"),
        (where("item_id NOT IN ("), ConfigError, r"overrides.DE.where: `item_id NOT IN \(` is not Spark SQL"),
        (where("upper(text)"), SchemaError, r"DE.where: .* is of type string in the table items; expected a condition"),
        (where("count(*) > 1"), ConfigError, r"overrides.DE.where: cannot be evaluated .* item's item_id, text, attri"),
        (where("text RLIKE '('"), ConfigError, r"overrides.DE.where: cannot be evaluated over the table items"),
        (ScenarioRule(at_most=AtMost(items=1, of="brand")), SchemaError, r"DE.at_most.of: column brand is not in"),
        (ScenarioRule(at_most=AtMost(items=1, of="attributes")), SchemaError, r"expected one plain value"),
    ],
)
def test_mistakes_name_the_key(store, rule, error, message):
    with pytest.raises(error, match=message) as raised:
        rules.refresh(store, config(store, DE=rule), TONIGHT)
    assert raised.value.exit_code == 2 and len(str(raised.value).splitlines()) == 1
