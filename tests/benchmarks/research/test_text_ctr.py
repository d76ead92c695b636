import numpy as np
import pytest

from benchmarks.research import text_ctr as board
from benchmarks.research.ratings import like_features


@pytest.fixture
def data() -> board.Data:
    """Users 0, 0, 1, 1, 0: the last row is a test row, the fourth is cold; histories of 0, 1, 0, 1 and 2 items."""
    rows = like_features.Rows(
        np.array([0, 0, 1, 1, 0]), np.array([0, 1, 2, 0, 2]), np.array([0, 2, 0, 1]), np.array([0, 0, 1, 1, 2, 4])
    )
    label, warm = np.array([1, 0, 1, 0, 1]), np.array([True, True, True, False, True])
    return board.Data(rows, label, np.full(5, 2000.0), np.zeros(5), warm, np.array([0, 1, 8, 8, 9]), np.eye(3))


def test_asked_rows_keep_their_histories(data: board.Data) -> None:
    found = board.asked(data, np.array([False, True, False, False, True]))
    np.testing.assert_array_equal(found.item_idx, [1, 2])
    np.testing.assert_array_equal(found.offsets, [0, 1, 3])
    np.testing.assert_array_equal(found.history, [0, 0, 1])


def test_known_rows_are_the_chosen_ones(data: board.Data) -> None:
    known = data.known(data.window < 8)
    np.testing.assert_array_equal(known.item_idx, [0, 1])
    np.testing.assert_array_equal(known.value, [1.0, 0.0])
    assert (known.num_users, known.num_items) == (2, 3)


def test_uauc_is_the_mean_of_users_with_both_labels(data: board.Data) -> None:
    """First four rows: user 0 is right (1), user 1 is wrong (0); over all, of 2 x 2 pairs three are right."""
    scores = np.array([0.9, 0.1, 0.5, 0.6])
    found = board.figures(data, np.arange(5) < 4, scores)
    assert (found["auc"], found["uauc"]) == (0.75, 0.5)
    assert (found["auc warm"], found["uauc warm"]) == (1.0, 1.0)  # without the cold row: .9 and .5 over .1
    assert np.isnan(found["auc cold"])  # one row, one label
