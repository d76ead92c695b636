"""Changed histories for a scenario with few rows: of each training row as it is, cropped, masked or mixed, by chance.

Reference: Xie et al. 2022 (Contrastive Learning for Sequential Recommendation: crop, mask), Yun et al. 2019 (CutMix).
Shape suffixes: B rows, L history length (newest first, 0 = padding).
"""

import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recspark.arrays import Array
from recspark.models.layers import Inputs
from recspark.training.feed.feed import Batch
from recspark.training.ranking.job import SCENARIO_AT
from recspark.training.ranking.loop import PrepareBatch

SHORTEST = 0.5  # share of the events that cropping keeps at least
MASKED = 0.2  # share of the events that masking hides
NUM_WAYS = 4  # as it is, cropped, masked, mixed


def augmented(prepare_batch: PrepareBatch, seed: int) -> PrepareBatch:
    """`prepare_batch` with changed histories; the changes follow from seed and rows alone, so that a training that was
    killed goes on the same."""

    def training_prepare(batch: Batch) -> tuple[Inputs, Tensor]:
        inputs, targets_BT = prepare_batch(batch)
        rng = np.random.default_rng((seed, zlib.crc32(np.ascontiguousarray(batch.ints).tobytes())))
        history_BL = inputs.history_BL.numpy()
        first = np.nan_to_num(targets_BT[:, 0].numpy(), nan=-1.0)
        partner = partners(np.stack([batch.ints[:, SCENARIO_AT], first], axis=1), rng)
        made = (history_BL, cropped(history_BL, rng), masked(history_BL, rng), mixed(history_BL, history_BL[partner]))
        chosen = rng.integers(NUM_WAYS, size=len(history_BL))
        return replace(inputs, history_BL=torch.from_numpy(np.stack(made)[chosen, np.arange(len(chosen))])), targets_BT

    return training_prepare


def cropped(history_BL: Array, rng: np.random.Generator) -> Array:
    """The newest events only: at least half of them, and at least one."""
    sizes = (history_BL > 0).sum(axis=1)
    kept = np.ceil(sizes * rng.uniform(SHORTEST, 1.0, len(sizes)))
    return np.where(np.arange(history_BL.shape[1]) < kept[:, None], history_BL, 0)


def masked(history_BL: Array, rng: np.random.Generator) -> Array:
    """Each event hidden with the probability MASKED."""
    return np.where(rng.random(history_BL.shape) < MASKED, 0, history_BL)


def mixed(history_BL: Array, other_BL: Array) -> Array:
    """The newer half of each history, then the same places of the other history."""
    newer = np.ceil((history_BL > 0).sum(axis=1) / 2)
    return np.where(np.arange(history_BL.shape[1]) < newer[:, None], history_BL, other_BL)


def partners(keys: Array, rng: np.random.Generator) -> Array:
    """For each row a row with an equal key (n, K), perhaps itself; each row is taken once. int64 (n,)."""
    _, group = np.unique(keys, axis=0, return_inverse=True)
    drawn = rng.permutation(len(keys))
    out = np.empty(len(keys), np.int64)
    out[np.argsort(group, kind="stable")] = drawn[np.argsort(group[drawn], kind="stable")]
    return out
