"""Ranking features of two users and three items, worked out by hand."""

from dataclasses import fields, replace

import numpy as np
import pytest

from recspark.config.retrievers import RETRIEVERS
from recspark.features import FEATURES, WINDOWS, Candidates, ItemStats, features_of, ranking_features
from recspark.histories import Histories

AS_OF = 1000.0  # days since the epoch; day 1000 was a Wednesday
COLUMN = {name: i for i, name in enumerate(FEATURES)}


def item_stats(
    counts: np.ndarray, new_counts: np.ndarray, first: np.ndarray, last: np.ndarray, *of_items: np.ndarray
) -> ItemStats:
    """From dense arrays with a row for each scenario group and a last one for all: (S + 1, W, I) and (S + 1, I)."""
    num_items = first.shape[1]
    cells = np.flatnonzero(np.isfinite(first[:-1]))
    own = counts[:-1].transpose(1, 0, 2).reshape(len(WINDOWS), -1)[:, cells]
    of_cells = (cells, own, first[:-1].ravel()[cells], last[:-1].ravel()[cells])
    assert num_items == counts.shape[2]
    return ItemStats(counts[-1], new_counts[-1], first[-1], last[-1], *of_items, *of_cells)


def stats() -> ItemStats:
    """One scenario group (row 0), which is therefore also all of them (row -1)."""
    counts = np.array([[[3, 0, 0], [5, 1, 0], [7, 1, 0], [15, 1, 0], *[[20, 4, 0]] * 5]], dtype=np.float32)
    new_counts = np.array([[[1, 0, 0], [2, 1, 0], [3, 1, 0], [7, 1, 0], *[[10, 4, 0]] * 5]], dtype=np.float32)
    first, last = np.array([[800.0, 900.0, np.nan]]), np.array([[999.0, 990.0, np.nan]])
    twice = [np.concatenate((part, part)) for part in (counts, new_counts, first, last)]
    price, value = np.array([2.0, 4.0, np.nan], dtype=np.float32), np.array([10.0, 40.0, np.nan], dtype=np.float32)
    return item_stats(*twice, price, value, np.array([0.0, 0.2, 0.0], dtype=np.float32))


def histories() -> Histories:
    """User 0: items 0 and 1 at noon of day 980, item 0 at noon of day 990, returned on day 991. User 1: nothing."""
    return Histories(
        offsets=np.array([0, 4, 4]),
        item_idx=np.array([0, 1, 0, 0], dtype=np.int32),
        scenario_idx=np.zeros(4, dtype=np.int32),
        time=np.array([980.5, 980.5, 990.5, 991.5]),
        weight=np.array([1, 1, 1, -1], dtype=np.float32),
        value=np.array([10, 40, 20, -20], dtype=np.float32),
        price=np.array([1, 4, 4, 4], dtype=np.float32),
    )


def candidates() -> Candidates:
    """User 0: all items, user 1: item 0; with the retrievers linear, content and popular."""
    none = np.nan
    columns = [RETRIEVERS.index(name) for name in ("linear", "content", "popular")]

    def of_all(values: list[list[float]]) -> np.ndarray:
        wide = np.full((4, len(RETRIEVERS)), np.nan, dtype=np.float32)
        wide[:, columns] = values
        return wide

    scores = [[0.5, 0.1, 0.9], [0.2, none, 0.5], [none, none, 0.1], [none, none, 0.9]]
    ranks = [[1, 2, 1], [none, none, 2], [none, none, none], [none, none, 1]]
    return Candidates(
        user_pos=np.array([0, 0, 0, 1]),
        scenario_idx=np.zeros(4, dtype=np.int32),
        item_idx=np.array([0, 1, 2, 0]),
        scores=of_all(scores),
        memories=np.array([[0.1, 0.7, 0.4], [0.0, 0.2, 0.2], [none] * 3, [none] * 3], dtype=np.float32),
        ranks=of_all(ranks),
        list_idx=np.array([0, 0, 0, 1]),
    )


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return ranking_features(histories(), candidates(), stats(), AS_OF)


