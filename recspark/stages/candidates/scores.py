"""Scores of all items by every retriever of a bundle, for a block of users.

Memory: a dense float32 matrix of users x items for each retriever whose scores depend on the user alone; the scores of
BY_LIST, which depend on the scenario too, are computed a tile at a time.
Shapes: U users of a block, L lists (a user in a scenario), n candidate rows, I items, D numbers of a vector.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.retrievers import RETRIEVERS
from recspark.histories import Histories, take
from recspark.models.retrievers import affinity, content, linear
from recspark.models.retrievers.pool import Pool, explaining_item
from recspark.models.topk import Product
from recspark.stages.retriever.bundle import Bundle

BY_LIST = "sequence"  # its scores depend on the list (user and scenario), those of the others on the user alone


@dataclass(frozen=True)
class Scores:
    """Scores of a block of users, and the items that they interacted with.

    `user_UI`: retriever -> float32 (U, I) scores, 0: not scored. `list_LD`: retriever -> float32 (L, D), the query
    vector of each list, NaN if the retriever does not score it; a score is its product with an item vector.
    `recent_UI`: positive items with exponential decay. `seen_UI`: items with any event. `last_seen`: time of the last
    event for each entry of `seen_UI`, in days relative to the bundle's date, so never above 0.
    """

    recent_UI: sp.csr_matrix
    seen_UI: sp.csr_matrix
    last_seen: Array
    user_UI: dict[str, Array]
    list_LD: dict[str, Array]


def score(histories: Histories, bundle: Bundle, user_pos: Array, scenario_idx: Array) -> Scores:
    """Score all items for the users of `histories` and their lists; `user_pos`, `scenario_idx` (L,): of each list."""
    h, num_items, day = histories, len(bundle.known), float(bundle.as_of_day)
    seen_UI = affinity.seen(h.offsets, h.item_idx, num_items)
    recent_UI = affinity.recent(h.offsets, h.item_idx, h.weight, h.time, num_items, day, bundle.half_life_days)
    user_UI = {}
    if bundle.has_content.any():
        user_UI["content"] = content.scores(content.profiles(recent_UI, bundle.content), bundle.content)
    if bundle.linear is not None:
        user_UI["linear"] = linear.scores(recent_UI, bundle.linear)
    list_LD = {}
    num_users = len(h.offsets) - 1
    for name, trained in bundle.trained.items():
        if name == BY_LIST:
            days = np.full(len(user_pos), day)
            query_LD = trained.module.queries(trained.model, take(h, user_pos), scenario_idx, days).astype(np.float32)
            if trained.target is not None:
                query_LD[scenario_idx != trained.target] = np.nan
            list_LD[name] = query_LD
        else:
            no_scenario, days = np.zeros(num_users, dtype=np.int64), np.full(num_users, day)
            user_UI[name] = trained.module.scores(trained.model, h, no_scenario, days)
    last_seen = affinity.last_times(h.offsets, h.item_idx, h.time, seen_UI) - day
    return Scores(recent_UI, seen_UI, last_seen, user_UI, list_LD)


def scores_of_lists(
    name: str, scores: Scores, bundle: Bundle, lists: Array, user_pos: Array
) -> tuple[Array, Array, Array | Product]:
    """One retriever's scores of all items in the given `lists` (l,); lists with equal scores share a row.

    Returns: user of each row (m,), row of each list (l,), scores (m, I).
    """
    if name in scores.user_UI:
        users, row_of_list = np.unique(user_pos[lists], return_inverse=True)
        return users, row_of_list, scores.user_UI[name][users]
    return (
        user_pos[lists],
        np.arange(len(lists)),
        Product(scores.list_LD[name][lists], _item_vectors(name, bundle).T),
    )


def score_candidates(rows: Pool, user_pos: Array, group_row: Array, scores: Scores, bundle: Bundle) -> Array:
    """Every retriever's score of every candidate, also of those that another retriever found.

    `user_pos`, `group_row` (n,): user and scenario group of each candidate.
    Returns: float32 (n, R); NaN: not scored (a user without positive items, an item without content, a retriever that
    is turned off).
    """
    columns = {"popular": bundle.popular.at(group_row, rows.item_idx)}
    has_positives = np.diff(scores.recent_UI.indptr) > 0
    for name, matrix_UI in scores.user_UI.items():
        if name in ("content", "content_towers", "content_map"):
            is_scored = bundle.has_content[rows.item_idx] & matrix_UI.any(axis=1)[user_pos]
        else:
            is_scored = has_positives[user_pos]
        columns[name] = np.where(is_scored, matrix_UI[user_pos, rows.item_idx], np.nan)
    for name, list_LD in scores.list_LD.items():
        columns[name] = np.einsum("nd,nd->n", list_LD[rows.list_pos], _item_vectors(name, bundle)[rows.item_idx])
    not_scored = np.full(len(user_pos), np.nan)
    return np.asarray(np.stack([columns.get(name, not_scored) for name in RETRIEVERS], axis=1), dtype=np.float32)


def memories(rows: Pool, user_pos: Array, scores: Scores, bundle: Bundle) -> Array:
    """`linear.memories` of every candidate, float32 (n, 3); NaN if `linear` is turned off."""
    if bundle.linear is None:
        return np.full((len(user_pos), 3), np.nan, dtype=np.float32)
    return linear.memories(scores.recent_UI, bundle.linear, user_pos, rows.item_idx)


def explain(rows: Pool, user_pos: Array, scores: Scores, bundle: Bundle) -> Array:
    """The item of the user's history that contributes most to the score of each candidate by its best retriever.

    Returns: int32 (n,), -1 for none.
    """
    found = np.full(len(user_pos), -1, dtype=np.int32)
    for name in (*scores.user_UI, *scores.list_LD):
        at = np.flatnonzero(rows.best == RETRIEVERS.index(name))
        contribution = _contribution(name, bundle)
        found[at] = explaining_item(scores.recent_UI, user_pos[at], rows.item_idx[at], contribution, bundle.tie_rank)
    return found


def _contribution(name: str, bundle: Bundle) -> Callable[[Array, Array], Array]:
    """A function (history items (h,), items (m,)) -> (h, m): how much one adds to the score of the other.

    For vectors, their product. The item's bias in BY_LIST is left out, since it does not come from the history.
    """
    if name == "linear":
        weights_II = bundle.linear
        assert weights_II is not None
        return lambda history, items: linear.between(weights_II, history, items)
    if name == "co_occurrence":
        similarity_II = bundle.trained[name].module.matrix(bundle.trained[name].model)
        return lambda history, items: similarity_II[history][:, items].toarray()
    vectors_ID = bundle.content if name == "content" else _item_vectors(name, bundle)
    if name == BY_LIST:
        vectors_ID = vectors_ID[:, :-1]
    return lambda history, items: vectors_ID[history] @ vectors_ID[items].T


def _item_vectors(name: str, bundle: Bundle) -> Array:
    """The item vectors of a retriever whose score is a product with them."""
    vectors_ID = bundle.trained[name].vectors_ID
    assert vectors_ID is not None
    return vectors_ID
