"""The shared-bottom ranker: a row has one score; a scenario's own head counts more with more data."""

from pathlib import Path

import numpy as np
import torch

from recspark.models.layers import Inputs, look_up
from recspark.models.rankers.network import Network, build
from recspark.models.rankers.spec import Spec
from recspark.training.ranking import saved

SPEC = Spec(
    features=("a", "b", "c"), tasks=("click", "spend"), kinds=("binary", "regression"), num_items=30, num_scenarios=4,
    num_missing=1, content_dim=5, embedding_dim=8, hidden=(32, 16), history_length=6, dropout=0.5,
)  # fmt: skip
CONTENT = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


def rows(num_rows: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(num_rows, 3)).astype(np.float32)
    dense[::3, 1] = np.nan
    history = rng.integers(-1, 40, (num_rows, 6)).astype(np.int32)
    scenario, item = rng.integers(0, 6, num_rows), rng.integers(0, 40, num_rows)
    return {"dense": dense, "scenario": scenario, "item": item, "history": history}


def inputs(chosen: dict[str, np.ndarray], where: slice | np.ndarray = slice(None)) -> Inputs:
    return look_up(
        chosen["dense"][where], chosen["scenario"][where], chosen["item"][where], chosen["history"][where], CONTENT
    )


def model() -> Network:
    """Fitted constants and random scenario heads, as if trained."""
    chosen, network = rows(), build(SPEC, seed=0)
    targets = np.column_stack([(np.arange(300) % 4 == 0), np.arange(300)]).astype(np.float32)
    network.fit(chosen["dense"], np.minimum(chosen["scenario"], 3), targets)
    torch.nn.init.normal_(network.body.head.own.weight, generator=torch.Generator().manual_seed(0))
    return network.eval()


def test_a_row_has_one_score_alone_in_any_batch_and_in_any_order() -> None:
    network, chosen = model(), rows()
    with torch.inference_mode():
        whole = torch.sigmoid(network(inputs(chosen)))
        alone = torch.cat([torch.sigmoid(network(inputs(chosen, slice(n, n + 1)))) for n in range(300)])
        order = np.random.default_rng(2).permutation(300)
        mixed = torch.sigmoid(network(inputs(chosen, order)))
    assert (whole - alone).abs().max() < 1e-6
    assert (whole[order] - mixed).abs().max() < 1e-6
    assert whole[:, 0].std() > 0.01


def test_trust_is_the_share_of_positives_against_a_prior_of_100() -> None:
    network = build(SPEC, seed=0)
    scenario = np.repeat([1, 2], [400, 50])
    targets = np.column_stack([np.r_[np.ones(300), np.zeros(150)], np.r_[np.full(225, 2.0), np.full(225, 4.0)]])
    dense = np.zeros((450, 3), np.float32)
    dense[0, 1] = np.nan  # by SPEC one feature can be missing
    network.fit(dense, scenario, targets.astype(np.float32))
    np.testing.assert_allclose(network.body.head.trust_S, [0, 300 / 400, 0, 0])
    np.testing.assert_allclose(network.target_mean_T, [0, 3])
    np.testing.assert_allclose(network.target_std_T, [1, 1])


def test_a_scenario_without_data_keeps_to_the_shared_head() -> None:
    network, chosen = model(), rows()
    network.body.head.trust_S[2] = 0.0
    with torch.inference_mode():
        before = network(inputs(chosen))
        network.body.head.own.weight += 1.0
        after = network(inputs(chosen))
    moved = (before - after).abs().sum(dim=1) > 0
    assert moved.tolist() == [s in (0, 1, 3) for s in chosen["scenario"]]  # 4 and 5 were never seen


def test_saved_is_fresh(tmp_path: Path) -> None:
    network, chosen = model(), rows()
    saved.save(f"{tmp_path}/model", network, {"note": "x"})
    again = saved.load(f"{tmp_path}/model")
    assert again.spec == network.spec
    with torch.inference_mode():
        assert torch.equal(network(inputs(chosen)), again(inputs(chosen)))


def test_building_is_seeded_and_leaves_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, other, third = build(SPEC, 0), build(SPEC, 0), build(SPEC, 1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.body.head.shared.weight, other.body.head.shared.weight)
    assert not torch.equal(one.body.head.shared.weight, third.body.head.shared.weight)
