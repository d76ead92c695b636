"""From what an item says, shows and is related to, to who will take it: several content parts, mapped by ridge
regression onto latent factors of behaviour (Gantner et al. 2010, Learning Attribute-to-Feature Mappings for Cold-Start
Recommendations). An item without any event is found by where its content puts it among the factors, and by its
nearness to the contents of the history, which is a ridge regression of each user's own items on content: factors know
little of few events. With a large ridge nearness is the cosine; with a small one what most items share counts less.

How much each part counts, both ridges, and how much is nearness are chosen on known items that are hidden for it.
Closed forms; no torch. Memory: the parts of all items, the square of their numbers together, judges x hidden items.
Shapes: U users, J judges, I items, F factors, H hidden items, C content numbers of all parts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve

from recspark.arrays import Array
from recspark.errors import DataError
from recspark.histories import Histories
from recspark.metrics import ndcg_at_k
from recspark.models.retrievers import affinity, matrix_factorization
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.content import unit

K = 10  # places that a choice is judged by


@dataclass(frozen=True)
class Settings:
    """`hidden`: share of the items that choices are made on; `ridges` (of the map), `near_ridges`, `weights` and
    `nearness` (its share of a score) are what stands to choice, `judges` bounds the users who are asked."""

    num_factors: int = 64
    item_power: float = 0.0  # 0: popular items have long factors, so content also says how popular an item will be
    hidden: float = 0.1
    ridges: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    near_ridges: tuple[float, ...] = (3.0, 30.0, 300.0, 3000.0, 100_000.0)
    weights: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    nearness: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    judges: int = 3000


@dataclass(frozen=True)
class Choice:
    """`weights` of the parts, ridges, and `nearness`: its share of a score, by the spread among the hidden items;
    `scales` of (mapped, near) bring that about. `ndcg`: at 10, of the judges on the hidden items."""

    weights: tuple[float, ...]
    ridge: float
    near_ridge: float
    nearness: float
    scales: tuple[float, float]
    ndcg: float


@dataclass(frozen=True)
class Model:
    """float32 (I, F + C), zeros where nothing is known. `history_ID`: what an item says of who had it, its factors and
    its contents; `vectors_ID`: what a candidate answers, the factors that content predicts and its contents."""

    history_ID: Array
    vectors_ID: Array
    choice: Choice


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Learn the map from the catalogue's content. Raises DataError where no item that anybody had has any."""
    num_items, parts = catalogue.num_items, [unit(part) for part in catalogue.parts()]
    h = histories
    taken_UI = affinity.positives(h.offsets, h.item_idx, h.weight, num_items)
    count_I = np.asarray(taken_UI.sum(axis=0)).ravel()
    if not any(part[count_I > 0].any() for part in parts):
        raise DataError("content_map: no item that anybody had has content; give items texts or facts")
    choice = _choose(histories, taken_UI, parts, settings, seed)
    items_IF = _factors(histories, num_items, settings, seed)
    known_IC = np.concatenate(parts, axis=1)
    gram_CC, cross_CF = _grams(known_IC[count_I > 0], items_IF[count_I > 0])
    scale_C = _scale(parts, choice.weights)
    map_CF, near_CC = _map(gram_CC, cross_CF, scale_C, choice.ridge), _near(gram_CC, scale_C, choice.near_ridge)
    mapped_scale, near_scale = choice.scales
    vectors_ID = np.concatenate([known_IC @ map_CF * mapped_scale, known_IC @ near_CC * near_scale], axis=1)
    history_ID = np.concatenate([items_IF, known_IC], axis=1)
    return Model(history_ID.astype(np.float32), vectors_ID.astype(np.float32), choice)


def _factors(histories: Histories, num_items: int, settings: Settings, seed: int) -> Array:
    asked = matrix_factorization.Settings(settings.num_factors, settings.item_power)
    return matrix_factorization.fit(histories, Catalogue(num_items, 1), asked, seed).items_IF


def _grams(content_IC: Array, items_IF: Array) -> tuple[Array, Array]:
    """(C, C) and (C, F) products of the contents with themselves and with the factors, float64."""
    content_IC = content_IC.astype(np.float64)
    return content_IC.T @ content_IC, content_IC.T @ items_IF


def _scale(parts: Sequence[Array], weights: Sequence[float]) -> Array:
    """(C,) the weight of each number's part."""
    return np.repeat(weights, [part.shape[1] for part in parts])


def _map(gram_CC: Array, cross_CF: Array, scale_C: Array, ridge: float) -> Array:
    """(C, F): what takes contents to the factors."""
    return _inverse(gram_CC, scale_C, ridge, cross_CF * scale_C[:, None])


def _near(gram_CC: Array, scale_C: Array, ridge: float) -> Array:
    """(C, C): contents of a history times this times those of an item is how near they are."""
    return _inverse(gram_CC, scale_C, ridge, np.diag(scale_C))


def _inverse(gram_CC: Array, scale_C: Array, ridge: float, right: Array) -> Array:
    """S (S G S + ridge)^-1 right, S = diag(scale)."""
    scaled_CC = gram_CC * scale_C[:, None] * scale_C + ridge * np.eye(len(scale_C))
    return cho_solve(cho_factor(scaled_CC), right) * scale_C[:, None]


