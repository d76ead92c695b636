from dataclasses import replace
from datetime import timedelta
from functools import partial

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark.config.retrievers import RETRIEVERS, Popular
from recspark.config.schema import AtMost, Config, Pin, ScenarioRule
from recspark.errors import ConfigError, DataError
from recspark.models.retrievers.affinity import LEVELS
from recspark.stages import item_rules as rules
from recspark.stages.candidates import stage as candidates
from recspark.stages.candidates.blocks import Settings
from recspark.tables import histories as histories_table
from recspark.tables.candidates import EXPLAINING_ITEM, REPEAT, TABLE
from recspark.tables.histories import with_default_user
from recspark.tables.index import ITEM_INDEX, USER_INDEX
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from tests import world
from tests.stages import hand_made


@pytest.fixture(scope="module")
def histories(planted_night):
    groups = histories_table.groups_in(planted_night.path)
    frame = histories_table.read(planted_night.store, planted_night.config, world.AS_OF, groups)
    return with_default_user(frame, [world.RICH, world.POOR]).persist()


@pytest.fixture(scope="module")
def rows(planted_night, histories):
    """(user_id or None, scenario) -> its candidates, item_id and all, by item_id."""
    return build(planted_night, histories, planted_night.config)


def build(planted_night, histories, config):
    settings = settings_of(planted_night, config)
    return by_list(planted_night.store, candidates.build(histories, planted_night.path, settings))


def settings_of(planted_night, config):
    return candidates.settings_of(config, world.AS_OF, rules.refresh(planted_night.store, config, world.AS_OF))


def by_list(store, frame) -> dict[tuple[str | None, str], dict[str, dict]]:
    named = frame.join(store.read(ITEM_INDEX), "item_idx").join(store.read(USER_INDEX), "user_idx", "left")
    found: dict[tuple[str | None, str], dict[str, dict]] = {}
    for row in named.collect():
        found.setdefault((row.user_id, row.scenario), {})[row.item_id] = row.asDict()
    return found


def with_rule(config: Config, name: str, **rule: object) -> Config:
    overrides = {**config.scenarios.overrides, name: ScenarioRule(**rule)}
    scenarios = config.scenarios.model_copy(update={"overrides": overrides})
    return config.model_copy(update={"scenarios": scenarios})


def test_every_user_gets_a_list_in_own_scenarios(planted_night, rows) -> None:
    planted = planted_night[0]
    expected = {(user, scenario) for scenario, user, *_ in planted.events}
    assert set(rows) == expected | {(None, world.RICH), (None, world.POOR)}
    assert all(len(found) >= 3 for found in rows.values())


def test_linear_finds_the_withheld_item_and_says_why(planted_night, rows) -> None:
    planted, store, *_ = planted_night
    ids = {row.item_idx: row.item_id for row in store.read(ITEM_INDEX).collect()}
    for user, missing in planted.withheld.items():
        row = rows[user, world.RICH][missing]
        assert row["linear_rank"] == 1 and row["source"] == "linear"
        taste = planted.tastes[user]
        assert planted.items[ids[row[EXPLAINING_ITEM]]][0] == taste  # an item of the user's own taste


def test_the_poor_scenario_learns_from_the_rich_one(planted_night, rows) -> None:
    """Poor users have two items each; linear's first item is of their taste, although no poor user has it."""
    planted = planted_night[0]
    for user, taste in planted.tastes.items():
        if user.startswith("poor"):
            found = rows[user, world.POOR]
            best = min((r for r in found.values() if r["linear_rank"] > 0), key=lambda r: r["linear_rank"])
            assert planted.items[best["item_id"]][0] == taste and best["scenario_idx"] == 0


def test_content_finds_the_item_that_nobody_bought(planted_night, rows) -> None:
    planted = planted_night[0]
    for user in planted.withheld:
        new = rows[user, world.RICH][planted.unsold[planted.tastes[user]]]
        assert new["content_rank"] in (1, 2)  # the withheld and the new one are the only ones of the taste
        assert np.isnan(new["linear_rank"]) and new["linear_score"] == 0
        assert planted.unsold[1 - planted.tastes[user]] not in rows[user, world.RICH]


