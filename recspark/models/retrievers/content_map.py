"""From what an item says, shows and is related to, to who will take it: several content parts, mapped by ridge
regression onto latent factors of behaviour (Gantner et al. 2010, Learning Attribute-to-Feature Mappings for Cold-Start
Recommendations). An item without any event is found by where its content puts it among the factors.

How much each part counts, and the ridge, are chosen on known items that are hidden for the purpose. Closed forms; no
torch. Memory: the parts of all items, and the square of their numbers together. Shapes: U users, I items, F factors, H
hidden items, C content numbers of all parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve

from recspark.errors import DataError
from recspark.features import Histories
from recspark.metrics import ndcg_at_k
from recspark.models.retrievers import affinity, matrix_factorization
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.content import unit

K = 10  # places that a choice is judged by


@dataclass(frozen=True)
class Settings:
    """`hidden`: share of the items that choices are made on; `ridges` and `weights` are what stands to choice, `judges`
    bounds the users who are asked."""

    num_factors: int = 64
    item_power: float = 0.0  # 0: popular items have long factors, so content also says how popular an item will be
    hidden: float = 0.1
    ridges: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    weights: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    judges: int = 5000


@dataclass(frozen=True)
class Model:
    """`items_IF`: factors of behaviour, zeros for items without an event; `content_IF`: those that content predicts,
    zeros without content. `weights`: of the parts; `ridge`; `held_out_ndcg`: of the choice, on the hidden items."""

    items_IF: np.ndarray
    content_IF: np.ndarray
    weights: tuple[float, ...]
    ridge: float
    held_out_ndcg: float


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Learn the map from the catalogue's content. Raises DataError where no item that anybody had has any."""
    num_items, parts = catalogue.num_items, [unit(part) for part in catalogue.parts()]
    h = histories
    taken_UI = affinity.positives(h.offsets, h.item_idx, h.weight, num_items)
    count_I = np.asarray(taken_UI.sum(axis=0)).ravel()
    if not any(part[count_I > 0].any() for part in parts):
        raise DataError("content_map: no item that anybody had has content; give items texts or facts")
    weights, ridge, judged = _choose(histories, taken_UI, parts, settings, seed)
    items_IF = _factors(histories, num_items, settings, seed)
    grams = _grams(parts, items_IF, count_I > 0)
    content_IF = _mapped(parts, _solve(*grams, parts, weights, ridge), weights)
    return Model(items_IF, content_IF, weights, ridge, judged)


def _factors(histories: Histories, num_items: int, settings: Settings, seed: int) -> np.ndarray:
    asked = matrix_factorization.Settings(settings.num_factors, settings.item_power)
    return matrix_factorization.fit(histories, Catalogue(num_items, 1), asked, seed).items_IF


def _grams(parts: Sequence[np.ndarray], items_IF: np.ndarray, known_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, C) and (C, F) products of the known items' contents with themselves and with the factors, float64."""
    content_IC = np.concatenate(parts, axis=1)[known_I].astype(np.float64)
    return content_IC.T @ content_IC, content_IC.T @ items_IF[known_I]


def _solve(
    gram_CC: np.ndarray, cross_CF: np.ndarray, parts: Sequence[np.ndarray], weights: Sequence[float], ridge: float
) -> np.ndarray:
    """The map (C, F) for contents that are scaled by their part's weight."""
    scale_C = np.repeat(weights, [part.shape[1] for part in parts])
    scaled_CC = gram_CC * scale_C[:, None] * scale_C + ridge * np.eye(len(scale_C))
    return cho_solve(cho_factor(scaled_CC), cross_CF * scale_C[:, None])


