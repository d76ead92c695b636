import numpy as np

from recspark.config.retrievers import CoOccurrence
from recspark.histories import Histories
from recspark.models.retrievers import co_occurrence
from recspark.models.retrievers.catalogue import Catalogue

NOW = np.zeros(1)


def histories(*users: list[tuple[int, float]], scenario: tuple[int, ...] = ()) -> Histories:
    """Users as lists of (item, day); all in scenario 0 by default."""
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users])))
    item, time = (np.array([event[x] for user in users for event in user]) for x in (0, 1))
    rows = np.repeat(np.array(scenario or [0] * len(users)), np.diff(offsets))
    ones = np.ones(len(item))
    return Histories(offsets, item.astype(int), rows, time.astype(float), ones, ones, ones)


def settings_of(**changed: float) -> CoOccurrence:
    return CoOccurrence(**{"half_life_days": float("inf"), "shrinkage": 1.0, **changed})


def scores_of(
    settings: CoOccurrence, trained: Histories, user: list[tuple[int, float]], s: int = 0, own: bool = False
) -> list[float]:
    """Scores of the four items for one user's events, in scenario s."""
    model = co_occurrence.fit(trained, Catalogue(4, 2), settings, own=own)
    return co_occurrence.scores(model, histories(user), np.array([s]), NOW)[0].tolist()


TRAINED = histories([(0, 0), (1, 0), (2, 6)], [(0, 0), (1, 3)], [(3, 0)])


def test_counts_by_hand() -> None:
    """Item 0 is with 1 twice and with 2 once; norms 1 / sqrt(n + 1) with n = 2, 2, 1, 1: 2 / 3 and 1 / sqrt(6)."""
    found = scores_of(settings_of(), TRAINED, [(0, 9)])
    np.testing.assert_allclose(found, [0, 2 / 3, 1 / np.sqrt(6), 0], rtol=1e-6)


def test_pairs_far_apart_count_less() -> None:
    """Half-life 3 days: 0 and 1 on one day count 1, 3 days apart 1/2; 0 and 2, 6 days apart, 1/4."""
    found = scores_of(settings_of(pair_half_life_days=3.0), TRAINED, [(0, 9)])
    np.testing.assert_allclose(found, [0, 1.5 / 3, 0.25 / np.sqrt(6), 0], rtol=1e-6)


def test_both_ways_of_counting_agree(monkeypatch) -> None:
    """Pairs with a half-life of 1e12 days = the product of sparse matrices, in blocks of any size."""
    rng = np.random.default_rng(0)
    users = [[(int(i), float(t)) for t, i in enumerate(rng.integers(0, 4, 6))] for _ in range(20)]
    trained = histories(*users, scenario=tuple(rng.integers(0, 2, 20)))
    monkeypatch.setattr(co_occurrence, "PAIRS_A_BLOCK", 50)
    for own in (False, True):
        plain, slow = (
            scores_of(settings_of(pair_half_life_days=days, shrinkage=5.0), trained, [(0, 9), (2, 9)], 1, own)
            for days in (float("inf"), 1e12)
        )
        np.testing.assert_allclose(plain, slow, rtol=1e-6)


def test_old_history_counts_less() -> None:
    """The event with item 0 is 10 days before that with item 3; at a half-life of 10 days its similarities halve."""
    fresh = scores_of(settings_of(), TRAINED, [(0, 9)])
    old = scores_of(settings_of(half_life_days=10.0), TRAINED, [(0, 9), (3, 19)])
    np.testing.assert_allclose(old[1:3], np.array(fresh[1:3]) / 2, rtol=1e-6)


def test_own_scenario_only() -> None:
    """In scenario 1 only item 2 is together with item 0, so item 1 has no score there."""
    trained = histories([(0, 0), (1, 0)], [(0, 0), (2, 0)], scenario=(0, 1))
    settings = settings_of()
    np.testing.assert_allclose(scores_of(settings, trained, [(0, 1)], 0, own=True), [0, 1 / 2, 0, 0])
    np.testing.assert_allclose(scores_of(settings, trained, [(0, 1)], 1, own=True), [0, 0, 1 / 2, 0])


def test_keeps_the_best_neighbours() -> None:
    """Of item 0's neighbours 1 (2 / 3) and 2 (.41) only the first one is kept; of equal ones the lower item."""
    settings = settings_of(neighbours=1)
    np.testing.assert_allclose(scores_of(settings, TRAINED, [(0, 9)]), [0, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores_of(settings, histories([(0, 0), (1, 0), (2, 0)]), [(2, 9)]), [1 / 2, 0, 0, 0])