def test_seen_items_are_excluded_or_allowed(planted_night, histories, rows) -> None:
    planted = planted_night.planted
    seen = {}
    for scenario, user, item, *_ in planted.events:
        seen.setdefault((user, scenario), set()).add(item)
    assert all(not seen[key] & set(found) for key, found in rows.items() if key[0])
    allowed = build(planted_night, histories, with_rule(planted_night.config, world.RICH, seen="allow"))
    assert all(seen[user, world.RICH] & set(allowed[user, world.RICH]) for user in planted.withheld)
    assert all(set(allowed[key]) == set(rows[key]) for key in rows if key[1] == world.POOR)


def test_the_default_user_gets_popular_items(planted_night, rows) -> None:
    for scenario in (world.RICH, world.POOR):
        found = sorted(rows[None, scenario].values(), key=lambda r: r["popular_rank"])
        assert [r["popular_rank"] for r in found] == [1, 2, 3, 4]
        assert all(r["source"] == "popular" and r[EXPLAINING_ITEM] == -1 and r["user_idx"] == -1 for r in found)
        assert all(np.isnan(r["linear_score"]) and np.isnan(r["content_score"]) for r in found)
        scores = [(-r["popular_score"], r["item_id"]) for r in found]
        assert scores == sorted(scores)  # ties by item_id


def test_features_and_scores_are_those_of_the_bundle(planted_night, rows) -> None:
    planted, store, *_, bundle = planted_night
    idx = {row.item_id: row.item_idx for row in store.read(ITEM_INDEX).collect()}
    user = "user-0-003"
    ages = {idx[item]: days - 0.5 for _, who, item, days, *_ in planted.events if who == user}  # events are at noon
    decayed = np.rint(2.0 ** (-np.array(list(ages.values())) / bundle.half_life_days) * LEVELS) / LEVELS
    for item, row in rows[user, world.RICH].items():
        assert row["linear_score"] == pytest.approx(decayed @ bundle.linear[list(ages), idx[item]], abs=1e-6)
        assert row["popular_score"] == pytest.approx(bundle.popular.of_group(1)[idx[item]], abs=1e-6)
        ranks = [row[f"{name}_rank"] for name in RETRIEVERS]
        assert row["source"] == RETRIEVERS[int(np.nanargmin(ranks))]


def test_partitions_and_blocks_change_nothing(planted_night, histories, rows) -> None:
    single = replace(candidates.settings_of(planted_night.config, world.AS_OF), block_users=1)
    run = partial(candidates._blocks, bundle_path=planted_night.path, settings=single)
    other = by_list(planted_night.store, histories.repartition(5, F.rand(1)).mapInArrow(run, TABLE.ddl))
    assert {key: set(found) for key, found in other.items()} == {key: set(found) for key, found in rows.items()}
    for key, found in rows.items():
        for item, row in found.items():
            for name, value in row.items():
                if isinstance(value, float):
                    assert other[key][item][name] == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True), name
                else:
                    assert other[key][item][name] == value, name


def with_places(config: Config, depth: int, k: int) -> Config:
    update = {
        "candidates": config.candidates.model_copy(update={"depth": depth}),
        "recommendations": config.recommendations.model_copy(update={"k": k}),
    }
    return config.model_copy(update=update)


