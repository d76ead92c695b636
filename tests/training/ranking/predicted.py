"""What a saved ranker predicts for planted rows that no training saw."""

import numpy as np
import torch

from recspark.training.feed.feed import Batch
from recspark.training.ranking import saved
from recspark.training.ranking.fit import BatchPreparer
from recspark.training.ranking.job import INTS
from tests.training import planted


def scores(folder: str, window: planted.Window) -> np.ndarray:
    """Probabilities of the first task."""
    return torch.sigmoid(logits(folder, window)[:, 0]).numpy()


def logits(folder: str, window: planted.Window, num_rows: int = 2000) -> torch.Tensor:
    """(num_rows, tasks)."""
    rows = planted.columns(num_rows, seed=99)
    prepare_batch = BatchPreparer(planted.FEATURES, planted.TASKS, (window,), 3)
    ints = np.stack([rows[name] for name in INTS], axis=1)
    floats = np.stack([rows[name] for name in (*planted.FEATURES, "label_click", "label_spend")], axis=1)
    with torch.inference_mode():
        return saved.load(folder)(prepare_batch(Batch(ints, floats, rows["weight"], num_rows))[0])
