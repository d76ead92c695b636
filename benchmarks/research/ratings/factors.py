"""Bayesian matrix factorisation by Gibbs sampling, with features of users and items as prior means.

With `ordered` the values are ordered classes of a latent normal variable (ordered probit).

Shapes: n ratings, R users or items, K factors, F features, S kept samples, C classes; B, L as in ratings.py.
Reference: Salakhutdinov and Mnih 2008, Bayesian Probabilistic Matrix Factorization using MCMC; Simm et al. 2017, Macau
(features); Albert and Chib 1993 (ordered probit); Rendle et al. 2019 measure what features and ordered probit gain.
"""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.research.ratings.ratings import Block, Ratings, blocks

PRIOR_L2 = 10.0  # on the weights of features


@dataclass(frozen=True)
class Settings:
    """`ordered`: values are classes; otherwise numbers with normal noise."""

    num_factors: int = 16
    num_burn_in: int = 20
    num_samples: int = 40
    ordered: bool = False


@dataclass(frozen=True)
class Model:
    """Samples of the posterior, float32.

    A value is above `values_C[c]` if a normal variable is above `cuts_SC[s, c]`; its mean is the dot product of
    `users_SRK` and `items_SRK`, its precision the square of `scale_S`.
    """

    users_SRK: torch.Tensor
    items_SRK: torch.Tensor
    scale_S: torch.Tensor
    cuts_SC: torch.Tensor  # one fewer than values
    values_C: np.ndarray


@dataclass
class Side:
    """The users or the items, during sampling."""

    blocks: list[Block]
    f_RF: torch.Tensor
    factor_FF: torch.Tensor  # Cholesky of F^T F + l2
    x_RK: torch.Tensor


def fit(ratings: Ratings, users_RF: np.ndarray, items_RF: np.ndarray, settings: Settings, seed: int) -> Model:
    """Sample the posterior. `users_RF` and `items_RF`: any number of features, also none, of about unit variance.

    The same seed gives the same model. A user or item without ratings is drawn from the prior of its features.
    """
    rng = torch.Generator().manual_seed(seed)
    user, item = torch.from_numpy(ratings.user_idx), torch.from_numpy(ratings.item_idx)
    users = _side(ratings.user_idx, users_RF, settings.num_factors, rng)
    items = _side(ratings.item_idx, items_RF, settings.num_factors, rng)
    values, classes = np.unique(ratings.value, return_inverse=True)
    class_n, mean = torch.from_numpy(classes), float(ratings.value.mean())
    y, scale, edge = torch.from_numpy(ratings.value - mean).float(), 1.0, torch.tensor([torch.inf])
    shares = torch.from_numpy(np.cumsum(np.bincount(classes))[:-1] / len(classes)).float()
    between = torch.from_numpy((values[1:] + values[:-1]) / 2 - mean).float()
    cuts, kept = torch.special.ndtri(shares) if settings.ordered else between, []
    for step in range(settings.num_burn_in + settings.num_samples):
        f = torch.einsum("nk,nk->n", users.x_RK[user], items.x_RK[item])
        if settings.ordered:
            cuts = _cuts(f, cuts, shares)
            y = _latent(f, torch.cat([-edge, cuts, edge]), class_n, rng)
        elif step:  # with so many ratings the noise is known well: it is not sampled
            scale = float((y - f).square().mean()) ** -0.5
        _draw(users, items.x_RK, item, y, scale**2, rng)
        _draw(items, users.x_RK, user, y, scale**2, rng)
        if step >= settings.num_burn_in:
            kept.append((users.x_RK.clone(), items.x_RK.clone(), torch.tensor(scale), cuts))
    return Model(*(torch.stack(part) for part in zip(*kept, strict=True)), values)


