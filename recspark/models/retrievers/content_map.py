"""Content mapped onto latent factors of behaviour by ridge regression: recommends items that no user has yet.

An item without any event is scored in two ways. By the factors that its content predicts; and by nearness: the
similarity of its content to the contents of the history, from a ridge regression of each user's own items on content,
since factors know little about users with few events. With a large ridge nearness is the cosine; with a small one, what
most items have in common counts less.

The weights of the encoders' parts, both ridges, and the share of nearness are chosen by validation: some known items
are hidden, and the values that rank them best are taken. All in closed form, without torch.

Memory: the embeddings of all items, the square of their numbers together, validation users x hidden items.
Shapes: U users, V validation users, I items, F factors, H hidden items, C content numbers of all parts.
Reference: Gantner et al. 2010, Learning Attribute-to-Feature Mappings for Cold-Start Recommendations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve

from recspark.arrays import Array
from recspark.config.retrievers import ContentMap, MatrixFactorization
from recspark.errors import DataError
from recspark.histories import Histories, keep
from recspark.metrics import ndcg_at_k
from recspark.models.retrievers import affinity, matrix_factorization
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.content import unit

K = 10  # places of the NDCG that decides
ITEM_POWER = 0.0  # popular items have long factors, so content also predicts how popular an item will be
HIDDEN_SHARE = 0.1  # of the items: those that the choice is made on
MAX_VALIDATION_USERS = 3000


@dataclass(frozen=True)
class Grid:
    """The values to choose from: `ridges` of the map, `near_ridges` of nearness, `weights` of a part, and `nearness`,
    its share of a score."""

    ridges: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    near_ridges: tuple[float, ...] = (3.0, 30.0, 300.0, 3000.0, 100_000.0)
    weights: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    nearness: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Point:
    """One value of each: `weights` has one for each part."""

    weights: tuple[float, ...]
    ridge: float
    near_ridge: float
    nearness: float


@dataclass(frozen=True)
class Choice(Point):
    """The point that was chosen. `scales`: factors of the mapped and the near score which give `nearness` its share of
    the spread of the scores. `ndcg`: at 10, of the validation users on the hidden items."""

    scales: tuple[float, float]
    ndcg: float


@dataclass(frozen=True)
class Model:
    """float32 (I, F + C). `history_ID`: an item's factors and contents as part of a history, zeros if unknown.
    `vectors_ID`: as a candidate, the factors that its content predicts and its contents, zeros without content."""

    history_ID: Array
    vectors_ID: Array
    choice: Choice


def fit(
    histories: Histories, catalogue: Catalogue, settings: ContentMap, seed: int = 0, grid: Grid | None = None
) -> Model:
    """Learn the map from the catalogue's content.

    Raises: DataError if no item with a positive event has content.
    """
    num_items, parts = catalogue.num_items, [unit(part) for part in catalogue.parts()]
    h = histories
    positive_UI = affinity.positives(h.offsets, h.item_idx, h.weight, num_items)
    count_I = np.asarray(positive_UI.sum(axis=0)).ravel()
    if not any(part[count_I > 0].any() for part in parts):
        raise DataError("content_map: no item with events has content; give items texts or facts")
    choice = _choose(histories, positive_UI, parts, settings, seed, grid or Grid())
    items_IF = _factors(histories, num_items, settings, seed)
    known_IC = np.concatenate(parts, axis=1)
    gram_CC, cross_CF = _grams(known_IC[count_I > 0], items_IF[count_I > 0])
    scale_C = _scale(parts, choice.weights)
    map_CF, near_CC = _map(gram_CC, cross_CF, scale_C, choice.ridge), _near(gram_CC, scale_C, choice.near_ridge)
    mapped_scale, near_scale = choice.scales
    vectors_ID = np.concatenate([known_IC @ map_CF * mapped_scale, known_IC @ near_CC * near_scale], axis=1)
    history_ID = np.concatenate([items_IF, known_IC], axis=1)
    return Model(history_ID.astype(np.float32), vectors_ID.astype(np.float32), choice)


def _factors(histories: Histories, num_items: int, settings: ContentMap, seed: int) -> Array:
    of_factors = MatrixFactorization(num_factors=settings.num_factors, item_power=ITEM_POWER)
    return matrix_factorization.fit(histories, Catalogue(num_items, 1), of_factors, seed).items_IF


def _grams(content_IC: Array, items_IF: Array) -> tuple[Array, Array]:
    """(C, C) and (C, F) products of the contents with themselves and with the factors, float64."""
    content_IC = content_IC.astype(np.float64)
    return content_IC.T @ content_IC, content_IC.T @ items_IF


def _scale(parts: Sequence[Array], weights: Sequence[float]) -> Array:
    """(C,) the weight of each number's part."""
    return np.repeat(weights, [part.shape[1] for part in parts])


def _map(gram_CC: Array, cross_CF: Array, scale_C: Array, ridge: float) -> Array:
    """(C, F): contents times this predict the factors."""
    return _inverse(gram_CC, scale_C, ridge, cross_CF * scale_C[:, None])


def _near(gram_CC: Array, scale_C: Array, ridge: float) -> Array:
    """(C, C): contents of a history times this times the contents of an item are its nearness."""
    return _inverse(gram_CC, scale_C, ridge, np.diag(scale_C))


def _inverse(gram_CC: Array, scale_C: Array, ridge: float, right: Array) -> Array:
    """S (S G S + ridge)^-1 right, S = diag(scale)."""
    scaled_CC = gram_CC * scale_C[:, None] * scale_C + ridge * np.eye(len(scale_C))
    return np.asarray(cho_solve(cho_factor(scaled_CC), right) * scale_C[:, None])


