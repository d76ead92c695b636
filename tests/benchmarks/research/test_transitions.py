import numpy as np
import pytest

from benchmarks.research import transitions
from recspark.histories import Histories
from recspark.models.retrievers.catalogue import Catalogue


def histories(sequences: list[list[int]]) -> Histories:
    item = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(sequence) for sequence in sequences])))
    ones = np.ones(len(item))
    return Histories(offsets, item, np.zeros(len(item), dtype=np.int64), ones * np.nan, ones, ones, ones)


def test_pairs_by_hand() -> None:
    """One user with 0, 1, 2: 1 follows 0 by one place, 2 follows 0 by two; counts are 1, so a pair is divided by 2."""
    model = transitions.fit(
        histories([[0, 1, 2]]), Catalogue(4, 1), transitions.Settings(rank=2, decay_per_event=0.5), 0
    )
    np.testing.assert_allclose(model.forward_II.toarray()[0], [0, 1, 1 / 2, 0])
    np.testing.assert_allclose(model.near_II.toarray()[2], [1 / 2, 1, 0, 0])
    np.testing.assert_allclose(model.late_I, [0.25, 0.5, 1, 0])
    views = transitions.views(model, histories([[0, 1]]))
    assert set(views) == set(transitions.VIEWS)
    np.testing.assert_allclose(views["forward_last"], [[0, 0, 1 / 2, 0]], rtol=1e-6)
    # 0 counts half of 1: (1/2) (1/2) + 1, divided by sqrt(2) sqrt(2)
    np.testing.assert_allclose(views["forward_recent"], [[0, 0.25, 0.625, 0]], rtol=1e-6)
    # the weak view divides by 2 ** .25 at both ends
    np.testing.assert_allclose(views["forward_weak"], [[0, 0.5 / 2**0.5, 1.25 / 2**0.5, 0]], rtol=1e-6)


def test_the_spectrum_relates_items_that_no_user_has_both_of() -> None:
    """Planted: users of 0 and 1, 1 and 2, 3 and 4, 4 and 5. None has 0 and 2, yet 0 is nearer to 2 than to the rest."""
    model = transitions.fit(
        histories([[0, 1], [1, 2], [3, 4], [4, 5]] * 5), Catalogue(6, 1), transitions.Settings(rank=2), 0
    )
    views = transitions.views(model, histories([[0]]))
    assert views["near_last"][0, 2] == 0
    for name in ("spectral_last", "filter_last"):
        assert views[name][0, 2] > 10 * np.abs(views[name][0, 3:]).max()


@pytest.mark.parametrize("length", [2, 3])
def test_only_the_last_events_count(length: int) -> None:
    model = transitions.fit(histories([[0, 1, 2]]), Catalogue(3, 1), transitions.Settings(length=length, rank=1), 0)
    assert (model.counts_I[0] > 0) == (length == 3)
