"""Lists in which a business moves items: `boost` moves those of a kind up or down, `pin` gives one of a kind a place.

The order of the rules: `where` has left items out before; then `boost`, then `pin`, then `at_most`. Items that the user
has interacted with stay behind all others, so they are never pinned.
Shapes: n rows, L lists (a user in a scenario), I items.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.config.schema import Scenarios
from recspark.histories import ranges
from recspark.models.topk import num_before
from recspark.stages.item_rules import Limit, limit_of, open_rules
from recspark.stages.lists import ordered

NOT_NAMED = -1  # `named` of a row that no rule has moved
STEP = 1e-9  # of the largest score: how far places are apart where equal scores are not in the order of item_id


@dataclass(frozen=True)
class Promotion:
    """The rules of a scenario over the items. `factor` float64 (I,): the product of all that match; `boosted` (I,): the
    position in `reasons` of the first that moves the item up, else NOT_NAMED. `pins`: (bool (I,), rank, position in
    `reasons`), by rank."""

    factor: Array
    boosted: Array
    pins: tuple[tuple[Array, int, int], ...]
    reasons: tuple[str, ...]
    limit: Limit | None


def promotion_of(rules: Scenarios, path: str | None, scenario: str) -> Promotion | None:
    """The promotion of a scenario's lists tonight; None without `boost` and `pin`. `path`: of the item rules."""
    rule = rules.rule(scenario)
    if not rule.boost and not rule.pin:
        return None
    matches = open_rules(path).allowed
    num_items = len(next(iter(matches.values())))
    factor, boosted = np.ones(num_items), np.full(num_items, NOT_NAMED)
    for n, boost in enumerate(rule.boost):
        factor *= np.where(matches[boost.where], boost.factor, 1.0)
        boosted[(boosted == NOT_NAMED) & matches[boost.where] & (boost.factor > 1)] = n
    pins = sorted((pin.rank, len(rule.boost) + n, pin.where) for n, pin in enumerate(rule.pin))
    limit = limit_of(rules, path, scenario)
    return Promotion(factor, boosted, tuple((matches[sql], rank, n) for rank, n, sql in pins), rule.promotions, limit)


def arranged(
    list_idx: Array, final: Array, tie_rank: Array, repeat: Array, item_idx: Array, rule: Promotion
) -> tuple[Array, Array]:
    """The scores under which a list has the order of its rules, and which rule is named of each row.

    With a factor f the item at place p is ordered as if it were at place p / f, behind an item of that place. A pin
    takes the best item that matches and is not pinned yet. `at_most` counts pinned items first; one that would be over
    the limit is not pinned. The list's scores stay the same numbers, given to the places from the first on, so they do
    not rise; only where equal ones would be out of the order of item_id all of the list are lowered a little.

    All (n,): `list_idx`, `final` (see lists.final_scores), `tie_rank`, `repeat` bool, `item_idx`.
    Returns: scores float64 (n,); positions in `rule.reasons`, or NOT_NAMED, (n,).
    """
    before = ordered(list_idx, final, tie_rank)
    place = _places(before, list_idx)
    scored = np.isfinite(final)  # a score that is not a number stays last, where the checks look for it
    factor = np.where(scored, rule.factor[item_idx], 1.0)
    order = np.lexsort((place, factor != 1, (place + 1) / factor, repeat, list_idx))
    code = np.full(len(final), -1) if rule.limit is None else rule.limit.code[item_idx].astype(np.int64)
    most = 0 if rule.limit is None else rule.limit.items
    kind = list_idx.astype(np.int64) * (int(code.max(initial=-1)) + 2) + code + 1
    rank, named = np.zeros(len(final), np.int64), rule.boosted[item_idx].copy()
    for chosen, at, name in _pinned(order, list_idx, scored & ~repeat, item_idx, kind, code, most, rule):
        rank[chosen], named[chosen] = at, name
    counted = order[np.lexsort((rank[order] == 0, list_idx[order]))]  # of each list its pinned items first
    beyond = np.zeros(len(final), bool)
    beyond[counted] = (code[counted] >= 0) & (num_before(kind[counted]) >= most) & (rank[counted] == 0)
    after = _with_pins(order[np.lexsort((beyond[order], repeat[order], list_idx[order]))], list_idx, repeat, rank)
    scores = np.empty(len(final))
    scores[after] = final[before]
    return _settled(scores, after, list_idx, tie_rank), named


def _pinned(
    order: Array,
    list_idx: Array,
    free: Array,
    item_idx: Array,
    kind: Array,
    code: Array,
    most: int,
    rule: Promotion,
) -> Iterator[tuple[Array, int, int]]:
    """(rows, rank, position in `reasons`) of each pin: one row of each list that has one. `free` (n,): may be
    pinned."""
    free = free.copy()
    taken = np.empty(0, np.int64)  # the kinds of pinned rows, see `arranged`
    for matches, rank, name in rule.pins:
        kinds, counts = np.unique(taken, return_counts=True)
        full = (code >= 0) & np.isin(kind, kinds[counts >= most])
        possible = order[(free & ~full & matches[item_idx])[order]]
        chosen = possible[np.unique(list_idx[possible], return_index=True)[1]]
        free[chosen] = False
        taken = np.concatenate((taken, kind[chosen]))
        yield chosen, rank, name


def _with_pins(order: Array, list_idx: Array, repeat: Array, rank: Array) -> Array:
    """The order with each pinned row at its `rank`, or as low as the rows that are no repeats go."""
    num_lists = int(list_idx.max(initial=-1)) + 1
    pinned, rest = order[rank[order] > 0], order[rank[order] == 0]
    place = np.empty(len(order), np.int64)
    place[rest] = _places(rest, list_idx)[rest]
    pinned = pinned[np.lexsort((rank[pinned], list_idx[pinned]))]
    num_pinned = np.bincount(list_idx[pinned], minlength=num_lists)
    earlier = ranges(num_pinned)
    later = num_pinned[list_idx[pinned]] - 1 - earlier
    new = np.bincount(list_idx[~repeat], minlength=num_lists)[list_idx[pinned]]
    place[pinned] = np.minimum(rank[pinned] - 1, new - 1 - later)
    for n in range(int(num_pinned.max(initial=0))):  # the n-th pin of each list, by rank
        here = np.full(num_lists, len(order))  # behind all where there is none
        here[list_idx[pinned[earlier == n]]] = place[pinned[earlier == n]]
        place[rest] += place[rest] >= here[list_idx[rest]]
    return np.asarray(np.lexsort((place, list_idx)))


def _places(order: Array, list_idx: Array) -> Array:
    """The place of each row in its list, from 0, under an order of rows by list."""
    place = np.empty(len(list_idx), np.int64)
    place[order] = ranges(np.bincount(list_idx[order], minlength=int(list_idx.max(initial=-1)) + 1))
    return place


def _settled(scores: Array, order: Array, list_idx: Array, tie_rank: Array) -> Array:
    """Scores that give this order, in which they do not rise, also where equal ones are ordered by item_id."""
    upper, lower = order[:-1], order[1:]
    same = (list_idx[upper] == list_idx[lower]) & (scores[upper] == scores[lower])
    tied = np.isin(list_idx, list_idx[lower[same & (tie_rank[lower] < tie_rank[upper])]])
    largest = np.zeros(int(list_idx.max(initial=-1)) + 1)
    np.fmax.at(largest, list_idx, np.where(np.isfinite(scores), np.abs(scores), 0.0))
    step = STEP * np.maximum(largest, 1.0)[list_idx]
    return np.where(tied, scores - _places(order, list_idx) * step, scores)
