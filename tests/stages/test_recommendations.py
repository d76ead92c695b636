"""Publication and its faults on a hand-made night: held, killed in between, run twice, forced."""

import shutil
from datetime import date, datetime, timezone

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.errors import DataError, PublishError
from recspark.stages import recommendations, unpublish
from recspark.stages.ranker import scorer
from recspark.tables import candidates, interactions, model_metrics, night_statistics, published_runs
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.tables.recommendations import TABLE
from recspark.warehouse import state
from recspark.warehouse.store import Store
from tests.stages import hand_made

TONIGHT = hand_made.RUN_DATE


@pytest.fixture(scope="module")
def stubs():
    """A stub of the trained models: `ranker` prefers even item numbers."""
    with pytest.MonkeyPatch.context() as patched:
        stub = hand_made.StubScorer("models/ranker/stub/published", {"ranker": lambda item: (item % 2 == 0) * 0.5})
        patched.setattr(scorer, "scorer", lambda store, *args: stub.of(store.warehouse))
        yield


@pytest.fixture(scope="module")
def built(spark, stubs, copy_hand_made):
    """The warehouse before publication, the gate's decision in it: linear in DE, popular in FR."""
    warehouse = copy_hand_made()
    decide(Store(spark, hand_made.config(warehouse), "builder"), {"DE": "linear", "FR": "popular"})
    return warehouse


@pytest.fixture(scope="module")
def published(spark, built, tmp_path_factory):
    """The warehouse after run1, and what the run reported; not to be written to."""
    target = tmp_path_factory.mktemp("published") / "w"
    shutil.copytree(built, target)
    return target, publish(spark, target, "run1")


@pytest.fixture
def warehouse(published, tmp_path):
    """A copy of the published warehouse."""
    target = tmp_path / "w"
    shutil.copytree(published[0], target)
    return target


def decide(store, modes, fingerprint="metrics-1"):
    rows = [
        (TONIGHT, store.run_id, m, "linear", s, "all", model_metrics.DECISION, 1.0, None, None, 0, "why")
        for s, m in modes.items()
    ]
    stamp = {"fingerprint": fingerprint, "run_date": str(TONIGHT)}
    frame = store.spark.createDataFrame(rows, model_metrics.TABLE.schema)
    store.replace(model_metrics.TABLE, frame, where=f"run_date = '{TONIGHT}'", metadata=stamp)


def publish(spark, warehouse, run_id, force=False):
    config = hand_made.config(warehouse)
    return recommendations.refresh(Store(spark, config, run_id), config, TONIGHT, force)


def table(spark, warehouse, noun):
    return spark.read.format("delta").load(f"{warehouse}/{noun}")


def runs(spark, warehouse):
    return {r.run_id: r for r in table(spark, warehouse, "published_runs").collect()}


def test_a_trained_mode_does_not_order_the_list_of_a_user_without_events(spark, stubs, copy_hand_made):
    """`ranker` would put i0, i2, i4 first; nobody in its examples was without an event."""
    target = copy_hand_made()
    decide(Store(spark, hand_made.config(target), "builder"), {"DE": "ranker", "FR": "ranker"})
    publish(spark, target, "run1")
    rows = table(spark, target, "recommendations").orderBy("rank").collect()
    lists = {(r.scenario, r.user_id): [o.item_id for o in rows if (o.scenario, o.user_id) == (r.scenario, r.user_id)]
             for r in rows}  # fmt: skip
    assert lists["DE", c.DEFAULT_USER] == ["i0", "i1", "i2"]
    assert lists["FR", "u5"] == ["i0", "i2", "i4"]
    assert {(r.user_id == c.DEFAULT_USER, r.model) for r in rows} == {(True, "popular"), (False, "ranker")}


