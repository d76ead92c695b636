import numpy as np
import pytest

from benchmarks.research import scenario_ranking as board
from recspark import metrics


def test_shares_have_the_auc_as_mean() -> None:
    """Positives at 3 and 1, negatives at 2 and 1: 3 is above both, 1 above none and level with one, (1 + 0.25) / 2."""
    labels, scores = np.array([1, 1, 0, 0]), np.array([3.0, 1.0, 2.0, 1.0])
    found = board.shares(labels, scores)
    np.testing.assert_allclose(found, [1.0, 0.25, 0.5, 0.75])
    assert found[labels == 1].mean() == found[labels == 0].mean() == metrics.auc(labels, scores)


@pytest.fixture
def data() -> board.Data:
    """600 validation and 300 test rows of 100 users; scenario = user % 3."""
    user = np.arange(900) % 100
    codes = np.zeros((900, len(board.FIELDS)), dtype=np.int64)
    codes[:, 0], codes[:, -1] = user, user % 3
    label = np.random.default_rng(0).integers(0, 2, 900)
    part = np.where(np.arange(900) < 600, board.VALID, board.TEST)
    return board.Data(codes, (100, 1, 1, 1, 1, 1, 1, 3), label * 4 + 1, label, part)


def test_gate_takes_a_mode_only_where_it_is_better(data: board.Data) -> None:
    rng = np.random.default_rng(1)
    noise, knows = rng.random(900), data.label + 0.5 * rng.random(900)
    lines = {name: noise for name in board.GATED}
    lines["ours"] = np.where(data.column("scenario") == 0, knows, noise)
    found, decisions = board.gated(data, lines)
    assert [d.mode for d in decisions] == ["ours", board.GATED[0], board.GATED[0]]
    mine = data.column("scenario") == 0
    np.testing.assert_array_equal(found[mine], knows[mine])
    np.testing.assert_array_equal(found[~mine], noise[~mine])


def test_alone_leaves_every_row_to_its_scenario(data: board.Data) -> None:
    found = board.alone(data, lambda mine: np.full(len(mine), float(mine.sum())))
    np.testing.assert_array_equal(found, np.bincount(data.column("scenario"))[data.column("scenario")])
