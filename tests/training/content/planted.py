"""Planted pairs of texts for the text adapter: who interacts with `red` soon interacts with `lamp`."""

import itertools

import numpy as np

from recspark.training.content import text_adapter
from recspark.training.content.text_adapter import Pairs

LEFT = [" ".join(words) for words in itertools.product(("red", "green"), repeat=4)]  # no word of RIGHT
RIGHT = [" ".join(words) for words in itertools.product(("lamp", "mug"), repeat=4)]


def together(num_users: int = 100) -> Pairs:
    """Every user has four texts of LEFT, and after LEFT i always RIGHT i: red becomes lamp and green mug."""
    rng = np.random.default_rng(0)
    rows = [(user, i) for user in range(num_users) for i in rng.permutation(16)[:4]]
    return text_adapter.pairs_of([user for user, _ in rows], [LEFT[i] for _, i in rows], [RIGHT[i] for _, i in rows])
