"""Planted worlds: small events and items whose right recommendation is known by construction.

`tastes`: two tastes share nothing. Users of a taste had all of its items but one, the diagonal of the checkerboard,
so the right first item of a user is the withheld one. The poor scenario's users have the same tastes and items, but
only a few events each, so that what they would like is known from the rich scenario alone. One item of each taste was
never sold: only its content tells whom it is for.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np

from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.item_embeddings import TABLE as ITEM_EMBEDDINGS
from recspark.tables.items import TABLE as ITEMS

if TYPE_CHECKING:
    from recspark.warehouse.store import Store

AS_OF = date(2024, 3, 4)  # a Monday; every event lies before it
RICH, POOR = "rich", "poor"
# for configurations that must name a source, where nothing reads it
SOURCE = {"format": "parquet", "paths": ["none"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
WORDS = ("garden lantern", "kitchen mug")  # what the texts of the two tastes say


@dataclass(frozen=True)
class World:
    """`events`: (scenario, user_id, item_id, day before AS_OF, event, value, price); `items`: item_id -> (taste, text);
    `withheld`: user_id of the rich scenario -> the right item; `unsold`: taste -> item without events."""

    events: list[tuple[str, str, str, int, str, float, float]]
    items: dict[str, tuple[int, str]]
    withheld: dict[str, str]
    unsold: dict[int, str]
    tastes: dict[str, int] = field(default_factory=dict)  # user_id -> taste

    def vectors(self) -> dict[str, np.ndarray]:
        """Unit content vectors, float32 (4,): tastes at a right angle, items of one taste a little apart."""
        out = {}
        for i, (item_id, (taste, _)) in enumerate(sorted(self.items.items())):
            out[item_id] = np.zeros(4, dtype=np.float32)
            out[item_id][2 * taste : 2 * taste + 2] = np.cos(0.02 * i), np.sin(0.02 * i)
        return out


def tastes(items_per_taste: int = 8, users_per_item: int = 5, poor_users: int = 4) -> World:
    """Two tastes in a rich and a poor scenario; `users_per_item` users of the rich one miss each item."""
    events, items, withheld, unsold, taste_of = [], {}, {}, {}, {}
    for taste in (0, 1):
        own = [f"item-{taste}-{i}" for i in range(items_per_taste)]
        items.update({item: (taste, f"{WORDS[taste]} {i}") for i, item in enumerate(own)})
        unsold[taste] = f"item-{taste}-new"
        items[unsold[taste]] = (taste, f"{WORDS[taste]} new")
        for n in range(items_per_taste * users_per_item):
            user = f"user-{taste}-{n:03d}"
            taste_of[user], withheld[user] = taste, own[n % items_per_taste]
            had = [(i, item) for i, item in enumerate(own) if item != withheld[user]]
            events += [_event(RICH, user, item, 1 + (n + i) % 20) for i, item in had]
        for n in range(poor_users):
            user = f"poor-{taste}-{n}"
            taste_of[user] = taste
            events += [_event(POOR, user, own[(n + i) % items_per_taste], 2 + i) for i in range(2)]
    return World(events, items, withheld, unsold, taste_of)


def _event(
    scenario: str, user: str, item: str, days_ago: int, event: str = "purchase"
) -> tuple[str, str, str, int, str, float, float]:
    return (scenario, user, item, days_ago, event, 2.0, 2.0)


def write(world: World, store: "Store", encoder: str, as_of: date = AS_OF) -> None:
    """The tables that the retriever stage reads, as the stages before it would leave them."""
    spark = store.spark
    start = datetime(as_of.year, as_of.month, as_of.day, 12, tzinfo=timezone.utc)
    rows = []
    for scenario, user, item, days_ago, event, value, price in world.events:
        time = start - timedelta(days=days_ago)
        rows.append((scenario, user, item, time, event, value, {"price": str(price)}, time.date()))
    store.replace(INTERACTIONS, spark.createDataFrame(rows, INTERACTIONS.schema))
    first = as_of - timedelta(days=200)
    catalogue = [
        (item, text, {}, None, f"hash of {text}", first, None) for item, (_, text) in sorted(world.items.items())
    ]
    store.replace(ITEMS, spark.createDataFrame(catalogue, ITEMS.schema))
    cells = [
        (item, encoder, f"hash of {world.items[item][1]}", bytearray(vector.astype("<f4").tobytes()), len(vector))
        for item, vector in sorted(world.vectors().items())
    ]
    store.replace(ITEM_EMBEDDINGS, spark.createDataFrame(cells, ITEM_EMBEDDINGS.schema))
    _write_indices(store, rows, sorted(world.items))


def _write_indices(store: "Store", rows: list[tuple], items: list[str]) -> None:
    from recspark.tables.index import ITEM_INDEX, SCENARIO_INDEX, USER_INDEX

    for table, ids, first in (
        (ITEM_INDEX, items, 0),
        (USER_INDEX, sorted({row[1] for row in rows}), 0),
        (SCENARIO_INDEX, sorted({row[0] for row in rows}), 1),
    ):
        numbered = [(name, first + i) for i, name in enumerate(ids)]
        store.replace(table, store.spark.createDataFrame(numbered, table.schema))
