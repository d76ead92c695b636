"""candidates: per date, user and scenario the items that some retriever found, with the features that rank them."""

from recspark import columns as c
from recspark.features import FEATURES, meaning
from recspark.warehouse.store import Table

EXPLAINING_ITEM = "because_item_idx"  # the item of the user's history that explains a candidate, -1 for none
GIVEN = "given"  # the `source` of an item of candidates.source that no retriever found
REPEAT = "repeat"  # the `source` of a seen item, listed only where fewer than k unseen ones are left

RATES = "rates"  # in the metadata of a past date: the shares of its lists that are examples, training_examples.Rates

TYPES = {
    c.AS_OF: "date",
    c.SCENARIO: "string",
    c.SCENARIO_IDX: "int",
    c.USER_IDX: "int",
    c.ITEM_IDX: "int",
    c.SOURCE: "string",
    EXPLAINING_ITEM: "int",
    **dict.fromkeys(FEATURES, "float"),
}
COLUMNS = list(TYPES)  # for Spark's workers: Table.columns needs a session
TABLE = Table(
    noun="candidates",
    ddl=", ".join(f"{name} {kind}" for name, kind in TYPES.items()),
    key=(c.AS_OF, c.SCENARIO, c.USER_IDX, c.ITEM_IDX),
    partition_by=(c.AS_OF,),
    row="An item that some retriever found for a user and scenario as of a date, with the features that rank it.",
    comments={
        EXPLAINING_ITEM: "Number of the item of the user's history that explains this one; -1: none. Example: 55",
        **{name: meaning(name) for name in FEATURES},
    },
)