def test_a_night_is_published_with_its_row(spark, published):
    warehouse, summary = published
    num_lists = len(hand_made.USERS) + 2  # one default list for each scenario
    assert (summary.rows_out, summary.skipped) == (num_lists * hand_made.K, False)
    rows = table(spark, warehouse, "recommendations").collect()
    found = {(r.scenario, r.user_id, r["rank"]): r for r in rows}
    assert len(found) == len(rows) == num_lists * hand_made.K
    assert [found["DE", "u0", k].item_id for k in (1, 2, 3)] == ["i6", "i5", "i4"]  # u0 has seen i0 and i7
    assert [found["FR", "u4", k].item_id for k in (1, 2, 3)] == ["i0", "i1", "i2"]
    # linear does not score the default user: the popular items, with finite scores
    assert [found["DE", c.DEFAULT_USER, k].item_id for k in (1, 2, 3)] == ["i0", "i1", "i2"]
    of_default = {r.user_id == c.DEFAULT_USER: r.model for r in rows if r.scenario == "DE"}
    assert of_default == {True: "popular", False: "linear"}
    assert found["DE", "u0", 1].reason == "often with THING 0"
    assert found["DE", "u1", 1].reason == "often with i1"  # that item has no text
    assert found["DE", c.DEFAULT_USER, 1].reason == "popular in DE"
    run = runs(spark, warehouse)["run1"]
    assert (run.status, run.run_date) == ("published", TONIGHT)
    assert set(run.input_versions) == {"interactions", "items", "candidates", "model_metrics"}
    stamp = Store(spark, hand_made.config(warehouse), "reader").stamp(TABLE, run_date=TONIGHT)
    assert (stamp["run_id"], stamp["config_hash"]) == ("run1", run.config_hash)


def test_a_shared_fact_is_the_reason_and_its_path_is_kept(spark, warehouse):
    """i6 and u0's i0 are by the same maker; without item_facts.reasons no list has such a reason."""
    store = Store(spark, hand_made.config(warehouse), "facts")
    facts = spark.createDataFrame([("i0", "maker", "A"), ("i6", "maker", "A")], ITEM_FACTS.schema)
    store.replace(ITEM_FACTS, facts)
    facts_section = {"relations": {"maker": "item_id"}, "reasons": {"maker": "by {entity}, as {item}"}}
    config = hand_made.config(warehouse, item_facts=facts_section)
    assert not recommendations.refresh(store, config, TONIGHT).skipped
    rows = table(spark, warehouse, "recommendations").where("user_id = 'u0'").orderBy("rank").collect()
    assert [row.reason for row in rows] == ["by A, as THING 0", "often with THING 0", "often with THING 0"]
    (link,) = table(spark, warehouse, "recommendation_facts").where("user_id = 'u0'").collect()
    assert (link.item_id, link.entity, link.history_item_id, link.run_id) == ("i6", "A", "i0", "facts")
    assert recommendations.refresh(store, config, TONIGHT).skipped
    store.replace(ITEM_FACTS, facts.limit(1))
    assert not recommendations.refresh(store, config, TONIGHT).skipped
    assert table(spark, warehouse, "recommendation_facts").count() == 0


def test_boosts_and_pins_are_published_and_named(spark, warehouse):
    """DE is ordered by linear: u0 would get i6, i5, i4. i2 is pinned first, and u2, who has it, gets no pin. FR is
    ordered by popularity, i0, i1, i2: i3, the fourth, is ordered as if at 4 / 3. All checks hold, or nothing would be
    published."""
    rules = {
        "DE": {"pin": [{"where": "item_id = 'i2'", "rank": 1, "reason": "our tip"}]},
        "FR": {"boost": [{"where": "text = 'THING 3'", "factor": 3}]},
    }
    config = hand_made.config(warehouse, scenarios={"overrides": rules})
    assert not recommendations.refresh(Store(spark, config, "moved"), config, TONIGHT).skipped
    found = {}
    for row in table(spark, warehouse, "recommendations").orderBy("rank").collect():
        found.setdefault((row.scenario, row.user_id), []).append((row.item_id, row.score, row.reason))
    assert found["DE", "u0"] == [
        ("i2", 6.0, "often with THING 0, our tip"),
        ("i6", 5.0, "often with THING 0"),
        ("i5", 4.0, "often with THING 0"),
    ]  # fmt: skip
    assert [item for item, _, _ in found["DE", "u2"]] == ["i7", "i6", "i5"]
    assert [item for item, _, _ in found["DE", c.DEFAULT_USER]] == ["i2", "i0", "i1"]
    assert found["FR", "u4"] == [
        ("i0", 0.0, "popular in FR"), ("i3", -1.0, "popular in FR, promoted"), ("i1", -2.0, "popular in FR"),
    ]  # fmt: skip


