"""Varied histories by hand; 0 is padding, the newest event stands first."""

import numpy as np
import torch

from recspark.models.layers import Inputs, look_up
from recspark.training.feed.feed import Batch
from recspark.training.ranking import augmentation

HISTORY = np.array([[5, 4, 3, 2], [9, 8, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]])


def test_a_cropping_keeps_the_newest_half_at_least() -> None:
    rng = np.random.default_rng(0)
    seen = {tuple(map(tuple, augmentation.cropped(HISTORY, rng))) for _ in range(50)}
    assert {row[0] for row in seen} == {(5, 4, 3, 0), (5, 4, 3, 2)}  # ceil(4 u), u from a half on
    assert {row[1] for row in seen} == {(9, 8, 0, 0)}  # ceil(2 u) with u above a half
    assert {row[2:] for row in seen} == {((7, 0, 0, 0), (0, 0, 0, 0))}


def test_a_masking_hides_a_fifth() -> None:
    many = np.ones((2000, 10), int)
    found = augmentation.masked(many, np.random.default_rng(0))
    assert set(np.unique(found)) == {0, 1}
    assert abs((found == 0).mean() - 0.2) < 0.01  # sd .4 / sqrt(20,000) = .003


def test_a_mixing_takes_the_older_half_of_another() -> None:
    found = augmentation.mixed(HISTORY, HISTORY[[1, 0, 0, 0]])
    assert found.tolist() == [[5, 4, 0, 0], [9, 4, 3, 2], [7, 4, 3, 2], [5, 4, 3, 2]]


def test_partners_are_of_one_scenario_and_label() -> None:
    keys = np.stack([np.arange(600) % 3, np.arange(600) % 2], axis=1)
    found = augmentation.partners(keys, np.random.default_rng(0))
    assert sorted(found) == list(range(600))
    assert (keys[found] == keys).all()
    assert (found != np.arange(600)).mean() > 0.9


def test_training_rows_vary_and_the_same_batch_varies_the_same() -> None:
    ints = np.zeros((400, 4), np.int32)
    ints[:, 2] = np.arange(400)
    rows = Batch(ints, np.zeros((400, 1), np.float32), np.ones(400, np.float32), 400)

    def prepare_batch(batch: Batch) -> tuple[Inputs, torch.Tensor]:
        n = len(batch)
        history = np.tile(np.array([3, 2, 1, 0], np.int32), (n, 1))
        inputs = look_up(batch.floats, batch.ints[:, 1], batch.ints[:, 3], history, np.zeros((4, 2), np.float32))
        return inputs, torch.zeros(n, 1)

    training_prepare = augmentation.augmented(prepare_batch, seed=1)
    plain = prepare_batch(rows)[0].history_BL
    one, again = (training_prepare(rows)[0].history_BL for _ in range(2))
    assert torch.equal(one, again)
    same = float((one == plain).all(dim=1).float().mean())
    # a quarter as it is, a quarter mixed with its like, .8^4 = .41 of the masked, half of the cropped (ceil(4 u) = 4)
    assert abs(same - (0.5 + 0.41 / 4 + 0.5 / 4)) < 0.08
    other = Batch(ints + 1, rows.floats, rows.weights, 400)
    assert not torch.equal(training_prepare(other)[0].history_BL, one)
