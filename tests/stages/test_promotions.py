"""Boosts and pins by hand, and against a list that is made one place at a time."""

from pathlib import Path

import numpy as np
import pytest

from recspark import model_folder
from recspark.arrays import Array
from recspark.config.schema import AtMost, Boost, Pin, ScenarioRule, Scenarios
from recspark.stages import lists
from recspark.stages.item_rules import Limit
from recspark.stages.promotions import NOT_NAMED, Promotion, arranged, promotion_of

NAN = float("nan")


def rule(factor: list[float], pins: dict[int, list[int]], limit: tuple[list[int], int] | None = None) -> Promotion:
    """`pins`: rank -> the items that match; each pin is named by its rank."""
    boosted = np.where(np.array(factor) > 1, 0, NOT_NAMED)
    masks = tuple((np.isin(np.arange(len(factor)), pins[rank]), rank, rank) for rank in sorted(pins))
    return Promotion(
        np.array(factor), boosted, masks, (), None if limit is None else Limit(np.array(limit[0]), limit[1])
    )


def arrange(
    scores: list[float], of: Promotion, repeat: tuple[int, ...] = ()
) -> tuple[list[int], list[float], list[int]]:
    """Items of one list in their new order, their scores, and the rule that is named of each; item n has scores[n]."""
    items, n = np.arange(len(scores)), len(scores)
    list_idx, is_repeat = np.zeros(n, np.int64), np.isin(items, repeat)
    found, named = arranged(list_idx, np.array(scores), items, is_repeat, items, of)
    order = lists.ordered(list_idx, found, items)
    return order.tolist(), found[order].tolist(), named[order].tolist()


@pytest.mark.parametrize(
    ("item", "factor", "order"),
    [
        (5, 2.0, [0, 1, 2, 5, 3, 4]),  # the sixth is ordered as a third, behind the third
        (5, 100.0, [5, 0, 1, 2, 3, 4]),  # 6 / 100 is before all
        (5, 1.1, [0, 1, 2, 3, 4, 5]),  # 5.45 is still behind the fifth
        (0, 0.5, [1, 0, 2, 3, 4, 5]),  # the first is ordered as a second, behind the second
        (0, 0.2, [1, 2, 3, 4, 0, 5]),
    ],
)
def test_a_factor_moves_an_item_by_its_place(item: int, factor: float, order: list[int]) -> None:
    """Also where scores are below 0, which a factor of the score would lower. The scores stay in their places."""
    scores = [3.0, 1.0, 0.0, -1.0, -2.0, -2.5]
    found, new, named = arrange(scores, rule([factor if n == item else 1.0 for n in range(6)], {}))
    assert (found, new) == (order, scores)
    assert named[order.index(item)] == (0 if factor > 1 else NOT_NAMED) and set(named) <= {0, NOT_NAMED}


def test_a_pin_takes_the_best_item_that_matches() -> None:
    found, scores, named = arrange([5.0, 4.0, 3.0, 2.0], rule([1.0] * 4, {1: [2, 3], 3: [3]}))
    assert (found, scores, named) == ([2, 0, 3, 1], [5.0, 4.0, 3.0, 2.0], [1, NOT_NAMED, 3, NOT_NAMED])


def test_two_pins_of_one_condition_take_the_two_best() -> None:
    assert arrange([5.0, 4.0, 3.0, 2.0], rule([1.0] * 4, {2: [2, 3], 4: [2, 3]}))[0] == [0, 2, 1, 3]


def test_a_boost_decides_which_one_is_pinned() -> None:
    """3 at place 4 is ordered as if at 4 / 2 = 2, before 2 at place 3."""
    assert arrange([5.0, 4.0, 3.0, 2.0], rule([1.0, 1.0, 1.0, 2.0], {1: [2, 3]}))[0] == [3, 0, 1, 2]


def test_what_the_user_knows_is_not_moved_before_new_items() -> None:
    """0 and 1 come last as repeats. 0 cannot be pinned, 1 moves among the repeats alone, and the pin of rank 4 ends
    where the new items end."""
    found, scores, named = arrange([1.0, 0.5, 5.0, 4.0], rule([1.0, 9.0, 1.0, 1.0], {1: [0], 4: [2]}), repeat=(0, 1))
    assert (found, scores) == ([3, 2, 1, 0], [5.0, 4.0, 1.0, 0.5])
    assert named == [NOT_NAMED, 4, 0, NOT_NAMED]


def test_pinned_items_count_first_in_the_limit() -> None:
    """One item a code. 2 is pinned, so 0, of the same code, is over the limit."""
    assert arrange([5.0, 4.0, 3.0, 2.0], rule([1.0] * 4, {2: [2]}, ([7, 8, 7, 9], 1)))[0] == [1, 2, 3, 0]


def test_over_the_limit_none_is_pinned() -> None:
    """Two pins of one code, of which a list may have one: the second takes the next item that fits, or none."""
    assert arrange([5.0, 4.0, 3.0, 2.0], rule([1.0] * 4, {1: [2], 2: [3]}, ([1, 2, 7, 7], 1)))[0] == [2, 0, 1, 3]
    assert arrange([5.0, 4.0, 3.0, 2.0], rule([1.0] * 4, {1: [2], 2: [3, 1]}, ([1, 2, 7, 7], 1)))[0] == [2, 1, 0, 3]


def test_equal_scores_out_of_order_are_told_apart() -> None:
    """2 is pinned before 0 and 1 with the same score: the checks of a night want such items in order of their ids."""
    found, scores, _ = arrange([2.0, 2.0, 2.0], rule([1.0] * 3, {1: [2]}))
    assert found == [2, 0, 1] and scores[0] > scores[1] > scores[2] > 2.0 - 1e-6


