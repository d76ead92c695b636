"""Figures of a few hand-made lists, and that blocks and partitions change none of them."""

from dataclasses import replace
from math import log2

import numpy as np
import pyarrow as pa
import pytest

from recspark import metrics
from recspark.stages.model_metrics import evaluation
from recspark.tables.model_metrics import ALL, COLD_ITEMS, EVERYONE, POOR

MODES = ("ranker", "linear")
COLUMNS = ("slice", "scenario", "user_idx", "item_idx", "source", "because_item_idx", "popular_score", "score_ranker",
           "score_linear", "done")  # fmt: skip
DDL = (
    "slice string, scenario string, user_idx int, item_idx int, source string, because_item_idx int, "
    "popular_score float, score_ranker double, score_linear double, done array<int>"
)
TYPES = [pa.string(), pa.string(), pa.int32(), pa.int32(), pa.string(), pa.int32(), pa.float32(), pa.float64(),
         pa.float64(), pa.list_(pa.int32())]  # fmt: skip


def ties():
    return np.arange(100)


def settings(k=2, trained=("ranker",), num_replicates=50):
    return evaluation.Settings(MODES, trained, (k,), num_replicates, 0, ties)


def fresh():
    return np.arange(12) == 11


def found(scenario, user, item, ranker, linear, source="linear"):
    return (ALL, scenario, user, item, source, -1, 0.0, ranker, linear, None)


def did(scenario, user, *items):
    return (ALL, scenario, user, None, None, None, None, None, None, items)


# user 0 in DE: ranker puts the hit 11 first, linear second of three, 12 was not retrieved
# user 1 in DE: did nothing.  user 2 in FR: no candidates at all.  user 0 in FR: hit 10 third by both
ROWS = [
    found("DE", 0, 10, 0.2, 3.0), found("DE", 0, 11, 0.9, 2.0), found("DE", 0, 13, 0.1, 1.0),
    did("DE", 0, 11, 12, 11),
    found("FR", 0, 10, 0.1, 1.0), found("FR", 0, 11, 0.8, 3.0), found("FR", 0, 13, 0.7, 2.0),
    did("FR", 0, 10),
    found("DE", 1, 14, 0.5, 1.0), found("DE", 1, 15, 0.4, 2.0),
    did("FR", 2, 10),
]  # fmt: skip


def arrow(rows):
    return pa.table([pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), TYPES, strict=True)],
                    names=list(COLUMNS))  # fmt: skip


def merged(blocks, chosen):
    """The same as in Spark, without it: partials of every block, then one merge for each (slice, scenario)."""
    parts = {}
    for rows in blocks:
        block = evaluation._user_block(arrow(rows), MODES)
        for label, scenario, payload in evaluation.measure(block, chosen, ties(), chosen.fresh and chosen.fresh()):
            parts.setdefault((label, scenario), []).append(payload)
    tables = [
        evaluation._merge(pa.table({"slice": [label] * len(p), "scenario": [scenario] * len(p), "payload": p}), chosen)
        for (label, scenario), p in parts.items()
    ]
    return {(r["slice"], r["scenario"], r["model"], r["metric"]): r for t in tables for r in t.to_pylist()}


def test_figures_by_hand():
    rows = merged([ROWS], settings())
    value = {key: row["value"] for key, row in rows.items()}
    ideal = 1 + 1 / log2(3)  # two items to find, two places
    assert value[ALL, "DE", "ranker", "ndcg@2"] == pytest.approx(1 / ideal)
    assert value[ALL, "DE", "linear", "ndcg@2"] == pytest.approx((1 / log2(3)) / ideal)
    assert value[ALL, "DE", "ranker", "recall@2"] == 1 / 2
    assert value[ALL, "DE", "candidates", "recall"] == 1 / 2
    # in FR both users find nothing in two places, one of them for want of any list
    assert value[ALL, "FR", "ranker", "ndcg@2"] == 0.0
    assert value[ALL, "FR", "candidates", "recall"] == (1 + 0) / 2
    # all: three lists of two users
    assert value[ALL, EVERYONE, "ranker", "ndcg@2"] == pytest.approx(1 / ideal / 3)
    assert rows[ALL, EVERYONE, "ranker", "ndcg@2"]["num_users"] == 2
    assert rows[ALL, "FR", "ranker", "ndcg@2"]["num_users"] == 2


def test_cold_items_are_all_that_counts_in_their_slice():
    """Item 11 is fresh, and item 12, which has no number yet. Only user 0 did something with them, in DE."""
    rows = merged([ROWS], replace(settings(), fresh=fresh))
    value = {key: row["value"] for key, row in rows.items()}
    ideal = 1 + 1 / log2(3)  # 11 and 12
    assert value[COLD_ITEMS, "DE", "ranker", "ndcg@2"] == pytest.approx(1 / ideal)
    assert (COLD_ITEMS, "FR", "ranker", "ndcg@2") not in rows
    assert rows[COLD_ITEMS, EVERYONE, "linear", "ndcg@2"]["num_users"] == 1
    only_eleven = [did("DE", 0, 11, 10) if row[-1] and row[2] == 0 and row[1] == "DE" else row for row in ROWS]
    value = {key: row["value"] for key, row in merged([only_eleven], replace(settings(), fresh=fresh)).items()}
    assert value[COLD_ITEMS, "DE", "ranker", "ndcg@2"] == 1.0  # first; 10 does not count
    assert value[COLD_ITEMS, "DE", "linear", "ndcg@2"] == pytest.approx(1 / log2(3))
    assert value[ALL, "DE", "ranker", "ndcg@2"] == pytest.approx(1.0)  # 11, 10


