import numpy as np

from benchmarks.research import list_fusion, transitions
from benchmarks.research.event_time_features import Lists
from recspark.histories import Histories, take
from recspark.models.retrievers.catalogue import Catalogue


def world(num_users: int = 300) -> tuple[Histories, Lists]:
    """More users than a block holds, with lists of one to four items."""
    rng = np.random.default_rng(0)
    ones = np.ones(num_users * 5)
    time = np.sort(rng.uniform(0, 100, (num_users, 5)), axis=1).ravel()
    item, scenario = rng.integers(0, 20, (2, num_users * 5))
    histories = Histories(np.arange(num_users + 1) * 5, item, scenario % 2, time, ones, ones, ones)
    offsets = np.concatenate(([0], np.cumsum(rng.integers(1, 5, num_users))))
    query = (np.arange(num_users) % 2, np.full(num_users, 100.0), offsets, rng.integers(0, 20, offsets[-1]))
    return histories, Lists(histories, *query)


def test_a_list_alone_has_the_same_features() -> None:
    histories, lists = world()
    model = transitions.fit(histories, Catalogue(20, 2), transitions.Settings(rank=4), 0)
    together = list_fusion.rows(model, histories, lists)
    assert together.features.shape == (lists.offsets[-1], len(together.names)) and together.features.dtype == np.float32
    for user in (0, 127, 128, 299):
        alone = take(lists.histories, np.array([user]))
        rows = slice(lists.offsets[user], lists.offsets[user + 1])
        at = [x[user : user + 1] for x in (lists.scenario_idx, lists.time)]
        one = Lists(alone, *at, np.array([0, rows.stop - rows.start]), lists.item_idx[rows])
        np.testing.assert_allclose(list_fusion.rows(model, histories, one).features, together.features[rows], atol=1e-6)


def test_without_time_nothing_of_time_is_left() -> None:
    """Other times, same order: not one number changes."""
    histories, lists = world()
    model = transitions.fit(histories, Catalogue(20, 2), transitions.Settings(rank=4), 0)
    timed = list_fusion.rows(model, histories, lists)
    other = Lists(lists.histories, lists.scenario_idx, lists.time + 50.0, lists.offsets, lists.item_idx)
    changed = list_fusion.rows(model, histories, other)
    assert not np.array_equal(timed.features, changed.features, equal_nan=True)
    np.testing.assert_array_equal(timed.without_time().features, changed.without_time().features)
    assert "item_idle_2" in timed.names and "item_idle_2" not in timed.without_time().names
