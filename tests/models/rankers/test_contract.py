"""The contract of every torch ranker: a new one is added to catalogue.BODIES, and these tests run for it too.

Trained once each, by the whole path of a night's training, on scenarios that want the opposite of each other.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch

from recspark import model_folder
from recspark.config.rankers import Ranker
from recspark.metrics import auc
from recspark.models.layers import RowNoise
from recspark.models.rankers.catalogue import BODIES
from recspark.models.rankers.network import Network, build
from recspark.training.feed.feed import Batch
from recspark.training.ranking import loop, quantise, saved, scoring
from recspark.training.ranking.fit import BatchPreparer, train_all
from recspark.training.ranking.job import INTS, RankerModel
from tests.training import planted

TASKS = (planted.task("click"), planted.task("view", loss_weight=0.5))
UNSEEN = 99
CPU = torch.device("cpu")


class Trained(NamedTuple):
    folder: str
    window: planted.Window
    prepare_batch: BatchPreparer
    network: Network


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> planted.Window:
    return planted.window(tmp_path_factory.mktemp("window"), 4500, rows=planted.opposed)


@pytest.fixture(scope="module", params=BODIES)
def trained(
    request: pytest.FixtureRequest, window: planted.Window, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = str(tmp_path_factory.mktemp(request.param) / "model")
    asked = planted.job((RankerModel("evaluated", folder, (window,)),), model=request.param, max_epochs=10, patience=10)
    train_all(replace(asked, tasks=TASKS))
    prepare_batch = BatchPreparer(planted.FEATURES, TASKS, (window,), planted.SETTINGS.history_length)
    return Trained(folder, window, prepare_batch, saved.load(folder))


def batch(num_rows: int = 2000, scenario: int | None = None, seed: int = 99) -> Batch:
    """Fresh rows, which no training saw; with `scenario`, all of them there."""
    rows = planted.opposed(num_rows, seed)
    if scenario is not None:
        rows["scenario_idx"][:] = scenario
    ints = np.stack([rows[name] for name in INTS], axis=1)
    floats = np.stack([rows[name] for name in (*planted.FEATURES, "label_click", "label_view")], axis=1)
    return Batch(ints, floats, rows["weight"], num_rows)


def chosen(rows: Batch, where: np.ndarray) -> Batch:
    return Batch(rows.ints[where], rows.floats[where], rows.weights[where], len(where))


def scores(trained: Trained, rows: Batch) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(trained.network(trained.prepare_batch(rows)[0])).double().numpy()


def test_the_configuration_names_the_list() -> None:
    assert set(get_args(Ranker.model_fields["model"].annotation)) == set(BODIES)


def test_one_line_for_all_scenarios_learns_nothing() -> None:
    rows = planted.opposed(20_000, seed=0)
    dense = np.column_stack([np.nan_to_num(rows[name]) for name in planted.FEATURES])
    line, *_ = np.linalg.lstsq(dense, rows["label_click"] - 0.5, rcond=None)
    assert abs(auc(rows["label_click"], dense @ line) - 0.5) < 0.03


def test_learns_what_each_scenario_wants(trained: Trained) -> None:
    assert trained.network.spec.model in type(trained.network.body).__module__
    rows = batch()
    found = scores(trained, rows)
    for scenario in (0, 1, 2, 4):
        here = rows.ints[:, 1] == scenario
        assert auc(rows.floats[here, 3], found[here, 0]) > 0.85, scenario  # 0.95 is the best there is
        assert auc(rows.floats[here, 4], found[here, 1]) > 0.9, scenario


def test_an_unseen_scenario_gets_what_the_others_agree_on(trained: Trained) -> None:
    rows = batch(scenario=UNSEEN)
    found = scores(trained, rows)
    assert auc(rows.floats[:, 4], found[:, 1]) > 0.8
    assert 0.2 < auc(rows.floats[:, 3], found[:, 0]) < 0.8  # the scenarios want opposite tastes
    np.testing.assert_array_equal(found, scores(trained, batch(scenario=UNSEEN + 1)))


def test_a_row_has_one_score_alone_in_any_batch_and_in_any_order(trained: Trained) -> None:
    rows = batch(300)
    rows.ints[::7, 1] = UNSEEN
    whole = scores(trained, rows)
    order = np.random.default_rng(2).permutation(300)
    alone = np.concatenate([scores(trained, chosen(rows, np.array([n]))) for n in range(0, 300, 3)])
    np.testing.assert_allclose(alone, whole[::3], atol=1e-6, rtol=0)
    np.testing.assert_allclose(scores(trained, chosen(rows, order)), whole[order], atol=1e-6, rtol=0)


def test_the_scorer_gives_the_first_task(trained: Trained) -> None:
    rows = batch(200)
    _, scenario, user, item = rows.ints.T
    folders = (trained.folder, trained.window.histories, trained.window.bundle, planted.DAY)
    found = scoring.probabilities(*folders, rows.floats[:, :3], (scenario, user, item))
    np.testing.assert_allclose(found, scores(trained, rows)[:, 0], atol=1e-6, rtol=0)


def test_saved_is_fresh(trained: Trained, tmp_path: Path) -> None:
    saved.save(f"{tmp_path}/again", trained.network, {})
    again = trained._replace(network=saved.load(f"{tmp_path}/again"))
    np.testing.assert_array_equal(scores(again, batch(200)), scores(trained, batch(200)))


def small(trained: Trained) -> Trained:
    """The same in 8 bits."""
    inputs, _ = trained.prepare_batch(batch(1000, seed=7))
    return trained._replace(network=saved.rounded(trained.network, lambda network: network(inputs)))


def test_eight_bits_keep_the_order(trained: Trained, tmp_path: Path) -> None:
    eight, rows = small(trained), batch()
    saved.save(f"{tmp_path}/small", eight.network, {})
    weights = model_folder.read_weights(f"{tmp_path}/small")
    assert weights["encoder.item_id.weight"].dtype == np.int8
    exact, rounded = scores(trained, rows), scores(eight, rows)
    assert 0 < np.abs(exact - rounded).max() < 0.2
    found = quantise.cost(rows.floats[:, 3], rows.ints[:, 1:2], exact[:, 0], rounded[:, 0], k=100)
    assert abs(found["auc_loss"]) < 0.01 and found["top_overlap"] > 0.5
    again = trained._replace(network=saved.load(f"{tmp_path}/small"))
    np.testing.assert_array_equal(scores(again, rows), rounded)


def test_in_eight_bits_a_row_has_one_score_too(trained: Trained) -> None:
    eight, rows = small(trained), batch(300)
    whole, order = scores(eight, rows), np.random.default_rng(2).permutation(300)
    alone = np.concatenate([scores(eight, chosen(rows, np.array([n]))) for n in range(0, 300, 3)])
    np.testing.assert_allclose(alone, whole[::3], atol=1e-6, rtol=0)
    np.testing.assert_allclose(scores(eight, chosen(rows, order)), whole[order], atol=1e-6, rtol=0)


def test_unknown_features_items_and_users_have_finite_scores(trained: Trained) -> None:
    rows = batch(60)
    rows.floats[:20, :3] = np.nan
    rows.floats[20:30, :3] = np.inf
    rows.ints[10:40, 2] = planted.NUM_USERS + 7  # no history
    rows.ints[30:, 3] = planted.NUM_ITEMS + 5
    assert np.isfinite(scores(trained, rows)).all()


def gradients(trained: Trained, rows: Batch, rank: int, world_size: int) -> list[torch.Tensor]:
    """Gradients of the loss sums with dropout, as one rank of several computes them."""
    network = build(replace(trained.network.spec, dropout=0.5), seed=1)
    network.load_state_dict(trained.network.state_dict())
    noise = RowNoise(torch.Generator().manual_seed(3), rank, world_size)
    mine = chosen(rows, np.arange(rank, rows.size, world_size))
    sums_T, _ = loop._sums(network, (mine, *trained.prepare_batch(mine)), CPU, noise)
    sums_T.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())  # so every rank sends as many
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_two_ranks_have_the_gradients_of_one(trained: Trained) -> None:
    rows = batch(64)
    whole, first, second = (gradients(trained, rows, *place) for place in ((0, 1), (0, 2), (1, 2)))
    for mine, one, other in zip(whole, first, second, strict=True):
        torch.testing.assert_close(one + other, mine, atol=1e-4, rtol=1e-4)
    assert sum(float(gradient.abs().sum()) for gradient in whole) > 1


def test_a_task_without_any_label_adds_no_loss(trained: Trained) -> None:
    rows = batch(64)
    rows.floats[:, 4] = np.nan
    inputs, targets = trained.prepare_batch(rows)
    sums_T, weights_T = loop._sums(trained.network, (rows, inputs, targets), CPU, None)
    assert torch.isfinite(sums_T).all() and weights_T.tolist() == [64, 0]


def test_building_is_seeded_and_leaves_the_global_generator(trained: Trained) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, other, third = (build(trained.network.spec, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, third[name]) for name, tensor in one.items())