def predict(model: Model, user_idx: np.ndarray, item_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected values (n,), and probabilities of more than each value but the last (n, C - 1): the samples' means."""
    user, item = torch.from_numpy(user_idx), torch.from_numpy(item_idx)
    probabilities = torch.zeros(len(user), len(model.values_C) - 1)
    for users, items, scale, cuts in zip(model.users_SRK, model.items_SRK, model.scale_S, model.cuts_SC, strict=True):
        f = torch.einsum("nk,nk->n", users[user], items[item])
        probabilities += torch.special.ndtr((f[:, None] - cuts) * scale)
    above = (probabilities / len(model.users_SRK)).numpy()
    return (model.values_C[0] + above @ np.diff(model.values_C)).astype(np.float32), above


def _side(row_idx: np.ndarray, features_RF: np.ndarray, num_factors: int, rng: torch.Generator) -> Side:
    f = torch.from_numpy(np.concatenate([np.ones((len(features_RF), 1)), features_RF], axis=1)).float()
    gram = f.T @ f + PRIOR_L2 * torch.eye(f.shape[1])
    gram[0, 0] -= PRIOR_L2 - 1e-3  # the mean itself is free
    x = 0.3 * torch.randn(len(f), num_factors, generator=rng)
    return Side(list(blocks(row_idx, len(f))), f, torch.linalg.cholesky(gram), x)


def _draw(
    side: Side, other_RK: torch.Tensor, other_idx: torch.Tensor, y: torch.Tensor, precision: float, rng: torch.Generator
) -> None:
    """Draw the factors of every row, given those of the other side and the values y (n,) with this precision."""
    mean, prior = _prior(side, rng)
    pull = mean @ prior
    for block in side.blocks:
        row, at = torch.from_numpy(block.row_B), torch.from_numpy(block.at_BL)
        other = other_RK[other_idx[at]] * torch.from_numpy(block.here_BL)[..., None]
        grams = torch.baddbmm(prior, other.transpose(1, 2), other, alpha=precision)
        right = pull[row] + precision * torch.einsum("blk,bl->bk", other, y[at])
        lower = torch.linalg.cholesky(grams)
        noise = torch.randn(*right.shape, 1, generator=rng)
        around = torch.linalg.solve_triangular(lower.transpose(1, 2), noise, upper=True)
        side.x_RK[row] = (torch.cholesky_solve(right[..., None], lower) + around)[..., 0]


def _prior(side: Side, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the rows' common precision (K, K) from a Wishart distribution, and their prior means (R, K)."""
    num_rows, k = side.x_RK.shape
    weights = torch.cholesky_solve(side.f_RF.T @ side.x_RK, side.factor_FF)
    rest = side.x_RK - side.f_RF @ weights
    root = torch.linalg.cholesky(torch.linalg.inv(rest.T @ rest + k * torch.eye(k)))
    normal = root @ torch.randn(k, num_rows + k, generator=rng)
    precision = normal @ normal.T
    noise = torch.randn(side.f_RF.shape[1], k, generator=rng)
    spread = torch.linalg.solve_triangular(side.factor_FF.T, noise, upper=True)
    across = torch.linalg.solve_triangular(torch.linalg.cholesky(precision).T, spread.T, upper=True).T
    return side.f_RF @ (weights + across), precision


def _latent(f: torch.Tensor, bounds: torch.Tensor, class_n: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Draw normal values with means f (n,), each between the bounds (C + 1,) of its class."""
    low, high = (torch.special.ndtr((bounds[class_n + up] - f).double()) for up in (0, 1))
    share = low + (high - low) * torch.rand(len(f), generator=rng, dtype=torch.float64)
    return f + torch.special.ndtri(share.clamp(1e-12, 1 - 1e-12)).float()


def _cuts(f: torch.Tensor, cuts: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Move the cuts (C - 1,) by two Newton steps, so that the classes are as frequent as in the ratings (`shares`)."""
    for _ in range(2):
        gap = cuts[:, None] - f
        density = torch.exp(-0.5 * gap.square()).mean(dim=1) / (2 * torch.pi) ** 0.5
        cuts = cuts + (shares - torch.special.ndtr(gap).mean(dim=1)) / density
    return cuts
