"""Rivals on a few events, by hand."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.night import rivals

EVENTS = pd.DataFrame(
    [  # item a: two old events in s; b: one new event in s; c: three new ones in t
        ("s", "u1", "a", 10.0, 1.0),
        ("s", "u2", "a", 10.0, 1.0),
        ("s", "u2", "b", 90.0, 1.0),
        ("t", "u3", "c", 90.0, 1.0),
        ("t", "u4", "c", 90.0, 1.0),
        ("t", "u5", "c", 90.0, 1.0),
        ("s", "u6", "b", 95.0, -1.0),  # undone: no positive, but seen
    ],
    columns=["scenario", "user_id", "item_id", "day", "weight"],
)
LISTS = pd.DataFrame({"scenario": ["s", "s"], "user_id": ["u1", "u6"]})


def lists_of(own: set[str]) -> dict[str, dict[str, str]]:
    known = rivals.past(EVENTS, 100.0, LISTS, own)
    return {
        name: {str(user): "".join(part["item_id"]) for user, part in found.groupby("user_id")}
        for name, found in rivals.top_lists(known, LISTS, 2)
    }


def test_popularity_in_the_scenario_and_everywhere() -> None:
    """u1 saw a. In s over 28 days b counts 1 and c 0, over 365 days a counts 2; everywhere c counts 3."""
    found = lists_of(set())
    assert found["popular_28"]["u1"] == "bc" and found["popular_28_everywhere"]["u1"] == "cb"
    assert found["popular_365"]["u6"] == "ac"
    known = rivals.past(EVENTS, 100.0, LISTS, set())
    np.testing.assert_array_equal(rivals.popularity(known, 28), [[0, 1, 0], [0, 0, 3]])  # s, t by a, b, c
    np.testing.assert_array_equal(rivals.popularity(known, 90), [[2, 1, 0], [0, 0, 3]])  # a is 90 days old


def test_own_items_only() -> None:
    """c was never in s: it comes only where nothing else is left."""
    found = lists_of({"s"})
    assert found["popular_28_everywhere"]["u1"][0] == "b" and found["item_knn"]["u1"][0] == "b"


def test_ease_is_the_closed_form() -> None:
    """u2 ties a and b. G = [[2, 1, 0], [1, 1, 0], [0, 0, 3]] + 300: B[a, b] = 1 / 302, by the inverse of the block."""
    known = rivals.past(EVENTS, 100.0, LISTS, set())
    weights = rivals.ease(known.matrix(known.events["positive"]))
    assert weights[0, 1] == pytest.approx(1 / 302) and weights[1, 0] == pytest.approx(1 / 301)
    assert not weights[2].any()
    assert lists_of(set())["ease"]["u1"][0] == "b"


def test_neighbours_are_cosines_with_shrunk_norms() -> None:
    """One user has a (two users) and b (one): 1 / sqrt(12 x 11)."""
    known = rivals.past(EVENTS, 100.0, LISTS, set())
    near = rivals.cosine_neighbours(known.matrix(known.events["positive"])).toarray()
    assert near[0, 1] == pytest.approx(1 / np.sqrt(12 * 11)) and near[0, 2] == 0
