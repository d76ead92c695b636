"""What every retriever of a bundle says of every item, for a block of users.

Memory: a dense float32 matrix of users x items for each retriever that scores a user; of what depends on the scenario
asked about (BY_LIST), scores are made a tile at a time.
Shapes: U users of a block, L lists (a user in a scenario), n candidate rows, I items, D numbers of a vector.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.schema import RETRIEVERS
from recspark.histories import Histories, take
from recspark.models.retrievers import affinity, content, linear
from recspark.models.retrievers.pool import Pool, because
from recspark.models.topk import Product
from recspark.stages.retriever.stage import Bundle

BY_LIST = "sequence"  # what it says of a user depends on the scenario asked about


@dataclass(frozen=True)
class Scores:
    """`user_UI`: retriever -> float32 (U, I), 0 says nothing. `list_LD`: retriever -> float32 (L, D), what is asked of
    its item vectors in each list, nan where it has nothing to say. Users' items: `recent_UI` faded by age, `seen_UI`
    any event, `last_seen` (its entries) days before the date as a negative number."""

    recent_UI: sp.csr_matrix
    seen_UI: sp.csr_matrix
    last_seen: Array
    user_UI: dict[str, Array]
    list_LD: dict[str, Array]


def score(histories: Histories, bundle: Bundle, user_pos: Array, scenario_idx: Array) -> Scores:
    """For users' `histories` and their lists: the user (L,) and the group asked about (L,) of each."""
    h, num_items, day = histories, len(bundle.known), float(bundle.as_of_day)
    seen_UI = affinity.seen(h.offsets, h.item_idx, num_items)
    recent_UI = affinity.recent(h.offsets, h.item_idx, h.weight, h.time, num_items, day, bundle.half_life_days)
    user_UI = {"content": content.scores(content.profiles(recent_UI, bundle.content), bundle.content)}
    if bundle.linear is not None:
        user_UI["linear"] = linear.scores(recent_UI, bundle.linear)
    list_LD = {}
    num_users = len(h.offsets) - 1
    for name, learnt in bundle.learnt.items():
        if name == BY_LIST:
            days = np.full(len(user_pos), day)
            asked = learnt.module.queries(learnt.model, take(h, user_pos), scenario_idx, days).astype(np.float32)
            if learnt.target is not None:
                asked[scenario_idx != learnt.target] = np.nan
            list_LD[name] = asked
        else:
            nowhere, days = np.zeros(num_users, dtype=np.int64), np.full(num_users, day)
            user_UI[name] = learnt.module.scores(learnt.model, h, nowhere, days)
    last_seen = affinity.last_times(h.offsets, h.item_idx, h.time, seen_UI) - day
    return Scores(recent_UI, seen_UI, last_seen, user_UI, list_LD)


def evidence(
    name: str, scores: Scores, bundle: Bundle, lists: Array, user_pos: Array
) -> tuple[Array, Array, Array | Product]:
    """What the retriever says of every item in some of the lists: (users (m,), back (l,), scores (m, I)), where the
    i-th list has row back[i]."""
    if name in scores.user_UI:
        users, back = np.unique(user_pos[lists], return_inverse=True)
        return users, back, scores.user_UI[name][users]
    return (
        user_pos[lists],
        np.arange(len(lists)),
        Product(scores.list_LD[name][lists], bundle.learnt[name].vectors_ID.T),
    )


def of_rows(rows: Pool, user_pos: Array, group_row: Array, scores: Scores, bundle: Bundle) -> Array:
    """Every retriever's score of every row, whoever found it, float32 (n, R); nan where it has nothing to say.
    `user_pos`, `group_row` (n,): the row's user and group."""
    columns = {"popular": bundle.popular[group_row, rows.item_idx]}
    bought = np.diff(scores.recent_UI.indptr) > 0
    described = bundle.content.any(axis=1)
    for name, matrix_UI in scores.user_UI.items():
        found = matrix_UI[user_pos, rows.item_idx]
        if name in ("content", "content_towers", "content_map"):
            speaks = described[rows.item_idx] & matrix_UI.any(axis=1)[user_pos]
        else:
            speaks = bought[user_pos]
        columns[name] = np.where(speaks, found, np.nan)
    for name, list_LD in scores.list_LD.items():
        columns[name] = np.einsum("nd,nd->n", list_LD[rows.list_pos], bundle.learnt[name].vectors_ID[rows.item_idx])
    silent = np.full(len(user_pos), np.nan)
    return np.stack([columns.get(name, silent) for name in RETRIEVERS], axis=1).astype(np.float32)


def explain(rows: Pool, user_pos: Array, scores: Scores, bundle: Bundle) -> Array:
    """The history item that speaks most for each row, as its best retriever sees it, int32 (n,); -1 for none."""
    found = np.full(len(user_pos), -1, dtype=np.int32)
    for name in (*scores.user_UI, *scores.list_LD):
        at = np.flatnonzero(rows.best == RETRIEVERS.index(name))
        speaks = _contribution(name, bundle)
        found[at] = because(scores.recent_UI, user_pos[at], rows.item_idx[at], speaks, bundle.tie_rank)
    return found


def _contribution(name: str, bundle: Bundle) -> Callable[[Array, Array], Array]:
    """(history items (h,), items (m,)) -> (h, m): what one says for the other. Where vectors are learnt: their product,
    less the item's bias, which no history item brings about."""
    if name == "linear":
        weights_II = bundle.linear
        assert weights_II is not None
        return lambda had, items: weights_II[np.ix_(had, items)]
    if name == "co_occurrence":
        similarity_II = bundle.learnt[name].module.matrix(bundle.learnt[name].model)
        return lambda had, items: similarity_II[had][:, items].toarray()
    vectors_ID = bundle.content if name == "content" else bundle.learnt[name].vectors_ID
    if name == BY_LIST:
        vectors_ID = vectors_ID[:, :-1]
    return lambda had, items: vectors_ID[had] @ vectors_ID[items].T