def test_poor_scenarios_together():
    rows = merged([ROWS[:5], ROWS[5:]], replace(settings(), poor=frozenset({"FR", "IT"})))
    for model, metric in (("ranker", "ndcg@2"), ("candidates", "recall")):
        left, right = rows[POOR, EVERYONE, model, metric], rows[ALL, "FR", model, metric]
        assert {**left, "slice": "", "scenario": ""} == {**right, "slice": "", "scenario": ""}
    assert (POOR, "FR", "ranker", "ndcg@2") not in rows


def test_coverage_counts_distinct_items_of_all_lists():
    value = {key: row["value"] for key, row in merged([ROWS], settings()).items()}
    assert value[ALL, "DE", "ranker", "coverage"] == 4  # 11, 10 and 14, 15: also of the user who did nothing
    assert value[ALL, "FR", "linear", "coverage"] == 2  # 11, 13
    assert value[ALL, EVERYONE, "ranker", "coverage"] == 5  # 10, 11, 13, 14, 15


def test_auc_of_the_trained_mode_over_all_rows_and_within_lists():
    rows = merged([ROWS], settings())
    # DE: the hit scores .9, above the four others of both users
    assert rows[ALL, "DE", "ranker", "auc"]["value"] == 1.0
    # FR: the hit is the lowest of three; together: .9 beats 6 of 6, .1 ties one (DE .1) and loses the others
    assert rows[ALL, "FR", "ranker", "gauc"]["value"] == 0.0
    assert rows[ALL, EVERYONE, "ranker", "auc"]["value"] == pytest.approx((6 + 0.5) / 12)
    assert rows[ALL, EVERYONE, "ranker", "gauc"]["value"] == pytest.approx((3 * 1.0 + 3 * 0.0) / 6)
    assert (ALL, "DE", "linear", "auc") not in rows


def test_moments_are_sums_and_products_of_the_modes():
    rows = merged([ROWS], settings())
    ideal = 1 + 1 / log2(3)
    found = rows[ALL, EVERYONE, "", evaluation.MOMENTS]["data"]
    ranker, linear = 1 / ideal, (1 / log2(3)) / ideal  # the other two lists are 0
    np.testing.assert_allclose(found, [3, ranker, linear, ranker**2, ranker * linear, ranker * linear, linear**2])


def test_blocks_change_nothing():
    expected = merged([ROWS], settings())
    users = [[row for row in ROWS if row[2] == user] for user in (2, 0, 1)]
    require_same(merged(users, settings()), expected)


def test_rows_of_a_users_lists_may_lie_mixed():
    """Spark keeps the rows of a user together, not those of each of their lists."""
    mixed = [[row for row in np.random.default_rng(seed).permutation(np.array(ROWS, object))] for seed in range(3)]
    for rows in mixed:
        by_user = sorted(map(tuple, rows), key=lambda row: row[2])
        require_same(merged([by_user], settings()), merged([ROWS], settings()))


def require_same(left, right):
    assert left.keys() == right.keys()
    for key, row in left.items():
        for name in ("value", "lower", "upper"):
            assert (row[name] is None) == (right[key][name] is None), key
            assert row[name] is None or row[name] == pytest.approx(right[key][name], abs=1e-12), key
        assert row["num_users"] == right[key]["num_users"], key
        assert row["data"] == pytest.approx(right[key]["data"]) if row["data"] else not right[key]["data"]


