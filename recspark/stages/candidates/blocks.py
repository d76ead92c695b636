"""Candidates of a block of users, from Arrow to Arrow: score all items, take each retriever's best, compute features.

Memory of a worker: the retriever bundle (memory-mapped) and a few dense float32 matrices of users of a block x items,
which `stage.users_a_block` bounds.
Shapes: U users of a block, L lists (a user in a scenario), n candidate rows, I items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from recspark import columns as c
from recspark.arrays import Array
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import Scenarios
from recspark.features import Candidates, ranking_features
from recspark.histories import from_arrow, owners
from recspark.models.retrievers.pool import Pool, append, exactly, pool
from recspark.models.topk import top_k, top_k_capped
from recspark.stages.candidates.scores import Scores, explain, memories, score, score_candidates, scores_of_lists
from recspark.stages.item_rules import Limit, limit_of, open_rules
from recspark.stages.retriever.bundle import Bundle
from recspark.stages.retriever.item_stats import group_rows
from recspark.tables import histories as histories_table
from recspark.tables.candidates import COLUMNS, GIVEN, REPEAT


@dataclass(frozen=True)
class Settings:
    """What a worker needs beside the bundle. `depth`: items of each retriever a list; `k`: places on a published list;
    `item_rules`: the folder with the values of `where` and `at_most`."""

    as_of: date
    rules: Scenarios
    depth: int
    k: int
    block_users: int
    item_rules: str | None = None


@dataclass(frozen=True)
class Lists:
    """The lists of a block, in order of user; (L,) each: user, scenario (position in `names`), row of its group."""

    user_pos: Array
    name_idx: Array
    names: list[str]
    group_row: Array


def block_candidates(batch: pa.RecordBatch, bundle: Bundle, settings: Settings) -> pa.RecordBatch:
    """Candidates of some HISTORIES rows as a batch of TABLE, in order of user, scenario, item."""
    histories = from_arrow(batch)
    lists = lists_of(batch, bundle)
    scores = score(histories, bundle, lists.user_pos, bundle.groups[lists.group_row])
    histories = replace(histories, scenario_idx=group_rows(histories.scenario_idx, bundle.groups))
    rows = retrieve(lists, scores, bundle, settings)
    if histories_table.GIVEN_ITEM in batch.schema.names:
        rows = exactly(rows, *given_rows(batch, lists), len(bundle.known))
    user_pos = lists.user_pos[rows.list_pos]
    scenario_row = lists.group_row[rows.list_pos]
    row_scores = score_candidates(rows, user_pos, scenario_row, scores, bundle)
    remembered = memories(rows, user_pos, scores, bundle)
    ranked = Candidates(user_pos, scenario_row, rows.item_idx, row_scores, remembered, rows.ranks, rows.list_pos)
    features = ranking_features(histories, ranked, bundle.stats, float(bundle.as_of_day))
    num_rows = len(user_pos)
    sources = pa.array([*RETRIEVERS, GIVEN if histories_table.GIVEN_ITEM in batch.schema.names else REPEAT])
    columns = [
        pa.repeat(pa.scalar(settings.as_of, pa.date32()), num_rows),
        pa.array(lists.names, pa.string()).take(pa.array(lists.name_idx[rows.list_pos])),
        pa.array(bundle.groups[scenario_row], pa.int32()),
        batch.column(c.USER_IDX).take(pa.array(user_pos)),
        pa.array(rows.item_idx.astype(np.int32)),
        sources.take(pa.array(np.where(rows.best < 0, len(RETRIEVERS), rows.best))),
        pa.array(explain(rows, user_pos, scores, bundle)),
        *(pa.array(np.ascontiguousarray(column)) for column in features.T),
    ]
    return pa.record_batch(columns, names=COLUMNS)


def lists_of(batch: pa.RecordBatch, bundle: Bundle) -> Lists:
    """One list for each scenario of each user; a scenario without events so far is in the group of small ones."""
    column = batch.column(histories_table.SCENARIOS)
    offsets = column.offsets.to_numpy()
    encoded = column.flatten().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    group = np.array([bundle.scenarios.get(name, 0) for name in names], dtype=np.int32)
    name_idx = encoded.indices.to_numpy()
    user_pos = owners(offsets)
    return Lists(user_pos, name_idx, names, group_rows(group, bundle.groups)[name_idx])


def retrieve(lists: Lists, scores: Scores, bundle: Bundle, settings: Settings) -> Pool:
    """The union of every retriever's best `depth` items for each list; a list with fewer than k gets seen items too.

    A retriever adds only items with a score above 0. `popular` adds any eligible item, so a list is short only if its
    user has seen the rest. `popular` also respects `at_most`, so that k items within the limit exist; for the other
    retrievers the limit is applied after ranking. What `pin` may need is added to `popular`.
    """
    num_lists, num_items = len(lists.user_pos), len(bundle.known)
    tops = {name: np.full((num_lists, settings.depth), -1, dtype=np.int32) for name in RETRIEVERS}
    allowed = [eligible(bundle, settings.rules, name, settings.item_rules) for name in lists.names]
    pinned: dict[tuple[str, int, int], tuple[Array, Array]] = {}
    exclude = [settings.rules.rule(name).seen == "exclude" for name in lists.names]
    for kind, at in _group_by_rule(lists, settings.rules):
        mask, hide = allowed[kind], exclude[kind]  # eligible items (I,), and whether seen items are left out
        for name in (*scores.user_UI, *scores.list_LD):
            users, back, scores_UI = scores_of_lists(name, scores, bundle, at, lists.user_pos)
            seen_UI = scores.seen_UI[users] if hide else None
            tops[name][at] = top_k(scores_UI, settings.depth, seen_UI, mask, bundle.tie_rank, above=0.0)[0][back]
        for row in np.unique(lists.group_row[at]):
            part = at[lists.group_row[at] == row]
            members, back = np.unique(lists.user_pos[part], return_inverse=True)
            same = np.broadcast_to(bundle.popular.of_group(row), (len(members), num_items))
            hidden = scores.seen_UI[members] if hide else None
            limit = limit_of(settings.rules, settings.item_rules, lists.names[kind])
            tops["popular"][part] = _best(same, settings.depth, hidden, mask, bundle.tie_rank, limit)[back]
            for sql, places in pins_of(settings.rules, lists.names[kind]).items():
                matching = mask & open_rules(settings.item_rules).allowed[sql]
                pinned[sql, kind, row] = part, _best(same, places, hidden, matching, bundle.tie_rank, limit)[back]
    tops["popular"] = with_pinned(tops, [*pinned.values()])
    pooled = pool([tops[name] for name in RETRIEVERS], num_lists, num_items)
    return with_repeats(pooled, lists, scores, bundle, settings)


def pins_of(rules: Scenarios, scenario: str) -> dict[str, int]:
    """The conditions of a scenario's pins -> the number of its places."""
    conditions = [pin.where for pin in rules.rule(scenario).pin]
    return {sql: conditions.count(sql) for sql in conditions}


