"""Given features as inputs of a network."""

import numpy as np
import torch

from recspark.given_features import FIRST_KNOWN, MISSING
from recspark.models.given_encoder import DIM, GivenEncoder


def encoder() -> GivenEncoder:
    made = GivenEncoder(1, (2, 0))
    made.fit(np.linspace(0, 1, 100, dtype=np.float32)[:, None], (np.array([4, 6]), np.array([], np.int64)))
    return made


def test_texts_are_the_mean_of_their_vectors_and_numbers_have_an_indicator() -> None:
    made = encoder()
    second = FIRST_KNOWN + 2  # where the codes of the second feature begin: the first has two known texts
    texts = torch.tensor([[[FIRST_KNOWN, FIRST_KNOWN + 1], [MISSING, 0]], [[MISSING, 0], [5, 0]]])
    found = made(torch.tensor([[0.5], [torch.nan]]), texts).detach()
    rows = made.texts.weight.detach()
    assert found.shape == (2, made.dim) == (2, 2 + 2 * DIM)
    assert found[0, 1] == 0 and found[1, 0] == 0 and found[1, 1] == 1  # known, unknown
    torch.testing.assert_close(found[0, 2 : 2 + DIM], (rows[FIRST_KNOWN] + rows[FIRST_KNOWN + 1]) / 2)
    torch.testing.assert_close(found[0, 2 + DIM :], rows[second + MISSING])
    torch.testing.assert_close(found[1, 2 + DIM :], rows[second + 5])
    assert [one.tolist() for one in made.known()] == [[4, 6], []]


def test_numbers_alone() -> None:
    made = GivenEncoder(1, ())
    made.fit(np.linspace(0, 1, 100, dtype=np.float32)[:, None], ())
    assert made(torch.tensor([[0.5]]), torch.zeros(1, 0, 1, dtype=torch.int64)).shape == (1, made.dim) == (1, 2)