def test_own_items_only_and_repeats_fill_the_list(planted_night, histories, rows) -> None:
    """The poor scenario sold 5 items of each taste. If K is above the number of unseen items, seen ones come last, the
    most recently seen first, as `repeat`."""
    planted, config = planted_night.planted, planted_night.config
    deep = with_places(config, 12, 9)
    sold = {item for scenario, _, item, *_ in planted.events if scenario == world.POOR}
    assert len(sold) == 10  # a user has seen 2 and not 8, so one seen item fills the nine places
    assert all(set(found) <= sold for (_, scenario), found in rows.items() if scenario == world.POOR)
    for (user, scenario), items in build(planted_night, histories, deep).items():
        if scenario != world.POOR or user is None:
            continue
        assert set(items) <= sold and len(items) == 9
        (repeat,) = [r for r in items.values() if r["source"] == REPEAT]
        latest = min((days, item) for s, who, item, days, *_ in planted.events if who == user)[1]
        assert repeat["item_id"] == latest and repeat[EXPLAINING_ITEM] == -1 and np.isnan(repeat["popular_rank"])


def test_more_places_than_items_are_refused(planted_night) -> None:
    _, _, config, *_, bundle = planted_night
    candidates.require_items(bundle, settings_of(planted_night, with_places(config, 18, 18)), [world.RICH])
    with pytest.raises(ConfigError, match=r"found 19, but scenario 'rich' has 18 known items; lower k$"):
        candidates.require_items(bundle, settings_of(planted_night, with_places(config, 19, 19)), [world.RICH])
    with pytest.raises(ConfigError, match=r"'new' has 0 items with an event there .*overrides.new.items: all"):
        candidates.require_items(bundle, settings_of(planted_night, with_rule(config, "new", items="own")), ["new"])


def test_a_rule_that_leaves_too_few_is_named(planted_night) -> None:
    ruled = with_rule(planted_night.config, world.RICH, where="item_id IN ('item-0-1', 'item-1-1')")
    candidates.require_items(planted_night.bundle, settings_of(planted_night, with_places(ruled, 2, 2)), [world.RICH])
    message = (
        r"recommendations.k: found 3, but scenario 'rich' has 2 known items that "
        r"`item_id IN \('item-0-1', 'item-1-1'\)` \(scenarios.overrides.rich.where\) leaves; "
        r"lower k, or make scenarios.overrides.rich.where leave more"
    )
    with pytest.raises(ConfigError, match=message):
        candidates.require_items(planted_night.bundle, settings_of(planted_night, ruled), [world.RICH])


def test_a_denied_item_is_in_no_list_of_its_scenario(planted_night, histories, rows) -> None:
    """item-0-3 should come first for users of taste 0 who have not seen it. Without it, one unseen item of their taste
    is left: the one that was never sold, now the first by content. The poor scenario, without the rule, keeps it."""
    ruled = with_rule(planted_night.config, world.RICH, where="item_id <> 'item-0-3'")
    found = build(planted_night, histories, ruled)
    missing = [user for user, item in planted_night.planted.withheld.items() if item == "item-0-3"]
    assert len(missing) == 5 and all("item-0-3" in rows[user, world.RICH] for user in missing)
    assert not any("item-0-3" in items for (_, scenario), items in found.items() if scenario == world.RICH)
    assert all(found[user, world.RICH]["item-0-new"]["content_rank"] == 1 for user in missing)
    assert all(set(found[key]) == set(rows[key]) for key in rows if key[1] == world.POOR)


def test_repeats_obey_the_rule(planted_night, histories) -> None:
    """poor-0-0 bought item-0-0 and, a day before, item-0-1. Of the ten items sold there, nine may be listed: the eight
    unseen ones, and item-0-1 again, although item-0-0 was bought later."""
    ruled = with_rule(planted_night.config, world.POOR, items="own", where="item_id NOT IN ('item-0-0', 'item-1-new')")
    found = build(planted_night, histories, with_places(ruled, 12, 9))["poor-0-0", world.POOR]
    assert len(found) == 9 and [i for i, row in found.items() if row["source"] == REPEAT] == ["item-0-1"]


