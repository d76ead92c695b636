"""The window, earlier lists and the gate on a hand-made night."""

import shutil
from datetime import date, datetime
from math import log2

import numpy as np
import pytest
from pyspark.sql import Row

from recspark.config.retrievers import RETRIEVERS
from recspark.stages.model_metrics import stage as model_metrics
from recspark.stages.ranker import scorer
from recspark.tables import candidates, index, interactions, recommendations
from recspark.tables import model_metrics as table
from recspark.warehouse.store import Store
from tests.stages import hand_made

TONIGHT = hand_made.RUN_DATE


@pytest.fixture(scope="module")
def built(spark, copy_hand_made):
    """The hand-made warehouse, with lists published a week and two days ago."""
    warehouse = copy_hand_made()
    store = Store(spark, hand_made.config(warehouse), "earlier")
    for day, run, model in ((date(2024, 2, 23), "run-a", "popular"), (date(2024, 2, 28), "run-b", "ranker")):
        rows = [
            (day, "DE", "u0", 1, "i3", 1.0, "linear", model, "why", run),
            (day, "FR", "u5", 1, "i3", 1.0, "linear", model, "why", run),
            (day, "DE", "__default__", 1, "i0", 1.0, "popular", "popular", "why", run),  # not scored by the mode
        ]
        frame = spark.createDataFrame(rows, recommendations.TABLE.schema)
        store.replace(recommendations.TABLE, frame, where=f"run_date = '{day}'", metadata={"run_date": str(day)})
    later = [hand_made.event("u0", "i3", date(2024, 2, 26)), hand_made.event("u5", "i2", date(2024, 2, 29))]
    later.append(hand_made.event("u5", "i5", date(2024, 2, 29)))  # seen before: not new
    # in the window: u9, whom nobody knew, and u0 in a scenario that was new to it; both were served `__default__`
    for scenario, user, item in (("DE", "u9", "i1"), ("FR", "u0", "i2")):
        later.append((scenario, user, item, datetime(2024, 2, 20, 9), "purchase", 1.0, None, date(2024, 2, 20)))
    store.append(interactions.TABLE, spark.createDataFrame(later, interactions.TABLE.schema))
    store.append(index.USER_INDEX, spark.createDataFrame([("u9", 9)], index.USER_INDEX.schema))
    return warehouse


@pytest.fixture(scope="module")
def refreshed(spark, built):
    """The stage, with a `ranker` that puts the items of odd number first, in falling order: i7, i5, i3, i1."""
    with pytest.MonkeyPatch.context() as patched:
        stub = hand_made.StubScorer("w/models/ranker/stub/evaluated", {"ranker": lambda item: item + 10.0 * (item % 2)})
        patched.setattr(scorer, "evaluated", lambda *args: {hand_made.WINDOW: stub})
        patched.setattr(model_metrics, "_eligible_items", lambda *args: {("all", "DE"): 8, ("all", "__all__"): 8})
        config = hand_made.config(built)
        first = model_metrics.refresh(Store(spark, config, "run1"), config, TONIGHT)
        again = model_metrics.refresh(Store(spark, config, "run2"), config, TONIGHT)
        rows = spark.read.format("delta").load(f"{built}/model_metrics").collect()
    return first, again, {(r.slice, r.scenario, r.model, r.metric): r for r in rows}, rows


def value(refreshed, *key):
    return refreshed[2][key].value


def test_every_mode_on_the_window(refreshed):
    # DE: u0 and u1 bought i7, u2 only a seen item. linear and ranker put i7 first, popular (i0, i1, i2 ...) has it last
    assert value(refreshed, "all", "DE", "linear", "ndcg@3") == 1.0
    assert value(refreshed, "all", "DE", "ranker", "ndcg@3") == 1.0
    assert value(refreshed, "all", "DE", "popular", "ndcg@3") == 0.0
    assert refreshed[2]["all", "DE", "linear", "ndcg@3"].num_users == 2
    # FR: u4 bought i6: second for linear, and fifth for the ranker after i7, i5, i3, i1
    assert value(refreshed, "all", "FR", "linear", "ndcg@3") == pytest.approx(1 / log2(3))
    assert value(refreshed, "all", "FR", "ranker", "ndcg@3") == 0.0
    assert value(refreshed, "all", "__all__", "linear", "ndcg@3") == pytest.approx((1 + 1 + 1 / log2(3)) / 3)
    assert value(refreshed, "all", "__all__", "candidates", "recall") == 1.0
    assert value(refreshed, "all", "__all__", "ranker", "gauc") < 1.0


