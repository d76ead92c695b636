"""The top of lists by hand, without Spark: ties, repeats, limits, pins."""

import numpy as np
import pyarrow as pa

from recspark import columns as c
from recspark.stages import item_rules as rules
from recspark.stages import lists, promotions, recommendations


def unlimited(scenario):
    return None


def block(rows):
    names = (c.SCENARIO, c.USER_IDX, c.ITEM_IDX, c.SOURCE, "because_item_idx", lists.POPULAR, c.MODEL, c.SCORE)
    return pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def test_the_top_of_a_block_by_hand():
    rows = [
        ("DE", 0, 0, "linear", 5, 1.0, "gbdt", 0.1),
        ("DE", 0, 1, "linear", 5, 1.0, "gbdt", 0.7),
        ("DE", 0, 2, "popular", -1, 1.0, "gbdt", 0.7),
        ("FR", 0, 0, "repeat", -1, 1.0, "linear", 9.0),
        ("FR", 0, 1, "linear", 5, 1.0, "linear", 2.0),
        ("FR", 0, 2, "popular", -1, 1.0, "linear", float("nan")),
    ]
    ties = np.array([0, 2, 1])  # item 2 comes before item 1
    found = recommendations.top_of_block(block(rows), 3, ties, unlimited, unlimited).to_pylist()
    assert [(r[c.SCENARIO], r[c.RANK], r[c.ITEM_IDX], r[c.SCORE]) for r in found] == [
        ("DE", 1, 2, 0.7), ("DE", 2, 1, 0.7), ("DE", 3, 0, 0.1),
        ("FR", 1, 1, 2.0), ("FR", 2, 2, 0.0), ("FR", 3, 0, -1.0),
    ]  # fmt: skip
    # of FR, linear did not score item 2
    assert [r[c.MODEL] for r in found] == ["gbdt"] * 3 + ["linear", "popular", "linear"]


def test_the_top_of_a_block_under_a_limit_by_hand():
    """DE shows one item of a code: 0, 1 and 2 share one, 3 has another. Two are within the limit, so the third place
    goes to the best item over it, 0.8 moved to 0.1 - 1. FR has no limit."""
    scores = [0.9, 0.8, 0.7, 0.1]
    rows = [(s, 0, at, "linear", 5, 1.0, "gbdt", x) for s in ("DE", "FR") for at, x in enumerate(scores)]
    limits = {"DE": rules.Limit(np.array([4, 4, 4, 2], dtype=np.int32), 1)}
    found = recommendations.top_of_block(block(rows), 3, np.arange(4), limits.get, unlimited).to_pylist()
    places = [(r[c.SCENARIO], r[c.RANK], r[c.ITEM_IDX], round(r[c.SCORE], 9)) for r in found]
    assert places == [
        ("DE", 1, 0, 0.9), ("DE", 2, 3, 0.1), ("DE", 3, 1, -0.9),
        ("FR", 1, 0, 0.9), ("FR", 2, 1, 0.8), ("FR", 3, 2, 0.7),
    ]  # fmt: skip


def test_the_top_of_a_block_with_a_pin_under_a_limit_by_hand():
    """In both scenarios one item a code; 0 and 2 share one. DE pins 2, so it counts first and 0 is over the limit;
    FR keeps 0, and 2 is over it. The scores of DE are those of its places; in FR 0.7 is moved to 0.1 - 1."""
    rows = [(s, 0, at, "linear", 5, 1.0, "gbdt", x) for s in ("DE", "FR") for at, x in enumerate([0.9, 0.8, 0.7, 0.1])]
    limit = rules.Limit(np.array([4, 5, 4, 2], dtype=np.int32), 1)
    pin = promotions.Promotion(np.ones(4), np.full(4, -1), ((np.arange(4) == 2, 1, 0),), ("tip",), limit)
    found = recommendations.top_of_block(block(rows), 4, np.arange(4), lambda name: limit, {"DE": pin}.get).to_pylist()
    assert [(r[c.SCENARIO], r[c.ITEM_IDX], round(r[c.SCORE], 9), r["promoted"]) for r in found] == [
        ("DE", 2, 0.9, "tip"), ("DE", 1, 0.8, None), ("DE", 3, 0.7, None), ("DE", 0, 0.1, None),
        ("FR", 0, 0.9, None), ("FR", 1, 0.8, None), ("FR", 3, 0.1, None), ("FR", 2, -0.9, None),
    ]  # fmt: skip