def test_memories_are_features_of_linear(rows: np.ndarray) -> None:
    recent, lasting, strongest = (
        rows[0, FEATURES.index(f"linear_{name}")] for name in ("recent", "lasting", "strongest")
    )
    assert (recent, lasting, strongest) == tuple(np.float32((0.1, 0.7, 0.4)))
    assert np.isnan(rows[2, FEATURES.index("linear_lasting")])
    assert "linear_lasting" in features_of(("linear", "content")) and "linear_lasting" not in features_of(("content",))


def test_shape_and_names(rows: np.ndarray) -> None:
    assert rows.shape == (4, len(FEATURES))
    assert rows.dtype == np.float32
    assert len(set(FEATURES)) == len(FEATURES)


NAN = float("nan")
PRICES = [0.0, np.log(4), np.log(4)]  # logs of what user 0 paid
VALUES = [np.log(10), np.log(40), np.log(20)]
# The three lines of the user: item 0 has sold 20 times, item 1 four times.
POPULARITY = (np.log(21) + np.log(5) + np.log(21)) / 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_score", [0.5, 0.2, NAN, NAN]),
        ("linear_share", [1.0, 0.0, NAN, NAN]),  # range of the list: 0.2 to 0.5
        ("popular_share", [1.0, (0.5 - 0.1) / (0.9 - 0.1), 0.0, NAN]),  # a list of one has no range
        ("content_rank", [2, NAN, NAN, NAN]),
        ("num_retrievers", [3, 1, 0, 1]),
        ("best_rank", [1, 2, NAN, 1]),
        ("list_size", [3, 3, 3, 1]),
        ("item_count_7", [np.log(4), 0, 0, np.log(4)]),
        ("item_count_scenario_all", [np.log(21), np.log(5), 0, np.log(21)]),
        ("item_new_count_28", [np.log(4), np.log(2), 0, np.log(4)]),
        (
            "item_trend_7",
            [np.log((4 / 7) / (6 / 14)), np.log((1 / 7) / (2 / 14)), np.log(2), np.log((4 / 7) / (6 / 14))],
        ),
        ("item_trend_28", [np.log((8 / 28) / (16 / 56)), np.log((2 / 28) / (2 / 56)), np.log(2), 0]),
        ("item_age", [200, 100, NAN, 200]),
        ("item_idle_scenario", [1, 10, NAN, 1]),
        ("item_new_share", [10 / 20, 4 / 4, 0, 10 / 20]),
        ("item_return_share", [0, 0.2, 0, 0]),
        ("item_price", [np.log(2), np.log(4), NAN, np.log(2)]),
        ("user_events", [np.log(1 + 3)] * 3 + [0]),
        ("user_items", [np.log(1 + 2)] * 3 + [0]),
        ("user_visits", [np.log(1 + 2)] * 3 + [0]),
        ("user_items_per_visit", [2 / 2] * 3 + [0]),
        ("user_events_28", [np.log(1 + 3)] * 3 + [0]),
        ("user_idle", [1000 - 990.5] * 3 + [NAN]),
        ("user_age", [1000 - 980.5] * 3 + [NAN]),
        ("user_gap", [990.5 - 980.5] * 3 + [NAN]),
        ("user_idle_in_gaps", [9.5 / 10] * 3 + [NAN]),
        ("user_return_share", [1 / 4] * 3 + [0]),
        ("user_price", [np.mean(PRICES)] * 3 + [NAN]),
        ("user_hour_cos", [-1] * 3 + [NAN]),  # always at noon
        ("user_weekend_share", [1 / 3] * 3 + [NAN]),  # day 980 was a Thursday, day 990 a Sunday
        ("price_vs_user", [np.log(2) - np.mean(PRICES), np.log(4) - np.mean(PRICES), NAN, NAN]),
        ("price_z_user", [(np.log(2) - np.mean(PRICES)) / np.std(PRICES), np.log(4) / 3 / np.std(PRICES), NAN, NAN]),
        ("value_vs_user", [np.log(10) - np.mean(VALUES), np.log(40) - np.mean(VALUES), NAN, NAN]),
        ("popularity_vs_user", [np.log(21) - POPULARITY, np.log(5) - POPULARITY, -POPULARITY, NAN]),
        ("age_vs_user", [200 - (180.5 + 80.5 + 190.5) / 3, 100 - (180.5 + 80.5 + 190.5) / 3, NAN, NAN]),
        ("scenario_share", [1, 1, 1, 0]),
    ],
)
def test_by_hand(rows: np.ndarray, name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(rows[:, COLUMN[name]], expected, rtol=1e-5, atol=1e-6)


def test_windows_are_named_in_order() -> None:
    assert [name for name in FEATURES if name.startswith("item_count_scenario_")] == [
        f"item_count_scenario_{days or 'all'}" for days in WINDOWS
    ]


def random_block(seed: int) -> tuple[Histories, Candidates, ItemStats]:
    """Six users with 0 to 11 events, two lists each (scenarios 0 and 1), over 20 items."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 12, 6)
    total, num_items = int(sizes.sum()), 20
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    time = np.concatenate([np.sort(rng.uniform(900, AS_OF, size)) for size in sizes])
    events = Histories(
        offsets,
        rng.integers(0, num_items, total),
        rng.integers(0, 2, total),
        time,
        rng.choice([1.0, 1.0, -1.0], total),
        rng.uniform(1, 50, total),
        rng.uniform(1, 9, total),
    )
    rows = 6 * 2 * 5
    user, scenario = np.repeat(np.arange(6), 10), np.tile(np.repeat([0, 1], 5), 6)
    item = np.concatenate([rng.permutation(num_items)[:5] for _ in range(12)])
    scores = rng.normal(size=(rows, 3)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    ranks = rng.integers(1, 9, (rows, 3)).astype(np.float32)
    pool = Candidates(user, scenario, item, scores, scores, ranks, 2 * user + scenario)
    counts = np.cumsum(rng.integers(0, 5, (3, len(WINDOWS), num_items)), axis=1).astype(np.float32)
    first = rng.uniform(500, 900, (3, num_items))
    known = item_stats(
        counts,
        counts // 2,
        first,
        first + 90,
        rng.uniform(1, 9, num_items).astype(np.float32),
        rng.uniform(1, 50, num_items).astype(np.float32),
        rng.random(num_items).astype(np.float32),
    )
    return events, pool, known


def take(pool: Candidates, rows: np.ndarray) -> Candidates:
    return Candidates(**{field.name: getattr(pool, field.name)[rows] for field in fields(Candidates)})


def test_order_of_the_rows_changes_nothing() -> None:
    events, pool, known = random_block(0)
    mixed = np.random.default_rng(1).permutation(len(pool.item_idx))
    whole = ranking_features(events, pool, known, AS_OF)
    np.testing.assert_array_equal(ranking_features(events, take(pool, mixed), known, AS_OF), whole[mixed])


def test_one_user_alone_has_the_same_features() -> None:
    events, pool, known = random_block(2)
    whole = ranking_features(events, pool, known, AS_OF)
    for user in range(6):
        own = slice(events.offsets[user], events.offsets[user + 1])
        per_event = {
            n: getattr(events, n)[own] for n in ("item_idx", "scenario_idx", "time", "weight", "value", "price")
        }
        alone = Histories(offsets=np.array([0, own.stop - own.start]), **per_event)
        rows = pool.user_pos == user
        single = replace(take(pool, rows), user_pos=np.zeros(rows.sum(), dtype=np.int64))
        np.testing.assert_array_equal(ranking_features(alone, single, known, AS_OF), whole[rows])


def test_visits_of_two_users_at_one_time_are_two() -> None:
    """Each user buys twice at noon of day 990: one visit each, so two items a visit."""
    events = Histories(
        offsets=np.array([0, 2, 4]),
        item_idx=np.array([0, 1, 0, 1]),
        scenario_idx=np.zeros(4, dtype=np.int64),
        time=np.full(4, 990.5),
        weight=np.ones(4),
        value=np.ones(4),
        price=np.ones(4),
    )
    pool = replace(take(candidates(), np.array([0, 3])), user_pos=np.array([0, 1]))
    rows = ranking_features(events, pool, stats(), AS_OF)
    np.testing.assert_allclose(rows[:, COLUMN["user_visits"]], [np.log(1 + 1)] * 2, rtol=1e-6)
    np.testing.assert_allclose(rows[:, COLUMN["user_items_per_visit"]], [2 / 1] * 2)


def test_no_candidates() -> None:
    events, pool, known = random_block(3)
    assert ranking_features(events, take(pool, np.array([], dtype=int)), known, AS_OF).shape == (0, len(FEATURES))
