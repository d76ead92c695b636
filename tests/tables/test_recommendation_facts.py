"""Which fact links a listed item to a history, derived by hand."""

from datetime import date, datetime

import pytest

from recspark.config.content import ItemFacts
from recspark.tables import recommendation_facts as table

TONIGHT = date(2024, 3, 1)
REASONS = {"genre": "another {entity}", "director": "by the director of {item}"}
FACTS = [
    ("new", "director", "Scott"), ("alien", "director", "Scott"), ("new", "genre", "drama"), ("old", "genre", "drama"),
    ("older", "genre", "drama"), ("other", "genre", "drama"), ("new", "year", "1979"), ("older", "year", "1979"),
]  # fmt: skip
EVENTS = [("ann", "alien", 1), ("ann", "old", 2), ("ann", "older", 1), ("ann", "other", 3), ("bob", "old", 2),
          ("bob", "older", 1), ("cat", "new", 1), ("dan", "lamp", 1)]  # fmt: skip
LISTS = [("ann", "new", "linear"), ("ann", "other", "repeat"), ("bob", "new", "popular"), ("bob", "lamp", "linear"),
         ("cat", "new", "linear"), ("dan", "new", "linear"), ("__default__", "new", "popular")]  # fmt: skip
LIST = "scenario string, user_id string, item_id string, source string, reason string"


@pytest.fixture(scope="module")
def found(spark):
    facts = spark.createDataFrame(FACTS, "item_id string, relation string, entity string")
    rows = [(user, item, datetime(2024, 2, day)) for user, item, day in EVENTS]
    events = spark.createDataFrame(rows, "user_id string, item_id string, event_time timestamp")
    lists = spark.createDataFrame([("DE", *row, "because" + ", promoted" * (row[0] == "bob")) for row in LISTS], LIST)
    links = table.build(lists, events.repartition(5), facts.repartition(3), REASONS, TONIGHT, "run").persist()
    names = spark.createDataFrame([("alien", "ALIEN"), ("old", "OLD")], "item_id string, name string")
    return links, table.explained(lists, links, names, REASONS, ["promoted"])


def test_the_rarest_entity_links_and_of_its_items_the_newest(found) -> None:
    """Scott made two films, four are dramas: ann gets the director although genre is named first. bob had two dramas,
    `old` last. A year has no reason. cat's own item, dan's lamp, a repeat and the default user have no link."""
    links, _ = found
    assert links.schema.simpleString() == table.TABLE.schema.simpleString()
    rows = {(row.user_id, row.item_id): tuple(row[4:7]) for row in links.collect()}
    assert rows == {("ann", "new"): ("director", "Scott", "alien"), ("bob", "new"): ("genre", "drama", "old")}
    assert {(row.run_date, row.scenario, row.run_id) for row in links.collect()} == {(TONIGHT, "DE", "run")}


def test_the_link_is_the_reason_and_all_else_stays(found) -> None:
    _, explained = found
    rows = {(row.user_id, row.item_id): row.reason for row in explained.collect()}
    assert len(rows) == len(LISTS) == explained.count()
    assert rows["ann", "new"] == "by the director of ALIEN" and rows["bob", "new"] == "another drama, promoted"
    others = {reason for key, reason in rows.items() if key not in (("ann", "new"), ("bob", "new"))}
    assert others == {"because", "because, promoted"}


@pytest.mark.parametrize(
    ("reasons", "said"),
    [({"actor": "with {entity}"}, "reasons: found actor, expected names of relations"),
     ({"genre": "{name}"}, "reasons.genre: found '{name}', expected a text with {item} or {entity}")],
)  # fmt: skip
def test_a_reason_that_cannot_be_said_is_refused(reasons, said) -> None:
    with pytest.raises(ValueError) as refused:
        ItemFacts(relations={"genre": "x"}, reasons=reasons)
    assert said in str(refused.value)
