"""Numbers of any scale as the inputs of a network: by their quantiles in training.

Shape suffixes: B rows, F features, M features that can be missing, K knots.
"""

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn

from recspark.arrays import Array

KNOTS = 32  # a power of two
REACH = 3.0  # largest normal score: beyond the quantiles .00135 and .99865 all values are the same
SCALE = 0.5  # of a normal score: larger numbers would outweigh the small embeddings in the first layer


class Normaliser(nn.Module):
    """Each dense feature as half the normal score of its quantile in training, -1.5 to 1.5; unknown = 0, with an
    indicator.

    Piecewise linear between quantiles, flat outside: neither the scale of a feature nor outliers nor a later drift
    beyond the training range can make a score explode, and a normal distribution keeps its shape.
    Reference: Gorishniy et al. 2021, Revisiting Deep Learning Models for Tabular Data, use the same transform.
    """

    starts_FK: Tensor
    places_FK: Tensor
    slopes_FK: Tensor
    missing_M: Tensor

    def __init__(self, num_features: int, num_missing: int) -> None:
        super().__init__()
        # Segment j of a feature begins at starts_FK[j]: place = places_FK[j] + slopes_FK[j] * (x - starts_FK[j]).
        self.register_buffer("starts_FK", torch.full((num_features, KNOTS), torch.inf))
        self.starts_FK[:, 0] = 0.0  # a feature without a finite value: one flat segment
        self.register_buffer("places_FK", torch.zeros(num_features, KNOTS))
        self.register_buffer("slopes_FK", torch.zeros(num_features, KNOTS))
        self.register_buffer("missing_M", torch.zeros(num_missing, dtype=torch.int64))

    @torch.no_grad()
    def fit(self, sample: Array, missing: Array | None = None) -> None:
        """Quantiles from (n, F) rows. Equal quantiles become one knot at their mean place, so a value has one place.
        `missing` (M,): the columns with an indicator; None: those that are unknown in some rows of the sample."""
        places = np.linspace(-REACH, REACH, KNOTS)
        for number in range(sample.shape[1]):
            finite = sample[np.isfinite(sample[:, number]), number]
            if len(finite) == 0:
                continue
            starts, owner = np.unique(np.quantile(finite, special.ndtr(places), method="nearest"), return_inverse=True)
            means = SCALE * np.bincount(owner, places) / np.bincount(owner)
            slopes = np.append(np.diff(means) / np.diff(starts.astype(np.float64)), 0.0)
            for buffer, values in ((self.starts_FK, starts), (self.places_FK, means), (self.slopes_FK, slopes)):
                buffer[number, : len(values)] = torch.from_numpy(values.astype(np.float32))
        self.missing_M.copy_(torch.from_numpy(missing_features(sample) if missing is None else missing))

    @torch.no_grad()
    def forward(self, x_BF: Tensor) -> Tensor:
        """(B, F) -> (B, F + M)"""
        x_FB = x_BF.T.contiguous()
        x_FB = x_FB + (x_FB - x_FB)  # infinite -> NaN, which stays NaN to the end
        placed_FB = self._placed(torch.maximum(x_FB, self.starts_FK[:, :1]))
        unknown_MB = placed_FB[self.missing_M].isnan().to(x_BF.dtype)
        return torch.cat((placed_FB.nan_to_num_(0.0), unknown_MB)).T.contiguous()

    def _placed(self, x_FB: Tensor) -> Tensor:
        """Place of each number within its segment, found by a binary search without branches.

        torch.searchsorted has branches, which processors predict badly here: it takes 4 times as long.
        """
        starts, places, slopes = (table_FK.view(-1) for table_FK in (self.starts_FK, self.places_FK, self.slopes_FK))
        x, knot = x_FB.view(-1), torch.empty_like(x_FB).view(-1)
        first_F1 = torch.arange(0, len(starts), KNOTS, dtype=torch.int32, device=x.device).unsqueeze(1)
        segment = first_F1.expand_as(x_FB).contiguous().view(-1)
        above = torch.empty_like(segment)
        step = KNOTS // 2
        while step:
            torch.index_select(starts[step:], 0, segment, out=knot)
            segment.add_(torch.ge(x, knot, out=above), alpha=step)
            step //= 2
        start, place, slope = (table.index_select(0, segment) for table in (starts, places, slopes))
        return torch.addcmul(place, x - start, slope).view_as(x_FB)


def missing_features(sample: Array) -> Array:
    """Columns of the features that are unknown in some rows of the sample, int64."""
    return np.flatnonzero(~np.isfinite(sample).all(axis=0))
