"""Features that the configuration names, as the input of a network; recspark/given_features.py looks them up.

Shape suffixes: B rows, N numbers, G features with texts, T texts of a row, D embedding dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.given_features import FIRST_KNOWN
from recspark.models.normaliser import Normaliser

DIM = 8  # of a text's embedding


class GivenEncoder(nn.Module):
    """Given features -> one vector per row: numbers normalised, with an indicator where unknown, and for each feature
    with texts the mean of its texts' embeddings. `known`: how many texts of each feature have a code of their own."""

    bases_G: Tensor

    def __init__(self, num_numbers: int, known: Sequence[int]) -> None:
        super().__init__()
        self.normaliser = Normaliser(num_numbers, num_numbers)
        sizes = [FIRST_KNOWN + size for size in known]
        self.texts = nn.Embedding(max(1, sum(sizes)), DIM)
        nn.init.normal_(self.texts.weight, std=0.05)
        self.register_buffer("bases_G", torch.tensor([0, *sizes], dtype=torch.int64).cumsum(0)[:-1])
        for g, size in enumerate(known):
            self.register_buffer(f"known_{g}", torch.zeros(size, dtype=torch.int64))
        self.dim = 2 * num_numbers + DIM * len(sizes)

    def fit(self, numbers: Array, known: Sequence[Array]) -> None:
        """Set constants: quantiles of training rows (n, N), the hashes of the known texts."""
        self.normaliser.fit(numbers, np.arange(numbers.shape[1]))
        for g, hashes in enumerate(known):
            self.get_buffer(f"known_{g}").copy_(torch.from_numpy(hashes))

    def known(self) -> tuple[Array, ...]:
        """The hashes of each feature's known texts, as `fit` got them."""
        return tuple(self.get_buffer(f"known_{g}").cpu().numpy() for g in range(len(self.bases_G)))

    def forward(self, numbers_BN: Tensor, texts_BGT: Tensor) -> Tensor:
        placed: Tensor = self.normaliser(numbers_BN)
        if not len(self.bases_G):
            return placed
        there_BGT1 = (texts_BGT > 0).unsqueeze(3)
        found_BGTD = self.texts(texts_BGT + self.bases_G[:, None]) * there_BGT1
        mean_BGD = found_BGTD.sum(dim=2) / there_BGT1.sum(dim=2)  # every feature has a code, if only that of MISSING
        return torch.cat((placed, mean_BGD.flatten(1)), dim=1)