def test_a_score_that_is_no_number_stays_where_checks_find_it() -> None:
    found, scores, _ = arrange([NAN, 2.0, 1.0], rule([9.0, 1.0, 1.0], {1: [0]}))
    assert found == [1, 2, 0] and np.isnan(scores[2])


def by_hand(scores: Array, repeat: Array, of: Promotion) -> list[int]:
    """The order of one list, made one step after the other."""
    places = {item: place for place, item in enumerate(sorted(range(len(scores)), key=lambda n: (-scores[n], n)), 1)}
    key = {item: (repeat[item], place / of.factor[item], of.factor[item] != 1, place) for item, place in places.items()}
    order = sorted(places, key=key.__getitem__)
    codes, most = (of.limit.code, of.limit.items) if of.limit else (np.full(len(scores), -1), 0)
    pinned: dict[int, int] = {}
    for mask, rank, _ in of.pins:
        for item in order:
            held = sum(codes[other] == codes[item] for other in pinned)
            if mask[item] and not repeat[item] and item not in pinned and (codes[item] < 0 or held < most):
                pinned[item] = rank
                break
    kept: list[list[int]] = [[], [], [], []]
    counts = {code: sum(codes[item] == code for item in pinned) for code in set(codes.tolist())}
    for item in order:
        if item not in pinned:
            code = int(codes[item])
            beyond = code >= 0 and counts[code] >= most
            counts[code] += 1
            kept[2 * repeat[item] + beyond].append(item)
    new, old = [*kept[0], *kept[1]], [*kept[2], *kept[3]]
    for item, rank in sorted(pinned.items(), key=lambda pair: pair[1]):
        new.insert(rank - 1, item)  # at the end if there are fewer
    return [*new, *old]


def test_many_lists_at_once_are_as_by_hand() -> None:
    random = np.random.default_rng(5)
    num_lists, num_items = 300, 9
    for with_limit in (False, True):
        factor = random.choice([0.3, 1.0, 1.0, 1.0, 2.0, 4.0], num_items)
        pins = {rank: random.choice(num_items, 3).tolist() for rank in (1, 3, 4)}
        of = rule(factor.tolist(), pins, ([-1, 0, 0, 0, 1, 1, 1, 2, 2], 2) if with_limit else None)
        list_idx = np.repeat(np.arange(num_lists), num_items)
        item_idx = np.tile(np.arange(num_items), num_lists)
        scores = random.integers(0, 6, len(list_idx)).astype(float)
        repeat = random.random(len(list_idx)) < 0.3
        final = np.where(repeat, scores - 10, scores)  # as lists.final_scores has it: below the others
        mixed = random.permutation(len(list_idx))
        args = [array[mixed] for array in (list_idx, final, item_idx, repeat, item_idx)]
        found, _ = arranged(*args, of)
        order = lists.ordered(args[0], found, args[2])
        ranked = args[4][order].reshape(num_lists, num_items)
        assert (np.diff(found[order].reshape(num_lists, num_items), axis=1) <= 0).all()
        for n in range(num_lists):
            rows = slice(n * num_items, (n + 1) * num_items)
            assert ranked[n].tolist() == by_hand(final[rows], repeat[rows], of), n


def test_a_limit_alone_is_that_of_lists() -> None:
    random = np.random.default_rng(6)
    list_idx, item_idx = np.repeat(np.arange(50), 8), np.tile(np.arange(8), 50)
    final, code = random.random(400), np.array([0, 0, 0, 1, 1, 1, -1, 2])
    repeat = np.zeros(400, bool)
    found, _ = arranged(list_idx, final, item_idx, repeat, item_idx, rule([1.0] * 8, {}, (code.tolist(), 1)))
    limited = lists.limited(list_idx, 50, final, item_idx, repeat, code[item_idx], np.ones(400, np.int64))
    np.testing.assert_array_equal(*(lists.ordered(list_idx, scores, item_idx) for scores in (found, limited)))


def test_the_rules_of_a_scenario_over_the_items(tmp_path: Path) -> None:
    """Two boosts of one item are multiplied, and the first that moves it up is named; pins are in order of rank."""
    conditions = {"new": [True, True, False], "old": [False, True, True], "own": [False, False, True]}
    arrays = {"where": np.array([*conditions.values()]), "of": np.array([[0, 1, 1]], np.int32)}
    model_folder.save(str(tmp_path / "rules"), {"where": [*conditions], "of": ["brand"]}, arrays)
    boosts = (Boost(where="old", factor=0.5), Boost(where="new", factor=3.0, reason="new here"))
    pins = (Pin(where="own", rank=2), Pin(where="new", rank=1, reason="paid"))
    rules = Scenarios(overrides={"DE": ScenarioRule(boost=boosts, pin=pins, at_most=AtMost(items=1, of="brand"))})
    found = promotion_of(rules, str(tmp_path / "rules"), "DE")
    assert found is not None and found.limit is not None and found.limit.code.tolist() == [0, 1, 1]
    assert (found.factor.tolist(), found.boosted.tolist()) == ([3.0, 1.5, 0.5], [1, 1, NOT_NAMED])
    assert found.reasons == ("promoted", "new here", "promoted", "paid")
    assert [(mask.tolist(), rank, n) for mask, rank, n in found.pins] == [
        (conditions["new"], 1, 3),
        (conditions["own"], 2, 2),
    ]
    assert promotion_of(rules, str(tmp_path / "rules"), "FR") is None