def with_pinned(tops: dict[str, Array], pinned: list[tuple[Array, Array]]) -> Array:
    """The lists of `popular` with the most popular items that match a pin behind its own, int32 (L, depth or more).
    `pinned`: some lists (l,), and their items (l, places). What a retriever found already is not added."""
    popular = tops["popular"]
    for at, items in pinned:
        for column in items.T:
            found = np.any([(top[at] == column[:, None]).any(axis=1) for top in (*tops.values(), popular)], axis=0)
            added = np.full((len(popular), 1), -1, dtype=np.int32)
            added[at, 0] = np.where(found, -1, column)
            popular = np.concatenate((popular, added), axis=1)
    return popular


def with_repeats(rows: Pool, lists: Lists, scores: Scores, bundle: Bundle, settings: Settings) -> Pool:
    """Fill lists of fewer than k candidates with seen items, the most recently seen first.

    Under `at_most` a list gets k seen items: together with its unseen items, some of them may exceed the limit.
    """
    k = settings.k
    size = np.bincount(rows.list_pos, minlength=len(lists.user_pos))
    short = np.flatnonzero(size < k)
    if not len(short):
        return rows
    users = lists.user_pos[short]
    seen_UI = scores.seen_UI
    recent = sp.csr_matrix((scores.last_seen, seen_UI.indices, seen_UI.indptr), seen_UI.shape)[users]
    dense = np.full(recent.shape, -np.inf, dtype=np.float32)
    dense[owners(recent.indptr), recent.indices] = recent.data
    where = np.searchsorted(short, rows.list_pos)
    pooled = np.isin(rows.list_pos, short)
    dense[where[pooled], rows.item_idx[pooled]] = -np.inf
    room = k - size[short]
    idx = np.full((len(short), k), -1, dtype=np.int32)
    for name_idx in np.unique(lists.name_idx[short]):
        name, part = lists.names[name_idx], lists.name_idx[short] == name_idx
        allowed = eligible(bundle, settings.rules, name, settings.item_rules)
        limit = limit_of(settings.rules, settings.item_rules, name)
        idx[part] = _best(dense[part], k, None, allowed, bundle.tie_rank, limit)
        if limit is not None:
            room[part] = k
    at, place = np.nonzero((idx >= 0) & (np.arange(k) < room[:, None]))
    return append(rows, short[at], idx[at, place])