def test_lists_and_their_facts_are_seen_together(spark, warehouse, monkeypatch):
    """After every commit of a night that is published again a reader that joins by run_id finds u0's fact."""
    store = Store(spark, hand_made.config(warehouse), "facts")
    store.replace(ITEM_FACTS, spark.createDataFrame([("i0", "maker", "A"), ("i6", "maker", "A")], ITEM_FACTS.schema))
    facts_section = {"relations": {"maker": "item_id"}, "reasons": {"maker": "by {entity}, as {item}"}}
    config = hand_made.config(warehouse, item_facts=facts_section)
    recommendations.refresh(store, config, TONIGHT)
    seen = []

    def look(name):
        real = getattr(Store, name)

        def looking(self, *args, **options):
            made = real(self, *args, **options)
            lists, facts = (table(spark, warehouse, noun) for noun in ("recommendations", "recommendation_facts"))
            both = lists.join(facts, on=["run_date", "scenario", "user_id", "item_id", "run_id"], how="inner")
            runs = sorted(row[0] for row in facts.where("user_id = 'u0'").select("run_id").collect())
            seen.append((both.where("user_id = 'u0'").count(), runs))
            return made

        monkeypatch.setattr(Store, name, looking)

    look("replace")
    look("delete")
    recommendations.refresh(Store(spark, config, "again"), config, TONIGHT, force=True)
    monkeypatch.undo()
    assert seen[:3] == [(1, ["again", "facts"]), (1, ["again", "facts"]), (1, ["again"])]


def test_what_is_committed_is_what_was_checked(spark, warehouse, monkeypatch):
    """Of rows that differ whenever Spark computes them, as after a lost executor, those in the files count for both."""
    real, checked = recommendations.table.check, []

    def check(rows, *args):
        checked.extend(row.score for row in rows.collect())
        return real(rows, *args)

    def random_scores(*args):
        return real_staged(*args).withColumn("score", 1 / F.col("rank") + F.rand() * 1e-6)  # in the order of ranks

    real_staged = recommendations.staged
    monkeypatch.setattr(recommendations, "staged", random_scores)
    monkeypatch.setattr(recommendations.table, "check", check)
    monkeypatch.setattr(recommendations.night_statistics, "settle", lambda *args: "")
    publish(spark, warehouse, "run2", force=True)
    committed = sorted(row.score for row in table(spark, warehouse, "recommendations").collect())
    assert committed == sorted(checked) and not any((warehouse / "_staged").iterdir())


def test_the_same_inputs_are_skipped_and_force_is_a_new_run(spark, warehouse):
    before = len(list((warehouse / "recommendations/_delta_log").glob("*.json")))
    assert publish(spark, warehouse, "run2").skipped
    assert len(list((warehouse / "recommendations/_delta_log").glob("*.json"))) == before
    assert set(runs(spark, warehouse)) == {"run1"}
    assert not publish(spark, warehouse, "run3", force=True).skipped
    assert set(runs(spark, warehouse)) == {"run1", "run3"}
    ids = table(spark, warehouse, "recommendations").select("run_id").distinct().collect()
    assert [r[0] for r in ids] == ["run3"]


def test_users_without_a_scenario_have_no_list_to_be_expected(spark, published):
    """Their file is not there; with a scenario it would be read."""
    plain = hand_made.config(published[0])
    features = {"age": {"kind": "number", "sql": "age"}}
    users = {"format": "csv", "paths": ["nowhere.csv"], "user_id": "who", "features": features}
    known = hand_made.config(published[0], source={**plain.source.model_dump(exclude={"users"}), "users": users})
    store = Store(spark, plain, "run")
    events = spark.createDataFrame(hand_made.events(), interactions.TABLE.schema)
    lists = [recommendations.expected_lists(store, one, TONIGHT, events).collect() for one in (plain, known)]
    assert sorted(lists[0]) == sorted(lists[1]) and len(lists[0]) == 8  # six users and the default one of DE and FR


