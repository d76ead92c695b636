"""A hand-made warehouse as it is before model_metrics runs: two scenarios, eight items, no trained model.

Tonight is Friday 2024-03-01; windows last 7 days, so the newest closed one opens on Monday 2024-02-19.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.features import FEATURES
from recspark.tables import candidates, index, interactions, items
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_of_day

RUN_DATE, WINDOW = date(2024, 3, 1), date(2024, 2, 19)
ITEMS = [f"i{n}" for n in range(8)]
USERS = [f"u{n}" for n in range(6)]
SCENARIO_OF = {user: "DE" if at < 4 else "FR" for at, user in enumerate(USERS)}
K = 3
BUNDLE = "models/retriever/stub"
FIRST = date(2024, 2, 1)
# what users did in the window, by user: linear puts i5, i6, i7 on top (see SCORES), popular i1, i2, i3
BOUGHT = {"u0": "i7", "u1": "i7", "u4": "i6"}


@dataclass(frozen=True)
class StubScorer:
    """A stub of the trained models of a date: `answer` maps a mode to a function of the item numbers."""

    models: str | None
    answer: dict
    bundle: str = ""

    @property
    def modes(self):
        return (*self.answer, "linear", "content", "popular")

    def of(self, warehouse):
        return replace(self, bundle=f"{warehouse}/{BUNDLE}")

    @property
    def names(self):
        return (self.models,)

    def folders(self, mode):
        return str(self.models)

    def columns(self, modes):
        return (c.ITEM_IDX,)

    def __call__(self, rows, modes):
        return {mode: self.answer[mode](rows.column(c.ITEM_IDX).to_numpy()) for mode in modes}


def config(warehouse: Path, **sections) -> Config:
    source = {"interactions": {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i",
                               "event_time": "t"}}  # fmt: skip
    examples = {"label_days": 7, "num_windows": 2}
    base = {"recommendations": {"k": K}, "training_examples": examples, "model_metrics": {"bootstrap": 20}}
    return Config.model_validate({"warehouse": str(warehouse), "source": source, **base, **sections})


def event(user: str, item: str, day: date, kind: str = "purchase") -> tuple:
    at = datetime(day.year, day.month, day.day, 12)
    return (SCENARIO_OF[user], user, item, at, kind, 1.0, None, day)


def events() -> list[tuple]:
    """Every user buys the item of the same number first; in the window BOUGHT, and u2 the same item again."""
    first = [event(user, item, FIRST) for user, item in zip(USERS, ITEMS, strict=False)]
    return [*first, *(event(u, i, WINDOW + timedelta(days=1)) for u, i in BOUGHT.items()), event("u2", "i2", WINDOW)]


def rows_of(spark, as_of: date):
    """Candidates: all items that a user has not seen; linear prefers high numbers, popular low ones."""
    seen = {(user, item) for _, user, item, _, _, _, _, day in events() if day < as_of}
    users = [(SCENARIO_OF[u], u, at) for at, u in enumerate(USERS)]
    users += [(s, c.DEFAULT_USER, -1) for s in ("DE", "FR")]
    nan = float("nan")
    rows = [
        (as_of, scenario, 0, user_idx, at, "linear" if user_idx >= 0 else "popular", user_idx,
         float(at) if user_idx >= 0 else nan, float(-at), 0.0)
        for scenario, user, user_idx in users
        for at, item in enumerate(ITEMS)
        if (user, item) not in seen
    ]  # fmt: skip
    scores = "linear_score float, popular_score float, content_score float"
    base = spark.createDataFrame(
        rows,
        f"as_of date, scenario string, scenario_idx int, user_idx int, item_idx int, source string, "
        f"because_item_idx int, {scores}",
    )
    rest = {name: F.lit(0.0).cast("float") for name in FEATURES if name not in base.columns}
    rest["user_events"] = F.when(F.col(c.USER_IDX) >= 0, 1.0).otherwise(0.0).cast("float")
    return base.withColumns(rest).select(candidates.TABLE.columns)


def build(spark, warehouse: Path) -> None:
    """Write the tables and the part of a retriever that publication needs."""
    store_config = config(warehouse)
    store = Store(spark, store_config, "builder")
    create = partial(spark.createDataFrame)
    store.append(interactions.TABLE, create(events(), interactions.TABLE.schema))
    texts = [(i, None if n == 1 else f"THING {n}", None, None, "h", FIRST, None) for n, i in enumerate(ITEMS)]
    store.append(items.TABLE, create(texts, items.TABLE.schema))
    store.append(index.ITEM_INDEX, create([(i, n) for n, i in enumerate(ITEMS)], index.ITEM_INDEX.schema))
    store.append(index.USER_INDEX, create([(u, n) for n, u in enumerate(USERS)], index.USER_INDEX.schema))
    for as_of in (WINDOW, RUN_DATE):
        rows = rows_of(spark, as_of)
        rates = {"others": 1.0, "of_scenarios": {}}
        stamp = {"fingerprint": f"candidates-{as_of}", "as_of": str(as_of), candidates.RATES: rates}
        store.replace(candidates.TABLE, rows.coalesce(1), where=f"as_of = '{as_of}'", metadata=stamp)
    first_time = np.full(len(ITEMS), float(as_of_day(FIRST - timedelta(days=100))))
    first_time[6] = as_of_day(FIRST)  # i6 is a cold item; i7 has been seen for long
    tie_rank = np.arange(len(ITEMS), dtype=np.int32)
    model_folder.save(f"{warehouse}/{BUNDLE}", {}, {"tie_rank": tie_rank, "stats_first_time": first_time})
    for as_of in (WINDOW, RUN_DATE):
        artifacts.point(store, store_config, "retriever", as_of, f"{warehouse}/{BUNDLE}")