def given_rows(batch: pa.RecordBatch, lists: Lists) -> tuple[Array, Array]:
    """The rows of candidates.source: their list and item, (n,) each, in order of list and item."""
    column = batch.column(histories_table.GIVEN_ITEM)
    user_pos = owners(column.offsets.to_numpy())
    names = batch.column(histories_table.GIVEN_SCENARIO).flatten()
    name_idx = pc.index_in(names, value_set=pa.array(lists.names, pa.string())).to_numpy(zero_copy_only=False)
    keys = lists.user_pos * len(lists.names) + lists.name_idx
    order = np.argsort(keys)
    list_pos = order[np.searchsorted(keys[order], user_pos * len(lists.names) + name_idx)]
    items = column.flatten().to_numpy(zero_copy_only=False)
    by_list = np.lexsort((items, list_pos))
    return list_pos[by_list], items[by_list]


def eligible(bundle: Bundle, rules: Scenarios, scenario: str, item_rules: str | None = None) -> Array:
    """bool (I,): the items allowed in a scenario's lists. `item_rules`: the folder with the values of `where`."""
    rule, items = rules.rule(scenario), bundle.known
    if rule.items == "own":
        items = bundle.own.get(scenario, np.zeros_like(bundle.known))
    return items if rule.where is None else items & open_rules(item_rules).allowed[rule.where]


def _best(
    scores: Array,
    k: int,
    seen_UI: sp.csr_matrix | None,
    allowed: Array,
    tie_rank: Array,
    limit: Limit | None,
) -> Array:
    if limit is None:
        return top_k(scores, k, seen_UI, allowed, tie_rank)[0]
    return top_k_capped(scores, k, limit.code, limit.items, seen_UI, allowed, tie_rank)[0]


def _group_by_rule(lists: Lists, rules: Scenarios) -> Iterator[tuple[int, Array]]:
    """Lists under the same rule, which share one top-K: (position in `names` of a scenario with that rule, lists)."""
    kinds: dict[tuple[object, ...], int] = {}
    of_name = np.empty(len(lists.names), dtype=np.int64)
    for i, name in enumerate(lists.names):
        rule = rules.rule(name)
        own = name if rule.items == "own" else ""
        of_name[i] = kinds.setdefault((own, rule.seen, rule.where, rule.at_most, rule.pin), i)
    for kind in kinds.values():
        yield kind, np.flatnonzero(of_name[lists.name_idx] == kind)