def test_lists_longer_than_the_gates_cutoff_are_measured_whole_too(spark, built, monkeypatch):
    """Lists of 3, compared by their first 2. u4 bought i6, the second of linear; u0 the third of popular in FR."""
    monkeypatch.setattr(model_metrics, "TOP", 2)
    stub = hand_made.StubScorer("w/models/ranker/stub/evaluated", {"ranker": lambda item: item + 10.0 * (item % 2)})
    config, night = hand_made.config(built), model_metrics.MetricsInput(TONIGHT, {hand_made.WINDOW: stub}, [], {})
    measured = model_metrics.measure_window(Store(spark, config, "run"), config, night, hand_made.WINDOW)
    rows = {(r.slice, r.scenario, r.model, r.metric): r.value for r in measured}
    assert rows["all", "FR", "linear", "ndcg@2"] == rows["all", "FR", "linear", "ndcg@3"] == pytest.approx(1 / log2(3))
    found = [rows["new_to_scenario", "FR", "popular", f"ndcg@{k}"] for k in (2, 3)]
    assert found == [0.0, pytest.approx(1 / log2(4))]
    assert rows["all", "DE", "linear", "coverage"] == 3  # i7, i6, i5: of the whole lists


@pytest.mark.parametrize(("k", "cutoffs"), [(3, (3,)), (10, (10,)), (20, (10, 20))])
def test_the_cutoffs_of_a_lists_length(k, cutoffs):
    assert model_metrics.cutoffs_of(k) == cutoffs


def test_users_without_a_list_are_measured_on_the_default_one(refreshed):
    # u9 bought the second of i0, i1, i2 in DE, u0 the third in FR; the ranker puts i7, i5, i3 there
    for mode in ("popular", "linear"):
        assert value(refreshed, "cold_users", "DE", mode, "ndcg@3") == pytest.approx(1 / log2(3))
        assert value(refreshed, "new_to_scenario", "FR", mode, "ndcg@3") == pytest.approx(1 / log2(4))
    assert value(refreshed, "cold_users", "__all__", "ranker", "ndcg@3") == 0.0
    assert refreshed[2]["cold_users", "__all__", "popular", "ndcg@3"].num_users == 1
    assert ("cold_users", "FR", "popular", "ndcg@3") not in refreshed[2]


def test_cold_items_and_poor_scenarios_are_slices(refreshed):
    # i6 is the cold one: u4 bought it, the second of linear in FR
    assert value(refreshed, "cold_items", "__all__", "linear", "ndcg@3") == pytest.approx(1 / log2(3))
    assert refreshed[2]["cold_items", "__all__", "linear", "ndcg@3"].num_users == 1
    # both scenarios have fewer than 100 lists
    poor, everyone = (value(refreshed, name, "__all__", "linear", "ndcg@3") for name in ("poor_scenarios", "all"))
    assert poor == everyone


def test_coverage_is_a_share_of_the_eligible_items(refreshed):
    # linear in DE: i7, i6, i5 for u0 and u1
    assert value(refreshed, "all", "DE", "linear", "coverage") == 3 / 8
    assert ("all", "FR", "linear", "coverage") not in refreshed[2]  # how many are eligible is not known


def test_lists_in_which_nothing_is_to_be_found_count_in_no_figure(refreshed):
    # the ranker has i7, which u0 and u1 bought, above all else; u2 and u3 did not buy it, and with them it is below 1
    assert value(refreshed, "all", "DE", "ranker", "auc") == 1.0


def test_earlier_lists_are_measured_on_later_events(refreshed):
    # run-a, from 02-23: u0 bought i3 (first place); u5 bought i2, not listed, and i5 again
    assert value(refreshed, "published:2024-02-23", "DE", "published", "ndcg@3") == 1.0
    assert value(refreshed, "published:2024-02-23", "FR", "published", "recall@3") == 0.0
    # run-b, from 02-28: u0 did nothing any more
    assert ("published:2024-02-28", "DE", "published", "ndcg@3") not in refreshed[2]
    assert value(refreshed, "published:2024-02-28", "__all__", "published", "ndcg@3") == 0.0


def test_the_gate_writes_its_decisions_and_reasons(refreshed):
    rows = {r.scenario: r for r in refreshed[3] if r.metric == table.DECISION}
    assert set(rows) == {"DE", "FR"}
    # the last published mode is the incumbent, and three users are no reason to leave it
    assert {(r.model, r.baseline) for r in rows.values()} == {("ranker", "ranker")}
    gain = next(r for r in refreshed[3] if r.metric == "gain_ndcg@3" and r.scenario == "DE")
    assert gain.baseline == "ranker"
    assert gain.note == rows["DE"].note
    assert "ranker stays" in gain.note