def _mapped(parts: Sequence[np.ndarray], map_CF: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """float32 (n, F) of items' contents (n, C_p)."""
    scaled = np.concatenate([part * weight for part, weight in zip(parts, weights, strict=True)], axis=1)
    return np.asarray(scaled @ map_CF, np.float32)


def _choose(
    histories: Histories, taken_UI: sp.csr_matrix, parts: Sequence[np.ndarray], settings: Settings, seed: int
) -> tuple[tuple[float, ...], float, float]:
    """(weights, ridge, NDCG@10) by turns: the ridge, then each part's weight while the others stay, twice."""
    rng = np.random.default_rng((seed, 1))
    hidden_I = rng.random(taken_UI.shape[1]) < settings.hidden
    hidden_I &= np.logical_or.reduce([part.any(axis=1) for part in parts])
    true_UH = taken_UI[:, hidden_I]
    able = np.flatnonzero(np.diff(true_UH.indptr))
    judges = np.sort(rng.choice(able, min(settings.judges, len(able)), replace=False))
    weights = (1.0,) * len(parts)
    if not len(judges):
        return weights, float(np.median(settings.ridges)), float("nan")
    rest = without(histories, hidden_I)
    items_IF = _factors(rest, taken_UI.shape[1], settings, seed)
    count_I = np.asarray(taken_UI.sum(axis=0)).ravel()
    grams = _grams(parts, items_IF, (count_I > 0) & ~hidden_I)
    of_hidden = [part[hidden_I] for part in parts]
    query_UF = np.asarray(taken_UI[judges] @ items_IF)  # a hidden item's factors are zeros
    true_UH = true_UH[judges].toarray() > 0
    seen: dict[tuple[tuple[float, ...], float], float] = {}

    def judged(weights: tuple[float, ...], ridge: float) -> float:
        if (weights, ridge) not in seen:
            mapped_HF = _mapped(of_hidden, _solve(*grams, parts, weights, ridge), weights)
            seen[weights, ridge] = ndcg(query_UF @ mapped_HF.T, true_UH)
        return seen[weights, ridge]

    ridge = max(settings.ridges, key=lambda r: judged(weights, r))
    for _ in range(2 if len(parts) > 1 else 0):
        for at in range(len(parts)):
            tried = [(*weights[:at], weight, *weights[at + 1 :]) for weight in settings.weights]
            weights = max((found for found in tried if any(found)), key=lambda found: judged(found, ridge))
        ridge = max(settings.ridges, key=lambda r: judged(weights, r))
    return weights, ridge, judged(weights, ridge)


def without(histories: Histories, hidden_I: np.ndarray) -> Histories:
    """The histories without the events of some items."""
    h = histories
    kept = ~hidden_I[h.item_idx]
    columns = (getattr(h, name)[kept] for name in ("item_idx", "scenario_idx", "time", "weight", "value", "price"))
    return Histories(np.concatenate(([0], np.cumsum(kept)))[h.offsets], *columns)


def ndcg(scores_UH: np.ndarray, true_UH: np.ndarray) -> float:
    """Mean NDCG@10 of the users, who have a true item each; ties by place."""
    return float(ndcg_of_users(scores_UH, true_UH).mean())


def ndcg_of_users(scores_UH: np.ndarray, true_UH: np.ndarray) -> np.ndarray:
    """NDCG@10 (U,) of the true items among all H."""
    best_UK = np.argsort(-scores_UH, axis=1, kind="stable")[:, :K]
    hits = np.take_along_axis(true_UH, best_UK, axis=1).astype(np.float64)
    offsets = hits.shape[1] * np.arange(len(hits) + 1)
    return ndcg_at_k(hits.ravel(), offsets, true_UH.sum(axis=1), K)


def queries(model: Model, histories: Histories, scenario_idx: np.ndarray, time: np.ndarray) -> np.ndarray:
    """float32 (U, F): the history among the factors; zeros without history. Scenario and moment change nothing."""
    h = histories
    taken_UI = affinity.positives(h.offsets, h.item_idx, h.weight, len(model.items_IF))
    return np.asarray(taken_UI @ model.items_IF, np.float32)


def vectors(model: Model) -> np.ndarray:
    """float32 (I, F): a score is the product of a query and an item's vector; zeros without content."""
    return model.content_IF


def scores(model: Model, histories: Histories, scenario_idx: np.ndarray, time: np.ndarray) -> np.ndarray:
    """float32 (U, I): how much the user will like what has this content; 0, which says nothing, without content or
    history."""
    return queries(model, histories, scenario_idx, time) @ vectors(model).T


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(manifest, arrays) for the checkpoint."""
    tree = asdict(model)
    arrays = {name: tree.pop(name) for name in ("items_IF", "content_IF")}
    return tree, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Model:
    """The inverse of `to_arrays`: the same scores to the last bit."""
    rest = {name: value for name, value in manifest.items() if name != "weights"}
    return Model(weights=tuple(manifest["weights"]), **rest, **arrays)
