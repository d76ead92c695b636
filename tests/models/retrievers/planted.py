"""A planted world of items whose content tells users' tastes."""

import numpy as np

from recspark.histories import Histories
from recspark.models.retrievers.catalogue import Catalogue

NUM_ITEMS, NUM_USERS, NEW = 120, 400, 20


def world(seed: int = 0) -> tuple[Histories, Catalogue, np.ndarray]:
    """Users have one of two tastes and events with items of it. Two encoders describe a part of the taste each, with
    noise; a third one is noise alone. The last NEW items have no event."""
    rng = np.random.default_rng(seed)
    taste_I, taste_U = np.arange(NUM_ITEMS) % 2, np.arange(NUM_USERS) % 2
    sold = np.arange(NUM_ITEMS - NEW)
    rows = [rng.choice(sold[taste_I[sold] == taste_U[user]], 10, replace=False) for user in range(NUM_USERS)]
    sign_I = np.where(taste_I, 1.0, -1.0)
    parts = [rng.normal(size=(NUM_ITEMS, 6)) for _ in range(3)]
    parts[0][:, 0] += np.where(np.arange(NUM_ITEMS) % 4 < 2, 4 * sign_I, 0)
    parts[1][:, 1] += np.where(np.arange(NUM_ITEMS) % 4 < 2, 0, 4 * sign_I)
    item = np.concatenate(rows).astype(np.int32)
    nothing, ones = np.zeros(len(item), np.int32), np.ones(len(item), np.float32)
    histories = Histories(10 * np.arange(NUM_USERS + 1), item, nothing, np.arange(len(item)) * 1.0, ones, ones, ones)
    catalogue = Catalogue(NUM_ITEMS, 1, np.concatenate(parts, axis=1).astype(np.float32), (6, 6, 6))
    return histories, catalogue, taste_I