def _choose(
    histories: Histories,
    positive_UI: sp.csr_matrix,
    parts: Sequence[Array],
    settings: ContentMap,
    seed: int,
    grid: Grid,
) -> Choice:
    """Coordinate search: each ridge, nearness and each part's weight while the others stay, twice."""
    rng = np.random.default_rng((seed, 1))
    hidden_I = rng.random(positive_UI.shape[1]) < HIDDEN_SHARE
    hidden_I &= np.logical_or.reduce([part.any(axis=1) for part in parts])
    able = np.flatnonzero(np.diff(positive_UI[:, hidden_I].indptr))
    users = np.sort(rng.choice(able, min(MAX_VALIDATION_USERS, len(able)), replace=False))
    middle = (values[len(values) // 2] for values in (grid.ridges, grid.near_ridges, grid.nearness))
    point = Point((1.0,) * len(parts), *middle)
    if not len(users):
        return Choice(point.weights, point.ridge, point.near_ridge, 0.0, scales=(1.0, 0.0), ndcg=float("nan"))
    items_IF = _factors(keep(histories, ~hidden_I[histories.item_idx]), len(hidden_I), settings, seed)
    validated = _validation(positive_UI, parts, items_IF, hidden_I, users)

    def best(points: Iterable[Point]) -> Point:
        return max(points, key=lambda one: validated(one).ndcg)

    for _ in range(2):
        point = best([replace(point, near_ridge=value) for value in grid.near_ridges])
        point = best([replace(point, ridge=value) for value in grid.ridges])
        point = best([replace(point, nearness=value) for value in grid.nearness])
        for at in range(len(parts) if len(parts) > 1 else 0):
            tried = [(*point.weights[:at], weight, *point.weights[at + 1 :]) for weight in grid.weights]
            point = best([replace(point, weights=weights) for weights in tried if any(weights)])
    return validated(point)


def _validation(
    positive_UI: sp.csr_matrix, parts: Sequence[Array], items_IF: Array, hidden_I: Array, users: Array
) -> Callable[[Point], Choice]:
    """How well a point ranks the hidden items for the validation users; `items_IF`: fitted without the hidden items."""
    known_I = (np.asarray(positive_UI.sum(axis=0)).ravel() > 0) & ~hidden_I
    content_IC = np.concatenate(parts, axis=1)
    gram_CC, cross_CF = _grams(content_IC[known_I], items_IF[known_I])
    history_VI = positive_UI[users] @ sp.diags((~hidden_I).astype(np.float32))
    factors_VF, contents_VC = np.asarray(history_VI @ items_IF), np.asarray(history_VI @ content_IC)
    of_hidden_CH, true_VH = content_IC[hidden_I].T, positive_UI[:, hidden_I][users].toarray() > 0

    @lru_cache(maxsize=1)  # the last one only: a matrix each
    def mapped(weights: tuple[float, ...], ridge: float) -> Array:
        map_CF = _map(gram_CC, cross_CF, _scale(parts, weights), ridge)
        return np.asarray(factors_VF @ (map_CF.T.astype(np.float32) @ of_hidden_CH))

    @lru_cache(maxsize=1)
    def near(weights: tuple[float, ...], ridge: float) -> Array:
        near_CC = _near(gram_CC, _scale(parts, weights), ridge).astype(np.float32)
        return np.asarray(contents_VC @ (near_CC @ of_hidden_CH))

    @cache
    def validated(point: Point) -> Choice:
        mapped_VH, near_VH = mapped(point.weights, point.ridge), near(point.weights, point.near_ridge)
        scales = ((1 - point.nearness) / _spread(mapped_VH), point.nearness / _spread(near_VH))
        found = ndcg(mapped_VH * scales[0] + near_VH * scales[1], true_VH)
        return Choice(point.weights, point.ridge, point.near_ridge, point.nearness, scales, found)

    return validated


def _spread(scores_UH: Array) -> float:
    """Standard deviation of the scores within a user, over all users; 1 if it is 0."""
    return float(np.sqrt(scores_UH.var(axis=1).mean())) or 1.0


def ndcg(scores_UH: Array, true_UH: Array) -> float:
    """Mean NDCG@10 of the users, each with at least one true item; of equal scores the first item is ranked higher."""
    return float(ndcg_of_users(scores_UH, true_UH).mean())


def ndcg_of_users(scores_UH: Array, true_UH: Array) -> Array:
    """NDCG@10 (U,) of the true items among all H."""
    best_UK = np.argsort(-scores_UH, axis=1, kind="stable")[:, :K]
    hits = np.take_along_axis(true_UH, best_UK, axis=1).astype(np.float64)
    offsets = hits.shape[1] * np.arange(len(hits) + 1)
    return ndcg_at_k(hits.ravel(), offsets, true_UH.sum(axis=1), K)


def queries(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """The sum of the history's factors and contents, float32 (U, F + C); zeros without history. The query's scenario
    and time change nothing."""
    h = histories
    positive_UI = affinity.positives(h.offsets, h.item_idx, h.weight, len(model.history_ID))
    return np.asarray(positive_UI @ model.history_ID, np.float32)


def vectors(model: Model) -> Array:
    """float32 (I, F + C): a score is the product of a query and an item's vector; zeros without content."""
    return model.vectors_ID


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """The mapped score and nearness, scaled and added, float32 (U, I); 0 (not scored) without content or history."""
    return np.asarray(queries(model, histories, scenario_idx, time) @ vectors(model).T)


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    return asdict(model.choice), {"history_ID": model.history_ID, "vectors_ID": model.vectors_ID}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`: the same scores to the last bit."""
    pairs = {name: tuple(manifest[name]) for name in ("weights", "scales")}
    return Model(**arrays, choice=Choice(**{**manifest, **pairs}))
