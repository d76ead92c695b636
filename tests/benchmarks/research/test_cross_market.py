"""The protocol, on two tiny markets by hand."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.research import cross_market
from benchmarks.research.leave_one_out import figures

ROWS = {
    # b comes after c on the same day, as in the file
    "aa": [("u", "a", 1, 3), ("u", "c", 2, 5), ("u", "b", 3, 5), ("v", "d", 4, 1), ("v", "a", 4, 2), ("v", "e", 4, 9)],
    "bb": [("u", "b", 5, 8), ("u", "a", 5, 4), ("u", "e", 5, 6), ("w", "a", 1, 1), ("w", "b", 2, 1)],
}
NAMES = "abcde"


def folder(tmp_path: Path) -> str:
    for market, rows in ROWS.items():
        lines = ["userId itemId rate date", *(f"{u} {i} {r} 1970-01-{day + 1:02d}" for u, i, r, day in rows)]
        (tmp_path / f"{market}_5core.txt").write_text("\n".join(lines))
    return str(tmp_path)


def test_reads_users_of_markets_by_date(tmp_path: Path) -> None:
    """Users aa/u, aa/v, bb/u; bb/w has two events only and is left out, with nothing to learn from."""
    data = cross_market.read(folder(tmp_path), quick=False)
    assert data.names == ("aa", "bb") and data.num_items == 5
    assert "".join(NAMES[i] for i in data.events.item_idx) == "acb" + "dae" + "aeb"
    assert data.events.time.tolist() == [3, 5, 5, 1, 2, 9, 4, 6, 8]
    assert "".join(NAMES[i] for i in data.train.item_idx) == "a" + "d" + "a"
    assert data.scenario.tolist() == [0, 0, 1]


def test_sampled_lists_hold_the_truth_and_unseen_items_of_the_market(tmp_path: Path) -> None:
    """aa has a..e: u has no event with d and e, v none with b and c. bb has a, b, e (w is left out): u has all."""
    queries = cross_market.query_lists(cross_market.read(folder(tmp_path), quick=False), back=1, drop=0, seed=0)
    offsets, items = queries.lists.offsets, queries.lists.item_idx
    lists = ["".join(NAMES[i] for i in items[a:b]) for a, b in pairwise(offsets)]
    assert lists == ["bde", "bce", "b"]
    assert queries.labels.tolist() == [1, 0, 0, 0, 0, 1, 1]
    assert queries.lists.time.tolist() == [5, 9, 8]


def test_given_lists_take_the_place_of_random_ones(tmp_path: Path) -> None:
    """Market aa came with lists: u gets b and an item (z) without any event, v one without the truth (e). The last
    figure: bb alone is right (1), aa has u right and v not: (1 / 2 + 1) / 2 = .75."""
    where = folder(tmp_path)
    (tmp_path / "aa_candidates.csv").write_text("user_id,item_id\nu,z\nu,b\nv,c\nstranger,a\n")
    data = cross_market.read(where, quick=False)
    assert data.num_items == 6
    queries = cross_market.query_lists(data, back=1, drop=0, seed=0)
    assert queries.lists.item_idx.tolist() == [1, 5, 2, 1] and queries.lists.offsets.tolist() == [0, 2, 3, 4]
    assert queries.labels.tolist() == [1, 0, 0, 1]
    found = figures(np.array([2.0, 1.0, 1.0, 1.0]), queries.labels, queries.lists, data.names)
    assert found == {"aa": 0.5, "bb": 1.0, "mean": 0.75}
    validation = cross_market.query_lists(data, back=2, drop=1, seed=0)  # no validation rows were given: random ones
    assert len(validation.lists.item_idx) == 3 + 3 + 1