def test_users_without_a_scenario_get_no_list(planted_night) -> None:
    """Not even their file is looked for; with a scenario it is."""
    store, config, path = planted_night.store, planted_night.config, planted_night.path
    users = {"format": "csv", "paths": ["nowhere.csv"], "user_id": "who"}
    users["features"] = {"age": {"kind": "number", "sql": "age"}}

    def with_users(**more) -> Config:
        source = {**config.source.model_dump(exclude={"users"}), "users": {**users, **more}}
        return Config.model_validate({**config.model_dump(exclude={"source"}), "source": source})

    read = histories_table.read_all(store, config, world.AS_OF)
    plain = candidates.tonight_of(store, config, read, world.AS_OF, path, None)
    known = candidates.tonight_of(store, with_users(), read, world.AS_OF, path, None)
    lists = [{tuple(row) for row in one.select("scenario", "user_idx").collect()} for one in (plain, known)]
    assert lists[0] == lists[1]
    print_of = partial(candidates._fingerprint, store, as_of=world.AS_OF, bundle_path=path, tonight=True)
    assert print_of(with_users(), rules=None, whole=True) == print_of(config, rules=None, whole=True)
    with pytest.raises(ConfigError, match=r"nowhere\.csv"):
        candidates.tonight_of(store, with_users(scenario="'rich'"), read, world.AS_OF, path, None)


def test_a_block_is_smaller_where_there_are_many_items() -> None:
    assert candidates.users_a_block(512, 3_665) == 512
    assert candidates.users_a_block(512, 1_000_000) == 33
    assert candidates.users_a_block(512, 1 << 30) == 1


def test_popular_keeps_to_the_limit_while_it_can(planted_night, histories) -> None:
    """The two most popular items of each taste; a limit of one leaves two places, for the best items over the limit."""
    bundle = planted_night.bundle
    ids = [row.item_id for row in planted_night.store.read(ITEM_INDEX).orderBy("item_idx").collect()]
    group = bundle.groups.tolist().index(bundle.scenarios[world.RICH])
    ranked = sorted(ids, key=lambda item: (-bundle.popular.of_group(group)[ids.index(item)], item))
    tastes = [[item for item in ranked if planted_night.planted.items[item][0] == taste] for taste in (0, 1)]
    for most in (1, 2):
        limit = AtMost(items=most, of="split(text, ' ')[0]")  # garden, kitchen
        found = build(planted_night, histories, with_rule(planted_night.config, world.RICH, at_most=limit))[
            None, world.RICH
        ]
        first = sorted((item for taste in tastes for item in taste[:most]), key=ranked.index)
        expected = first + [item for item in ranked if item not in first][: 4 - 2 * most]
        assert sorted(found, key=lambda item: found[item]["popular_rank"]) == expected


def test_what_is_pinned_is_found_for_everybody_who_has_not_seen_it(planted_night, histories) -> None:
    """Nobody bought `item-1-new`, so it is among the four best of no retriever for a user of the other taste. It is
    found as one of `popular`, behind its own four; in the other scenario nothing changes."""
    plain = build(planted_night, histories, planted_night.config)
    pin = Pin(where="item_id IN ('item-1-new', 'item-0-1')", rank=2)
    found = build(planted_night, histories, with_rule(planted_night.config, world.RICH, pin=(pin,)))
    lists = [key for key in found if key[1] == world.RICH]
    changed = {key for key in lists if found[key].keys() != plain[key].keys()}
    assert changed and all(str(found[key]) == str(plain[key]) for key in plain if key not in changed)
    for key in lists:
        added = found[key].keys() - plain[key].keys()
        assert added <= {"item-1-new", "item-0-1"} and len(added) <= 1
        assert {"item-1-new", "item-0-1"} & {i for i, row in found[key].items() if row["source"] != REPEAT}
        for item in added:
            assert (found[key][item]["source"], found[key][item]["popular_rank"]) == ("popular", 5.0)


def test_repeats_under_a_limit_are_as_many_as_may_be_needed(planted_night, histories) -> None:
    """A poor user has eight unseen items for nine places. Which of the two seen ones is within the limit depends on the
    order of the eight, so both are candidates."""
    limit = AtMost(items=1, of="item_id")
    ruled = with_rule(planted_night.config, world.POOR, items="own", at_most=limit)
    found = build(planted_night, histories, with_places(ruled, 12, 9))["poor-0-0", world.POOR]
    assert sorted(item for item, row in found.items() if row["source"] == REPEAT) == ["item-0-0", "item-0-1"]