def _choose(
    histories: Histories, taken_UI: sp.csr_matrix, parts: Sequence[Array], settings: Settings, seed: int
) -> Choice:
    """By turns: each ridge, nearness and each part's weight while the others stay, twice."""
    rng = np.random.default_rng((seed, 1))
    hidden_I = rng.random(taken_UI.shape[1]) < settings.hidden
    hidden_I &= np.logical_or.reduce([part.any(axis=1) for part in parts])
    true_UH = taken_UI[:, hidden_I]
    able = np.flatnonzero(np.diff(true_UH.indptr))
    judges = np.sort(rng.choice(able, min(settings.judges, len(able)), replace=False))
    middle = [values[len(values) // 2] for values in (settings.ridges, settings.near_ridges, settings.nearness)]
    chosen = {"weights": (1.0,) * len(parts), **dict(zip(("ridge", "near_ridge", "nearness"), middle, strict=True))}
    if not len(judges):
        return Choice(**{**chosen, "nearness": 0.0}, scales=(1.0, 0.0), ndcg=float("nan"))
    items_IF = _factors(without(histories, hidden_I), taken_UI.shape[1], settings, seed)
    known_I = (np.asarray(taken_UI.sum(axis=0)).ravel() > 0) & ~hidden_I
    content_IC = np.concatenate(parts, axis=1)
    gram_CC, cross_CF = _grams(content_IC[known_I], items_IF[known_I])
    history_JI = taken_UI[judges] @ sp.diags((~hidden_I).astype(np.float32))
    factors_JF, contents_JC = np.asarray(history_JI @ items_IF), np.asarray(history_JI @ content_IC)
    of_hidden_CH, true_JH = content_IC[hidden_I].T, true_UH[judges].toarray() > 0

    @lru_cache(maxsize=1)  # a matrix each
    def mapped(weights: tuple[float, ...], ridge: float) -> Array:
        map_CF = _map(gram_CC, cross_CF, _scale(parts, weights), ridge)
        return factors_JF @ (map_CF.T.astype(np.float32) @ of_hidden_CH)

    @lru_cache(maxsize=1)
    def near(weights: tuple[float, ...], ridge: float) -> Array:
        near_CC = _near(gram_CC, _scale(parts, weights), ridge).astype(np.float32)
        return contents_JC @ (near_CC @ of_hidden_CH)

    @cache
    def judged(weights: tuple[float, ...], ridge: float, near_ridge: float, nearness: float) -> Choice:
        mapped_JH, near_JH = mapped(weights, ridge), near(weights, near_ridge)
        scales = ((1 - nearness) / _spread(mapped_JH), nearness / _spread(near_JH))
        found = ndcg(mapped_JH * scales[0] + near_JH * scales[1], true_JH)
        return Choice(weights, ridge, near_ridge, nearness, scales, found)

    def best(name: str, values: Iterable[Any]) -> None:
        found = max((judged(**{**chosen, name: value}) for value in values), key=lambda one: one.ndcg)
        chosen[name] = getattr(found, name)

    for _ in range(2):
        best("near_ridge", settings.near_ridges)
        best("ridge", settings.ridges)
        best("nearness", settings.nearness)
        for at in range(len(parts) if len(parts) > 1 else 0):
            weights = chosen["weights"]
            tried = [(*weights[:at], weight, *weights[at + 1 :]) for weight in settings.weights]
            best("weights", filter(any, tried))
    return judged(**chosen)


def _spread(scores_UH: Array) -> float:
    """How far scores of one user lie apart, over all users; 1 where they do not."""
    return float(np.sqrt(scores_UH.var(axis=1).mean())) or 1.0


def without(histories: Histories, hidden_I: Array) -> Histories:
    """The histories without the events of some items."""
    h = histories
    kept = ~hidden_I[h.item_idx]
    columns = (getattr(h, name)[kept] for name in ("item_idx", "scenario_idx", "time", "weight", "value", "price"))
    return Histories(np.concatenate(([0], np.cumsum(kept)))[h.offsets], *columns)


def ndcg(scores_UH: Array, true_UH: Array) -> float:
    """Mean NDCG@10 of the users, who have a true item each; ties by place."""
    return float(ndcg_of_users(scores_UH, true_UH).mean())


def ndcg_of_users(scores_UH: Array, true_UH: Array) -> Array:
    """NDCG@10 (U,) of the true items among all H."""
    best_UK = np.argsort(-scores_UH, axis=1, kind="stable")[:, :K]
    hits = np.take_along_axis(true_UH, best_UK, axis=1).astype(np.float64)
    offsets = hits.shape[1] * np.arange(len(hits) + 1)
    return ndcg_at_k(hits.ravel(), offsets, true_UH.sum(axis=1), K)


def queries(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, F + C): the history's factors and contents; zeros without history. Scenario and moment change
    nothing."""
    h = histories
    taken_UI = affinity.positives(h.offsets, h.item_idx, h.weight, len(model.history_ID))
    return np.asarray(taken_UI @ model.history_ID, np.float32)


def vectors(model: Model) -> Array:
    """float32 (I, F + C): a score is the product of a query and an item's vector; zeros without content."""
    return model.vectors_ID


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, I): how much the user will like what has this content; 0, which says nothing, without content or
    history."""
    return queries(model, histories, scenario_idx, time) @ vectors(model).T


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) for the checkpoint."""
    return asdict(model.choice), {"history_ID": model.history_ID, "vectors_ID": model.vectors_ID}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`: the same scores to the last bit."""
    pairs = {name: tuple(manifest[name]) for name in ("weights", "scales")}
    return Model(**arrays, choice=Choice(**{**manifest, **pairs}))
