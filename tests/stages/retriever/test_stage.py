from collections import Counter
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recspark.config.retrievers import Linear
from recspark.errors import DataError, TrainingError
from recspark.stages.retriever import bundle as bundle_module
from recspark.stages.retriever import stage as retriever
from recspark.tables import histories
from recspark.tables.index import ITEM_INDEX, USER_INDEX
from recspark.warehouse import artifacts
from recspark.windows import as_ofs
from tests import world


def test_only_dates_with_earlier_events_are_built(planted_night) -> None:
    assert (
        planted_night.summary.rows_out == 1
        and not planted_night.summary.skipped
        and str(world.AS_OF) in planted_night.summary.note
    )
    settings = planted_night.config.training_examples
    dates = as_ofs(world.AS_OF, settings.label_days, settings.num_windows)
    found = [artifacts.find(planted_night.store, planted_night.config, "retriever", day) for day in dates]
    assert found == [planted_night.path, *[None] * settings.num_windows]


def test_the_same_night_again_is_skipped(planted_night) -> None:
    _, store, config, *_ = planted_night
    assert retriever.refresh(store, config, world.AS_OF).skipped
    other = config.retriever.model_copy(update={"linear": Linear(l2=7.0)})
    assert artifacts.find(store, config.model_copy(update={"retriever": other}), "retriever", world.AS_OF) is None


def test_groups_known_and_ties(planted_night) -> None:
    planted, store, *_, bundle = planted_night
    assert bundle.scenarios == {world.POOR: 0, world.RICH: 2}  # the poor one has 8 users, fewer than 20
    assert bundle.groups.tolist() == [0, 2] and len(bundle.popular.total) == 2
    assert bundle.popular.of_group(1).shape == (len(planted.items),)
    assert bundle.known.all()
    ids = {row.item_idx: row.item_id for row in store.read(ITEM_INDEX).collect()}
    assert [ids[i] for i in np.argsort(bundle.tie_rank)] == sorted(planted.items)


def test_linear_finds_the_withheld_item(planted_night) -> None:
    planted, store, *_, bundle = planted_night
    idx = {row.item_id: row.item_idx for row in store.read(ITEM_INDEX).collect()}
    for user, missing in planted.withheld.items():
        had = [idx[item] for _, who, item, *_ in planted.events if who == user]
        scores = bundle.linear[had].sum(axis=0)
        scores[had] = -np.inf
        assert np.argmax(scores) == idx[missing]


def test_users_with_too_many_events_are_named(planted_night, monkeypatch) -> None:
    """Some users have more events than others; those above the limit are found, the newest of their events count."""
    planted, store, config, *_ = planted_night
    sizes = Counter(user for _, user, *_ in planted.events)
    most = max(sizes.values()) - 1
    monkeypatch.setattr(histories, "MOST_EVENTS", most)
    busy = histories.busy_users(store, world.AS_OF)
    assert busy == sorted(user for user, size in sizes.items() if size > most) != []
    index = {row.user_id: row.user_idx for row in store.read(USER_INDEX).collect()}
    groups = histories.groups_in(planted_night.path)
    rows = histories.read(store, config, world.AS_OF, groups).collect()
    assert {row.user_idx for row in rows} == set(index.values())
    seen = {(index[user], item) for _, user, item, *_ in planted.events}
    items = {row.item_idx: row.item_id for row in store.read(ITEM_INDEX).collect()}
    assert {(row.user_idx, items[at]) for row in rows for at in row.item_idx} == seen


def test_own_items_of_a_scenario(planted_night) -> None:
    planted, store, *_, bundle = planted_night
    idx = {row.item_id: row.item_idx for row in store.read(ITEM_INDEX).collect()}
    expected = {idx[item] for scenario, _, item, *_ in planted.events if scenario == world.POOR}
    assert set(np.flatnonzero(bundle.own[world.POOR])) == expected and world.RICH not in bundle.own


def test_no_event_before_the_night(planted_night) -> None:
    _, store, config, *_ = planted_night
    with pytest.raises(DataError, match="no event before 2020-01-01"):
        retriever.refresh(store, config, date(2020, 1, 1))


@pytest.mark.parametrize("fault", [MemoryError("8.0 GiB"), np.linalg.LinAlgError("Singular matrix")])
def test_a_failure_of_linear_says_what_to_do(monkeypatch, fault) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(bundle_module.linear, "fit", fail)
    with pytest.raises(TrainingError, match=rf"retriever.linear: 3 items with 3 pairs.*{fault}.*co_occurrence"):
        bundle_module._linear(sp.identity(3, format="csr"), Linear())


def test_item_arrays_by_hand() -> None:
    """Item 1 is not known at the date; ties go a, b; item 3 has no vector."""
    cell = np.array([3.0, 4.0], dtype="<f4").tobytes()
    rows = pa.table({
        "item_id": ["b", "a", "c"],
        "item_idx": pa.array([0, 2, 3], pa.int32()),
        "embedding_0": pa.array([cell, cell, None]),
    })  # fmt: skip
    found, parts = bundle_module.item_arrays(rows, 4, ["float32"])
    assert parts == [2]
    assert found["known"].tolist() == [True, False, True, True]
    assert found["tie_rank"].tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(found["content"], [[0.6, 0.8], [0, 0], [0.6, 0.8], [0, 0]], rtol=1e-6)
    without, parts = bundle_module.item_arrays(
        rows.set_column(2, "embedding_0", pa.nulls(3, pa.binary())), 4, ["float32"]
    )
    assert parts == [1]
    assert without["content"].shape == (4, 1) and not without["content"].any()


def test_encoders_count_alike_and_a_missing_one_leaves_the_other() -> None:
    """(3, 4) and (0, 0, 7) at length 1 each, and together: / sqrt 2. The second item has the second vector only."""
    first, second = (np.array(v, dtype="<f4").tobytes() for v in ([3.0, 4.0], [0.0, 0.0, 7.0]))
    rows = pa.table({
        "item_id": ["a", "b"],
        "item_idx": pa.array([0, 1], pa.int32()),
        "embedding_0": pa.array([first, None]),
        "embedding_1": pa.array([second, second]),
    })  # fmt: skip
    found, parts = bundle_module.item_arrays(rows, 2, ["float32"] * 2)
    assert parts == [2, 3]
    half = 2**-0.5
    np.testing.assert_allclose(found["content"], [[0.6 * half, 0.8 * half, 0, 0, half], [0, 0, 0, 0, 1]], rtol=1e-6)


def test_bundle_is_frozen(planted_night) -> None:
    bundle = planted_night.bundle
    assert replace(bundle, as_of_day=0) is not bundle
    with pytest.raises(ValueError, match="read-only"):
        bundle.linear[0, 0] = 1.0
