"""One retriever, two APIs: summed by Spark for the nightly run, or fitted on flat arrays in a benchmark."""

import numpy as np
import pytest

from benchmarks.research import scenario_linear, scenario_popular
from recspark.config.retrievers import Linear
from recspark.histories import Histories, from_arrow
from recspark.models.retrievers import affinity, linear, popular
from recspark.models.retrievers.catalogue import Catalogue
from recspark.stages.retriever.gram import gram
from recspark.stages.retriever.item_stats import item_stats
from recspark.tables import histories as histories_table
from recspark.windows import as_of_day
from tests import world

FOREVER = float("inf")


@pytest.fixture(scope="module")
def both(planted_night):
    """The planted world as a Spark table of histories, and as flat arrays."""
    groups = histories_table.groups_in(planted_night.path)
    frame = histories_table.read(planted_night.store, planted_night.config, world.AS_OF, groups).persist()
    batches = [from_arrow(batch) for batch in frame.toArrow().to_batches() if batch.num_rows]
    sizes = np.concatenate([np.diff(part.offsets) for part in batches])
    names = ("item_idx", "scenario_idx", "time", "weight", "value", "price")
    arrays = (np.concatenate([getattr(part, name) for part in batches]) for name in names)
    return frame, Histories(np.concatenate(([0], np.cumsum(sizes))), *arrays)


def test_linear(planted_night, both) -> None:
    frame, flat = both
    num_items, day = len(planted_night.bundle.known), as_of_day(world.AS_OF)
    weights = linear.fit(gram(frame, num_items, day, FOREVER), 5.0)
    events = (flat.offsets, flat.item_idx, flat.weight, flat.time)
    tonight = linear.scores(affinity.recent(*events, num_items, day, FOREVER), weights)
    catalogue = Catalogue(num_items, int(flat.scenario_idx.max()) + 1)
    model = scenario_linear.fit(flat, catalogue, scenario_linear.Settings(Linear(l2=5.0, half_life_days=FOREVER)))
    zeros = np.zeros(len(flat.offsets) - 1, dtype=int)
    found = scenario_linear.scores(model, flat, zeros, zeros.astype(float))
    np.testing.assert_allclose(found, tonight, atol=1e-6)
    assert np.abs(tonight).max() > 0.01


def test_popular(planted_night, both) -> None:
    """The newest event is a day before tonight, which counts it, and all others, a little less: shares are the same."""
    frame, flat = both
    num_items, day = len(planted_night.bundle.known), as_of_day(world.AS_OF)
    groups = np.unique(flat.scenario_idx)
    _, (cell, net) = item_stats(frame, groups, num_items, day, 14.0)
    fitted = popular.fit(cell, net, len(groups), num_items, 0.0)
    tonight = np.stack([fitted.of_group(row) for row in range(len(groups))])
    catalogue = Catalogue(num_items, int(groups.max()) + 1)
    model = scenario_popular.fit(flat, catalogue, scenario_popular.Settings(14.0, 0.0))
    np.testing.assert_allclose(model.popular_SI[groups], tonight, atol=1e-6)
    assert tonight.max() > 0.01
