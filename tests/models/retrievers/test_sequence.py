import numpy as np
import pytest
import torch

from recspark.config.retrievers import Sequence
from recspark.errors import DataError
from recspark.histories import Histories
from recspark.models.retrievers import sequence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.sequence_network import NO_GAP, build, gap_bucket

SMALL = Sequence(dim=16, layers=1, length=5, dropout=0.0, negatives=8, learning_rate=0.02, max_epochs=20)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "BATCH_USERS", 50)


def epochs(number: int) -> Sequence:
    return SMALL.model_copy(update={"max_epochs": number})


def cycle(num_users: int = 100, num_events: int = 6, items: int = 12) -> Histories:
    """After item i comes item i + 1, around; even items are scenario 0, odd ones 1; a day apart."""
    start = np.random.default_rng(0).integers(0, items, num_users)
    item = ((start[:, None] + np.arange(num_events)) % items).ravel()
    ones, time = np.ones(len(item)), np.tile(np.arange(num_events, dtype=np.float64), num_users)
    return Histories(np.arange(num_users + 1) * num_events, item, item % 2, time, ones, ones, ones)


def test_learns_what_comes_next() -> None:
    histories = cycle()
    model = sequence.fit(histories, Catalogue(12, 2), SMALL, 0)
    last = histories.item_idx[5::6]
    found = sequence.scores(model, histories, (last + 1) % 2, np.full(100, 6.0))
    assert (np.argmax(found, axis=1) == (last + 1) % 12).mean() > 0.95


def test_scores_of_lists_are_those_of_all_items() -> None:
    histories = cycle(20)
    model = sequence.fit(histories, Catalogue(12, 2), epochs(1), 0)
    query = (np.zeros(20, dtype=np.int64), np.full(20, 7.0))
    lists = np.random.default_rng(1).integers(0, 12, (20, 3))
    expected = np.take_along_axis(sequence.scores(model, histories, *query), lists, axis=1)
    np.testing.assert_allclose(sequence.scores_at(model, histories, *query, lists), expected, atol=1e-5)


def test_the_future_is_not_seen() -> None:
    """Changing the last event changes no state before it."""
    network = build(SMALL, Catalogue(12, 2), np.arange(12), 0).eval()
    item = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 4, 9]])
    zeros = torch.zeros_like(item)
    with torch.no_grad():
        a, b = (network(x, zeros, zeros, zeros, zeros) for x in (item, other))
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert not torch.allclose(a[:, 4], b[:, 4])


def test_gap_buckets() -> None:
    """Edges 0.5, 1.5 ... 365.5 days."""
    found = gap_bucket(np.array([0.0, 1.0, 400.0, np.nan]))
    np.testing.assert_array_equal(found, [0, 1, 9, NO_GAP])


def test_an_item_without_events_is_its_content() -> None:
    """Items 12 and 13 have no event; 12 has the content of item 0, 13 none: 12 is scored like its content, 13 is 0."""
    content = np.zeros((14, 12), dtype=np.float32)
    content[:12] = np.eye(12)
    content[12] = content[0]
    model = sequence.fit(cycle(), Catalogue(14, 2, content), epochs(3), 0)
    network = sequence.thaw(model)
    with torch.no_grad():
        vectors = network.vectors(torch.tensor([1, 13, 14]))
        projected = network.project(torch.from_numpy(content[:1]))[0]
    torch.testing.assert_close(vectors[1], projected)
    assert not vectors[2].any()


def test_balance_draws_users_of_scarce_scenarios_more_often() -> None:
    """Nine users in scenario 0, one in scenario 1, two events each. Targets 9 to 1: with balance 1 a user of scenario 1
    is drawn (1 / 1) / (1 / 9) = 9 times as often."""
    item, ones = np.tile([0, 1], 10), np.ones(20)
    scenario = np.repeat([0] * 9 + [1], 2)
    histories = Histories(np.arange(11) * 2, item, scenario, ones, ones, ones, ones)
    chance = sequence.targets(histories, Catalogue(2, 2), SMALL, balance=1.0).chance
    np.testing.assert_allclose(chance, [1 / 18] * 9 + [1 / 2])


def test_nothing_to_learn_from() -> None:
    ones = np.ones(2)
    alone = Histories(np.array([0, 1, 2]), np.array([0, 1]), np.array([0, 0]), ones, ones, ones, ones)
    with pytest.raises(DataError, match="two events"):
        sequence.fit(alone, Catalogue(2, 1), SMALL, 0)