def random_rows(num_users, seed=0):
    """Each user has ten candidates, one of which is a hit that the ranker puts first with probability 0.3."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        items = rng.choice(90, 10, replace=False)
        ranker = rng.random(10) * 0.5
        ranker[0] = 0.9 if rng.random() < 0.3 else 0.0
        rows += [
            found("DE", user, int(i), float(r), float(x)) for i, r, x in zip(items, ranker, rng.random(10), strict=True)
        ]
        rows.append(did("DE", user, int(items[0])))
    return rows


def test_the_interval_is_that_of_a_mean_over_users():
    rows = merged([random_rows(400)], settings(k=1, num_replicates=400))
    row = rows[ALL, "DE", "ranker", "recall@1"]
    error = (row["value"] * (1 - row["value"]) / 400) ** 0.5  # of a proportion
    assert row["value"] == pytest.approx(0.3, abs=4 * error)
    assert (row["upper"] - row["lower"]) / 2 == pytest.approx(1.96 * error, rel=0.2)


def test_a_users_lists_are_drawn_together():
    # two identical scenarios: as many users, so the same interval as one of them, not a narrower one
    rows = random_rows(200)
    twice = sorted([*rows, *((row[0], "FR", *row[2:]) for row in rows)], key=lambda row: row[2])
    figures = merged([twice], settings(num_replicates=100))
    one, both = (figures[ALL, name, "ranker", "ndcg@2"] for name in ("DE", EVERYONE))
    assert (both["lower"], both["upper"]) == pytest.approx((one["lower"], one["upper"]))


def test_spark_gives_the_same_whatever_the_partitions(spark):
    rows = random_rows(60)
    expected = merged([rows], settings())
    frame = spark.createDataFrame(rows, DDL)
    for partitioned in (frame.coalesce(1), frame.repartition(5)):
        got = evaluation.evaluate(partitioned, settings()).collect()
        require_same({(r["slice"], r["scenario"], r["model"], r["metric"]): r.asDict() for r in got}, expected)


def test_with_truth_makes_one_row_of_each_lists_truth(spark):
    """ROWS with the candidates unchanged and what users did as (list, item) rows, one of them twice."""
    candidates = spark.createDataFrame([row for row in ROWS if row[-1] is None], DDL).drop("done")
    truth = [(ALL, row[1], row[2], item) for row in ROWS for item in row[-1] or ()]
    truth = spark.createDataFrame(truth, "slice string, scenario string, user_idx int, item_idx int")
    got = evaluation.evaluate(evaluation.with_truth(candidates, truth.repartition(3)), settings()).collect()
    rows = {(r["slice"], r["scenario"], r["model"], r["metric"]): r.asDict() for r in got}
    require_same(rows, merged([ROWS], settings()))


def test_replicates_belong_to_the_seed():
    rows = random_rows(100)
    base = settings()
    other = evaluation.Settings(MODES, base.trained, base.cutoffs, base.num_replicates, 1, ties)
    key = (ALL, "DE", "ranker", "ndcg@2")
    left, right = merged([rows], base)[key], merged([rows], other)[key]
    assert left["value"] == right["value"]
    assert left["lower"] != right["lower"]


def by_definition(found, truth, k):
    """Name -> mean over the users of `truth` (user -> set) by the NumPy definition; `found`: user -> ordered list."""
    users = sorted(truth)
    lists_ = [found.get(user, []) for user in users]
    offsets = np.concatenate(([0], np.cumsum([len(items) for items in lists_])))
    hits = [float(item in truth[user]) for user, items in zip(users, lists_, strict=True) for item in items]
    relevant = np.array([len(truth[user]) for user in users])
    return {name: measured(np.array(hits), offsets, relevant, k).mean() for name, measured in metrics.AT_K.items()}


@pytest.mark.parametrize("kind", [int, "user {}".format])
def test_metrics_of_any_two_tables_are_those_of_the_definition(spark, kind):
    """Users 0..19 have lists, 10..29 did something, one of them the same thing twice."""
    rng = np.random.default_rng(0)
    found = {user: rng.permutation(40)[: rng.integers(1, 25)].tolist() for user in range(20)}
    truth = {user: set(rng.integers(0, 40, rng.integers(1, 9)).tolist()) for user in range(10, 30)}
    rows = [(kind(user), kind(item), rank) for user, items in found.items() for rank, item in enumerate(items, 1)]
    done = [(kind(user), kind(item)) for user, items in truth.items() for item in items]
    name = "bigint" if kind is int else "string"
    recommendations = spark.createDataFrame(rows, f"user_id {name}, item_id {name}, rank int").repartition(3)
    did = spark.createDataFrame([*done, done[0]], f"user_id {name}, item_id {name}").repartition(2)
    got = {row.metric: row for row in evaluation.list_metrics(recommendations, did).collect()}
    assert len(got) == 24 and {row.scenario for row in got.values()} == {EVERYONE}
    for k in (1, 5, 10, 20):
        for metric, value in by_definition(found, truth, k).items():
            assert got[f"{metric}@{k}"].value == pytest.approx(value, abs=1e-12), (metric, k)
            assert got[f"{metric}@{k}"].num_users == 20


def test_scenarios_split_the_lists_of_two_tables(spark):
    """Item 1 is the first one of a and the second one of b: 1 and 1 / 2, together 3 / 4; of one user."""
    rows = spark.createDataFrame(
        [("a", 7, 1, 1), ("b", 7, 2, 1), ("b", 7, 1, 2)], "scenario string, user_id int, item_id int, rank int"
    )
    did = spark.createDataFrame([("a", 7, 1), ("b", 7, 1)], "scenario string, user_id int, item_id int")
    got = evaluation.list_metrics(rows, did, (2,)).where("metric = 'mrr@2'").collect()
    assert {row.scenario: (row.value, row.num_users) for row in got} == {
        "a": (1.0, 1), "b": (0.5, 1), EVERYONE: (0.75, 1)
    }  # fmt: skip
