"""The evaluator of whole nights by hand, and against the product's metrics, which it must equal."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.night import judge
from recspark import metrics


def rows(*lists: tuple[str, str, str]) -> pd.DataFrame:
    """(scenario, user, items in order) -> rows of lists."""
    found = [(s, u, item, rank) for s, u, items in lists for rank, item in enumerate(items, 1)]
    return pd.DataFrame(found, columns=["scenario", "user_id", "item_id", "rank"])


def test_ndcg_by_hand() -> None:
    """u1 has its only item at rank 2: 1 / log2(3). u2 has one of two items, at rank 1: 1 / (1 + 1 / log2(3)). u3 has
    no list; u4 nothing in the truth."""
    lists = rows(("s", "u1", "ab"), ("s", "u2", "cd"), ("s", "u4", "ab"))
    truth = rows(("s", "u1", "b"), ("s", "u2", "cx"), ("s", "u3", "a"))
    found = judge.ndcg(lists, truth, k=2)
    second = 1 / np.log2(3)
    assert found.to_dict() == pytest.approx({("s", "u1"): second, ("s", "u2"): 1 / (1 + second), ("s", "u3"): 0.0})


def test_the_product_says_the_same() -> None:
    rng = np.random.default_rng(0)
    lists = rows(*(("s", f"u{n:02}", "".join(rng.permutation(list("abcdefghijklmno"))[:10])) for n in range(40)))
    truth = rows(
        *(("s", f"u{n:02}", "".join(rng.permutation(list("abcdefghijklmnopq"))[: 1 + n % 14])) for n in range(40))
    )
    size = truth.groupby("user_id").size()
    mine = judge.ndcg(lists, truth)
    wanted = set(zip(truth["user_id"], truth["item_id"], strict=True))
    hits = np.array([pair in wanted for pair in zip(lists["user_id"], lists["item_id"], strict=True)])
    theirs = metrics.ndcg_at_k(hits, np.arange(41) * 10, size.to_numpy(), 10)
    np.testing.assert_allclose(mine.to_numpy(), theirs, atol=1e-12)
    assert 0.1 < mine.mean() < 0.9


def test_recall_by_hand() -> None:
    """u1 has one of two items among its candidates, u2 none: (1/2 + 0) / 2."""
    truth = rows(("s", "u1", "ab"), ("s", "u2", "a"))
    assert judge.recall(rows(("s", "u1", "bc")), truth) == pytest.approx(0.25)


def test_an_interval_samples_users_with_all_their_lists() -> None:
    """100 users with 0 and 1 in turn: the mean's standard error is 0.05. With every user twice it is the same."""
    index = pd.MultiIndex.from_product([["s"], [f"u{n}" for n in range(100)]], names=judge.LIST)
    once = pd.Series(np.arange(100) % 2.0, index=index)
    mean, low, high = judge.interval(once)
    assert mean == 0.5 and low == pytest.approx(0.4, abs=0.02) and high == pytest.approx(0.6, abs=0.02)
    twice = pd.concat([once, once.rename(index={"s": "t"})])
    np.testing.assert_allclose(judge.interval(twice)[1:], (low, high), atol=0.02)


def test_regret_by_hand() -> None:
    """In s the gate took the worse mode, by 0.3; in t, with one list, the better one: 2/3 x 0.3 in all."""
    index = pd.MultiIndex.from_tuples([("s", "u"), ("s", "v"), ("t", "u")], names=judge.LIST)
    modes = {"a": pd.Series([0.2, 0.4, 0.9], index), "b": pd.Series([0.6, 0.6, 0.1], index)}
    found = judge.regret(modes, {"s": "a", "t": "a"}).set_index("scenario")
    assert found.loc["s", ["chosen", "best"]].tolist() == ["a", "b"]
    assert found.loc["s", "regret"] == pytest.approx(0.3) and found.loc["t", "regret"] == 0
    assert found.loc["(all)", "regret"] == pytest.approx(0.2)
