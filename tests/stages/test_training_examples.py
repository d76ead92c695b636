"""Which events are the labels of a window, on the hand-made warehouse."""

from datetime import timedelta

import pytest

from recspark.errors import DataError
from recspark.stages import training_examples
from recspark.tables import candidates, interactions
from recspark.tables.training_examples import table
from recspark.warehouse.store import Store
from tests.stages import hand_made
from tests.stages.hand_made import WINDOW


def test_a_window_has_the_events_of_its_seven_days(spark, copy_hand_made):
    """u3 buys i4 and i5 on the first and the last day of the window; i6 the day before it, i7 the day after it."""
    config = hand_made.config(copy_hand_made())
    store = Store(spark, config, "run")
    bought = {"i6": -1, "i4": 0, "i5": 6, "i7": 7}
    events = [hand_made.event("u3", item, WINDOW + timedelta(days=after)) for item, after in bought.items()]
    store.append(interactions.TABLE, spark.createDataFrame(events, interactions.TABLE.schema))
    training_examples.refresh(store, config, hand_made.RUN_DATE)
    rows = store.read(table(config.training_examples.tasks)).where("user_idx = 3").collect()
    assert {row.as_of for row in rows} == {WINDOW}
    labels = {hand_made.ITEMS[row.item_idx]: row.label_interaction for row in rows}
    assert labels == {"i0": 0, "i1": 0, "i2": 0, "i4": 1, "i5": 1, "i6": 0, "i7": 0}  # i3 is no candidate


def test_candidates_that_were_not_made_to_learn_from_are_refused(spark, copy_hand_made):
    """Four weeks ago they were the candidates of that night: all users, and no rate of a sample."""
    config = hand_made.config(copy_hand_made())
    store = Store(spark, config, "run")
    rows = store.read(candidates.TABLE).where(f"as_of = '{WINDOW}'")
    stamp = {"fingerprint": "tonight", "as_of": str(WINDOW)}
    store.replace(candidates.TABLE, rows, where=f"as_of = '{WINDOW}'", metadata=stamp)
    with pytest.raises(DataError, match=rf"candidates as of {WINDOW} .* run jobs/candidates.py first"):
        training_examples.refresh(store, config, hand_made.RUN_DATE)