def test_a_failed_check_holds_the_night(spark, warehouse):
    store = Store(spark, hand_made.config(warehouse), "breaker")
    store.delete(candidates.TABLE, F.expr(f"as_of = '{TONIGHT}' AND user_idx = 0"))
    with pytest.raises(PublishError, match="held: 1 eligible users without a list; readers keep") as error:
        publish(spark, warehouse, "run2", force=True)
    assert error.value.exit_code == 3
    rows = table(spark, warehouse, "recommendations")
    assert {r[0] for r in rows.select("run_id").distinct().collect()} == {"run1"}
    held = runs(spark, warehouse)["run2"]
    assert (held.status, held.reason) == ("held", "1 eligible users without a list")


def test_killed_between_commit_and_row(spark, built, tmp_path, monkeypatch):
    warehouse = tmp_path / "w"
    shutil.copytree(built, warehouse)

    class Killed(BaseException):
        pass

    def die(*args):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(published_runs, "write", die)
        publish(spark, warehouse, "run1")
    assert table(spark, warehouse, "recommendations").count() == (len(hand_made.USERS) + 2) * hand_made.K
    assert not (warehouse / "published_runs").exists()
    store = Store(spark, hand_made.config(warehouse), "run2")
    recommendations.repair(store)
    run = runs(spark, warehouse)["run1"]
    assert (run.status, run.run_date) == ("published", TONIGHT)
    assert run.reason == "repaired from commit 0 of recommendations"
    assert set(run.input_versions) == {"interactions", "items", "candidates", "model_metrics"}
    assert abs(run.published_at.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)).total_seconds() < 24 * 3600
    assert publish(spark, warehouse, "run2").skipped  # it is there
    recommendations.repair(store)  # nothing is missing, so nothing is added
    assert set(runs(spark, warehouse)) == {"run1"}


def test_killed_before_what_follows_the_commit_of_the_lists(spark, warehouse, monkeypatch):
    """`again` made the lists again, and ended before it deleted the facts of `first` and stored the lists' figures."""
    facts_section = {"relations": {"maker": "item_id"}, "reasons": {"maker": "by {entity}, as {item}"}}
    config = hand_made.config(warehouse, item_facts=facts_section)
    facts = spark.createDataFrame([("i0", "maker", "A"), ("i6", "maker", "A")], ITEM_FACTS.schema)
    Store(spark, config, "facts").replace(ITEM_FACTS, facts)

    def run(name, force=False):
        return recommendations.refresh(Store(spark, config, name), config, TONIGHT, force)

    def facts_of():
        return {row.run_id for row in table(spark, warehouse, "recommendation_facts").collect()}

    def die(*args):
        raise KeyboardInterrupt

    run("first")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(recommendations, "_delete_old_links", die)
        run("again", force=True)
    slices = [state.slice_of({"run_date": TONIGHT})]
    Store(spark, config, "test").delete(night_statistics.TABLE, F.lit(True), slices)
    assert facts_of() == {"first", "again"}
    assert run("third").skipped
    assert facts_of() == {"again"}
    stored = table(spark, warehouse, "night_statistics").where(F.col("day") == F.lit(TONIGHT)).collect()
    assert {row.scenario for row in stored} == {"DE", "FR"} and all(row.kind == "lists" for row in stored)
    versions = len(list((warehouse / "night_statistics/_delta_log").glob("*.json")))
    assert run("fourth").skipped  # nothing is left to do
    assert len(list((warehouse / "night_statistics/_delta_log").glob("*.json"))) == versions