def test_a_rule_of_tonight_leaves_past_dates_as_they_are(planted_night, monkeypatch) -> None:
    ruled = with_rule(planted_night.config, world.RICH, where="item_id <> 'item-0-3'")
    assert artifacts.find(planted_night.store, ruled, "retriever", world.AS_OF) == planted_night.path
    used: list[Settings] = []
    monkeypatch.setattr(candidates, "build", lambda histories, path, settings: used.append(settings))
    path = rules.refresh(planted_night.store, ruled, world.AS_OF)
    all_histories = histories_table.read_all(planted_night.store, ruled, world.AS_OF)
    candidates.tonight_of(planted_night.store, ruled, all_histories, world.AS_OF, planted_night.path, path)
    candidates.past_of(planted_night.store, ruled, all_histories, world.AS_OF, planted_night.path, True)
    assert [settings.rules.rule(world.RICH).where for settings in used] == ["item_id <> 'item-0-3'", None]
    stamps = {
        (tonight, config is ruled): candidates._fingerprint(
            planted_night.store, config, world.AS_OF, planted_night.path, tonight, written, True
        )
        for tonight, written in ((True, path), (False, None))
        for config in (ruled, planted_night.config)
    }
    assert stamps[False, True] == stamps[False, False] and stamps[True, True] != stamps[True, False]


def test_a_past_date_has_the_users_who_did_something_after_it(planted_night) -> None:
    """Two days before the end: who has an event on these days and one before is active, and half as many others come
    with them. `__default__` is there for those who came later."""
    planted, store, config, *_ = planted_night
    as_of = world.AS_OF - timedelta(days=2)
    all_histories = histories_table.read_all(store, config, world.AS_OF)
    frame, rates = candidates.past_of(store, config, all_histories, as_of, planted_night.path, True)
    found = {user for user, _ in by_list(store, frame)}
    known = {user for _, user, _, days_ago, *_ in planted.events if days_ago > 2}
    active = known & {user for _, user, _, days_ago, *_ in planted.events if days_ago <= 2}
    others = known - active
    assert None in found and active <= found - {None} <= known
    assert rates.others == pytest.approx(len(active) / 2 / len(others)) and 0 < rates.others < 1
    assert 0 < len(found - {None} - active) < len(others)


def test_what_users_did_after_a_past_date_moves_its_fingerprint_alone(spark, copy_hand_made) -> None:
    config = hand_made.config(copy_hand_made())

    def stamps() -> list[str]:
        store = Store(spark, config, "run")
        return [
            candidates._fingerprint(store, config, hand_made.WINDOW, "b", tonight, None, True)
            for tonight in (False, True)
        ]

    before = stamps()
    late = [hand_made.event("u3", "i4", hand_made.WINDOW + timedelta(days=1))]
    Store(spark, config, "late").append(INTERACTIONS, spark.createDataFrame(late, INTERACTIONS.schema))
    after = stamps()
    assert after[0] != before[0] and after[1] == before[1]


def test_refresh_writes_once(planted_night) -> None:
    _, store, config, *_ = planted_night
    first = candidates.refresh(store, config, world.AS_OF)
    assert not first.skipped and first.rows_out > 0
    again = candidates.refresh(store, config, world.AS_OF)
    assert again.skipped and again.rows_out == first.rows_out
    assert store.version(TABLE) == first.version
    assert store.read(TABLE).schema.simpleString() == TABLE.schema.simpleString()
    changed = config.retriever.model_copy(update={"popular": Popular(half_life_days=3.0)})
    other = config.model_copy(update={"retriever": changed})
    with pytest.raises(DataError, match=r"with these settings .* run jobs/retriever.py"):
        candidates.refresh(store, other, world.AS_OF)