def test_unchanged_inputs_are_skipped_and_decisions_are_read_back(spark, built, refreshed):
    first, again, _, rows = refreshed
    assert (first.skipped, again.skipped) == (False, True)
    assert "scenarios by mode, from 3 lists of 1 window: 2 ranker" in first.note
    assert {r.run_id for r in rows} == {"run1"}
    assert table.decisions(Store(spark, hand_made.config(built), "x"), TONIGHT) == {"DE": "ranker", "FR": "ranker"}


def test_each_key_is_there_once(refreshed):
    keys = [(r.run_date, r.run_id, r.model, r.baseline, r.scenario, r.slice, r.metric) for r in refreshed[3]]
    assert len(set(keys)) == len(keys)


def test_a_scenario_that_is_new_tonight_gets_a_decision(spark, built, monkeypatch, tmp_path):
    """No user was measured there: it has the pooled prior, or the incumbent."""
    target = tmp_path / "w"
    shutil.copytree(built, target)
    store = Store(spark, hand_made.config(target), "new")
    rows = store.read(candidates.TABLE).where(f"as_of = '{TONIGHT}' AND user_idx = 0").replace("DE", "PT", "scenario")
    store.append(candidates.TABLE, rows)
    tonight = model_metrics.MetricsInput(TONIGHT, {hand_made.WINDOW: hand_made.StubScorer(None, {})}, [], {})
    found = {d.scenario: d for d in model_metrics.decide(store, [], tonight)}
    assert found["PT"].mode == RETRIEVERS[0]
    assert "no user to measure" in found["PT"].reason


def test_the_window_is_measured_once(spark, built, refreshed, monkeypatch):
    """A night later the closed window is the same: its figures are read, and --force measures again."""
    stub = hand_made.StubScorer("w/models/ranker/stub/evaluated", {"ranker": lambda item: item})
    calls = []
    monkeypatch.setattr(model_metrics, "measure_window", lambda *args: calls.append(1) or [])
    config = hand_made.config(built)
    tonight = model_metrics.MetricsInput(TONIGHT, {hand_made.WINDOW: stub}, [], {})
    kept = model_metrics.window_rows(Store(spark, config, "x"), config, tonight, hand_made.WINDOW, force=False)
    figure = next(r for r in kept if (r.scenario, r.model, r.metric, r.slice) == ("FR", "linear", "ndcg@3", "all"))
    assert figure.value == pytest.approx(1 / log2(3)) and not calls
    copy = model_metrics.MetricsInput(
        TONIGHT, {hand_made.WINDOW: hand_made.StubScorer("w/models/ranker/other", {})}, [], {}
    )
    assert (
        model_metrics.window_rows(Store(spark, config, "x"), config, copy, hand_made.WINDOW, force=False) == []
        and len(calls) == 1
    )


def test_a_transfer_that_hurts_is_named_in_the_note(spark, built):
    """Joint loses a tenth of NDCG to alone in DE, and is the mode published there."""
    stub = hand_made.StubScorer("w", {"ranker": None, "ranker_alone": None})
    users = np.random.default_rng(0).normal([0.1, 0.2, 0.0, 0.0, 0.0], 0.1, (400, 5))
    measured = [moments_row(users[window::2]) for window in (0, 1)]
    tonight = model_metrics.MetricsInput(TONIGHT, {hand_made.WINDOW: stub}, [], {"DE": "ranker"})
    found = model_metrics.decide(Store(spark, hand_made.config(built), "x"), measured, tonight, ("ranker",))
    decision = {d.scenario: d for d in found}["DE"]
    assert decision.mode == "ranker_alone"
    assert "negative transfer: ranker is worse than ranker_alone by 0." in decision.reason


def test_the_gate_has_the_lists_of_all_judged_windows(spark, built):
    """.02 of gain at sd .14 of a difference: sure over two windows of 400 lists (4 standard errors), not over 100."""
    stub = hand_made.StubScorer("w", {"ranker": None})
    users = np.random.default_rng(0).normal([0.12, 0.1, 0.0, 0.0, 0.0][: 1 + len(RETRIEVERS[:3])], 0.1, (800, 4))
    store = Store(spark, hand_made.config(built), "x")
    tonight = model_metrics.MetricsInput(TONIGHT, {hand_made.WINDOW: stub}, [], {"DE": stub.modes[1]})
    modes = [
        {d.scenario: d.mode for d in model_metrics.decide(store, measured, tonight)}["DE"]
        for measured in ([moments_row(users[:400]), moments_row(users[400:])], [moments_row(users[:100])])
    ]
    assert modes == ["ranker", stub.modes[1]]


def moments_row(users):
    data = [float(len(users)), *users.sum(axis=0), *(users.T @ users).ravel()]
    return Row(slice="all", scenario="DE", model="", metric="moments", data=data)