def test_a_night_is_taken_back(spark, warehouse):
    """Readers of the newest night see the one before; the same night can be run again; repair leaves the rest alone."""
    earlier = Store(spark, hand_made.config(warehouse), "run0")
    rows = earlier.read(TABLE).withColumn("run_date", F.lit(date(2024, 2, 29))).withColumn("run_id", F.lit("run0"))
    stamp = {"run_date": "2024-02-29", "config_hash": "h"}
    earlier.replace(TABLE, rows.localCheckpoint(), where="run_date = '2024-02-29'", metadata=stamp)
    recommendations.repair(earlier)
    store = Store(spark, hand_made.config(warehouse), "back")
    commits = store.history(TABLE)[0].version
    assert not table(spark, warehouse, "night_statistics").where("kind = 'lists'").isEmpty()
    summary = unpublish.refresh(store, hand_made.config(warehouse), TONIGHT)
    assert summary.rows_in == (len(hand_made.USERS) + 2) * hand_made.K
    assert summary.note == f"lists of {TONIGHT} taken back, of run1; readers of the newest lists see 2024-02-29"
    assert store.history(TABLE)[0].version == commits + 1
    assert table(spark, warehouse, "night_statistics").where("kind = 'lists'").isEmpty()
    assert {r[0] for r in table(spark, warehouse, "recommendations").select("run_id").distinct().collect()} == {"run0"}
    assert {name: row.status for name, row in runs(spark, warehouse).items()} == {
        "run0": "published", "run1": "withdrawn",
    }  # fmt: skip
    recommendations.repair(Store(spark, hand_made.config(warehouse), "later"))
    assert runs(spark, warehouse)["run1"].status == "withdrawn"
    assert not publish(spark, warehouse, "run2").skipped
    assert {name: row.status for name, row in runs(spark, warehouse).items()} == {
        "run0": "published", "run1": "withdrawn", "run2": "published",
    }  # fmt: skip


def test_killed_while_a_night_is_taken_back(spark, warehouse, monkeypatch):
    """The lists are gone and the row still says published: the next run corrects it, from the commit."""
    monkeypatch.setattr(published_runs, "withdraw", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        unpublish.refresh(Store(spark, hand_made.config(warehouse), "back"), hand_made.config(warehouse), TONIGHT)
    monkeypatch.undo()
    assert runs(spark, warehouse)["run1"].status == "published"
    recommendations.repair(Store(spark, hand_made.config(warehouse), "later"))
    assert runs(spark, warehouse)["run1"].status == "withdrawn"


def test_a_night_that_is_not_there_is_named(spark, warehouse):
    store = Store(spark, hand_made.config(warehouse), "back")
    with pytest.raises(DataError, match=rf"no lists of 2024-03-07 in .*; the newest nights there: {TONIGHT}; name"):
        unpublish.refresh(store, hand_made.config(warehouse), date(2024, 3, 7))


def test_without_candidates_or_metrics_it_says_which_job_to_run(spark, published):
    config = hand_made.config(published[0])
    with pytest.raises(
        DataError,
        match=r"candidates has no rows for 2024-03-02, or others have changed it since; run jobs/candidates.py",
    ):
        recommendations.refresh(Store(spark, config, "run1"), config, date(2024, 3, 2))


def unlimited(scenario):
    return None


def top(frame, modes, answer=None):
    """item numbers and scores in order of rank, by scenario and user."""
    scoring = hand_made.StubScorer(None, answer or {})
    found = recommendations.top_lists(frame, scoring, modes, 3, lambda: np.arange(8), unlimited, unlimited)
    lists_ = {}
    for r in sorted(found.collect(), key=lambda r: r["rank"]):
        lists_.setdefault((r.scenario, r.user_idx), []).append((r.item_idx, r.score))
    return lists_


def test_a_trained_mode_orders_its_scenarios_and_partitions_change_nothing(spark, published):
    rows = table(spark, published[0], "candidates").where(f"as_of = '{TONIGHT}'")
    modes = {"DE": "ranker", "FR": "popular"}
    even = {"ranker": lambda item: (item % 2 == 0) * 0.5}
    found = top(rows.coalesce(1), modes, even)
    assert found["DE", 1] == [(0, 0.5), (2, 0.5), (4, 0.5)]
    assert found["FR", 4] == [(0, 0.0), (1, -1.0), (2, -2.0)]
    assert top(rows.repartition(7), modes, even) == found


def test_a_scenario_without_a_decision_has_no_scores(spark, published):
    rows = table(spark, published[0], "candidates").where(f"as_of = '{TONIGHT}'")
    assert np.isnan(top(rows, {"DE": "linear"})["FR", 4][0][1])
