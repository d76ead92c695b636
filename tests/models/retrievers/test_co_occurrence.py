import numpy as np

from recspark.histories import Histories
from recspark.models.retrievers import co_occurrence
from recspark.models.retrievers.catalogue import Catalogue

NOW = np.zeros(1)


def histories(*users: list[tuple[int, float]], scenario: tuple[int, ...] = ()) -> Histories:
    """Users as lists of (item, day); all in scenario 0 unless told."""
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users])))
    item, time = (np.array([event[x] for user in users for event in user]) for x in (0, 1))
    rows = np.repeat(np.array(scenario or [0] * len(users)), np.diff(offsets))
    ones = np.ones(len(item))
    return Histories(offsets, item.astype(int), rows, time.astype(float), ones, ones, ones)


def asked(settings: co_occurrence.Settings, trained: Histories, user: list[tuple[int, float]], s: int = 0) -> list:
    model = co_occurrence.fit(trained, Catalogue(4, 2), settings)
    return co_occurrence.scores(model, histories(user), np.array([s]), NOW)[0].tolist()


TRAINED = histories([(0, 0), (1, 0), (2, 6)], [(0, 0), (1, 3)], [(3, 0)])


def test_counts_by_hand() -> None:
    """Item 0 is with 1 twice and with 2 once; norms 1 / sqrt(n + 1) with n = 2, 2, 1, 1: 2 / 3 and 1 / sqrt(6)."""
    found = asked(co_occurrence.Settings(shrinkage=1.0), TRAINED, [(0, 9)])
    np.testing.assert_allclose(found, [0, 2 / 3, 1 / np.sqrt(6), 0], rtol=1e-6)


def test_pairs_far_apart_count_less() -> None:
    """Half-life 3 days: 0 and 1 on one day count 1, 3 days apart 1/2; 0 and 2, 6 days apart, 1/4."""
    settings = co_occurrence.Settings(pair_half_life_days=3.0, shrinkage=1.0)
    found = asked(settings, TRAINED, [(0, 9)])
    np.testing.assert_allclose(found, [0, 1.5 / 3, 0.25 / np.sqrt(6), 0], rtol=1e-6)


def test_both_ways_of_counting_agree(monkeypatch) -> None:
    """Pairs that do not fade in any lifetime = the product of sparse matrices, in blocks of any size."""
    rng = np.random.default_rng(0)
    users = [[(int(i), float(t)) for t, i in enumerate(rng.integers(0, 4, 6))] for _ in range(20)]
    trained = histories(*users, scenario=tuple(rng.integers(0, 2, 20)))
    monkeypatch.setattr(co_occurrence, "PAIRS_A_BLOCK", 50)
    for own in (False, True):
        plain, slow = (
            asked(co_occurrence.Settings(days, own=own), trained, [(0, 9), (2, 9)], 1) for days in (float("inf"), 1e12)
        )
        np.testing.assert_allclose(plain, slow, rtol=1e-6)


def test_old_history_counts_less() -> None:
    """Item 0 was had 10 days before item 3, at a half-life of 10 days: half of what it says otherwise."""
    fresh = asked(co_occurrence.Settings(shrinkage=1.0), TRAINED, [(0, 9)])
    old = asked(co_occurrence.Settings(half_life_days=10.0, shrinkage=1.0), TRAINED, [(0, 9), (3, 19)])
    np.testing.assert_allclose(old[1:3], np.array(fresh[1:3]) / 2, rtol=1e-6)


def test_own_scenario_only() -> None:
    """Scenario 1 saw 0 with 2 only; whoever asks there hears nothing of item 1."""
    trained = histories([(0, 0), (1, 0)], [(0, 0), (2, 0)], scenario=(0, 1))
    settings = co_occurrence.Settings(shrinkage=1.0, own=True)
    np.testing.assert_allclose(asked(settings, trained, [(0, 1)], 0), [0, 1 / 2, 0, 0])
    np.testing.assert_allclose(asked(settings, trained, [(0, 1)], 1), [0, 0, 1 / 2, 0])


def test_keeps_the_best_neighbours() -> None:
    """Of item 0's neighbours 1 (2 / 3) and 2 (.41) only the first one is kept; equal ones: the lower item."""
    settings = co_occurrence.Settings(shrinkage=1.0, neighbours=1)
    np.testing.assert_allclose(asked(settings, TRAINED, [(0, 9)]), [0, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(asked(settings, histories([(0, 0), (1, 0), (2, 0)]), [(2, 9)]), [1 / 2, 0, 0, 0])
