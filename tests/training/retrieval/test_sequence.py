from pathlib import Path

import numpy as np
import pytest

from recspark.config.retrievers import Sequence
from recspark.histories import Histories
from recspark.models.retrievers import sequence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.sequence_network import build
from recspark.training.retrieval import sequence as sequence_training
from recspark.training.retrieval.sequence import Plan

SETTINGS = Sequence(dim=8, layers=1, heads=2, length=5, dropout=0.2, negatives=6, max_epochs=4)
CATALOGUE = Catalogue(12, 2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "BATCH_USERS", 32)


def world(users: str, items: str) -> Histories:
    """40 users, six events each in two scenarios. Users (items) are `shared`: both scenarios have them, or `apart`."""
    rng = np.random.default_rng(0)
    scenario = np.tile([0, 0, 0, 1, 1, 1], 40) if users == "shared" else np.repeat(np.arange(40) % 2, 6)
    item = rng.integers(0, 6, 240) + (6 * scenario if items == "apart" else 0)
    ones = np.ones(240)
    return Histories(np.arange(41) * 6, item, scenario, np.tile(np.arange(6.0), 40), ones, ones, ones)


def flat_weights(model: sequence.Model) -> np.ndarray:
    return np.concatenate([array.ravel() for _, array in sorted(model.weights.items())])


def test_a_killed_training_resumes(tmp_path: Path) -> None:
    """Killed in its third validation, after the best one; the same call again ends with the weights of a training that
    was not killed."""
    histories, plan, calls = world("shared", "apart"), Plan(every=1, patience=9), []

    def validate(model: sequence.Model) -> float:
        calls.append(1)
        return [1.0, 5.0, 3.0, 2.0][len(calls) - 1]

    def killed(model: sequence.Model) -> float:
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(model)

    uninterrupted = sequence_training.train(histories, CATALOGUE, SETTINGS, plan, 0, str(tmp_path / "a"), validate)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        sequence_training.train(histories, CATALOGUE, SETTINGS, plan, 0, str(tmp_path / "b"), killed)
    lines: list[str] = []
    again = sequence_training.train(
        histories, CATALOGUE, SETTINGS, plan, 0, str(tmp_path / "b"), validate, lines.append
    )
    assert lines[0] == "joint: resumed after epoch 2" and "loss" in lines[1] and "valid 3" in lines[1]
    np.testing.assert_array_equal(flat_weights(again), flat_weights(uninterrupted))


def test_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    """Validation 1, 3, 2, 2: after two figures in a row below 3 the second epoch's weights win."""
    histories, seen = world("shared", "apart"), []

    def validate(model: sequence.Model) -> float:
        seen.append(flat_weights(model))
        return [1.0, 3.0, 2.0, 2.0][len(seen) - 1]

    plan = Plan(every=1, patience=2)
    settings = SETTINGS.model_copy(update={"max_epochs": 20})
    best = sequence_training.train(histories, CATALOGUE, settings, plan, 0, str(tmp_path), validate)
    assert len(seen) == 4
    np.testing.assert_array_equal(flat_weights(best), seen[1])


@pytest.mark.parametrize("items", ["shared", "apart"])
@pytest.mark.parametrize("users", ["shared", "apart"])
@pytest.mark.parametrize("mode", ["joint", "adapter", "finetune", "single"])
def test_every_transfer_works_whatever_overlaps(users: str, items: str, mode: str, tmp_path: Path) -> None:
    histories = world(users, items)
    target = 1 if mode in ("finetune", "single") else None
    plan, settings = Plan(target), SETTINGS.model_copy(update={"max_epochs": 1, "mode": mode})
    model = sequence_training.train(histories, CATALOGUE, settings, plan, 0, str(tmp_path), lambda _: 0.0)
    found = sequence.scores(model, histories, np.ones(40, dtype=np.int64), np.full(40, 6.0))
    assert found.shape == (40, 12) and np.isfinite(found).all()
    assert ("adapter_down" in model.weights) == (mode == "adapter")


def test_only_shared_parts_are_copied() -> None:
    """Source and target differ everywhere at first; afterwards the blocks and the source's items are the source's, and
    scenario embeddings and other items are the target's own."""
    source, target = (build(SETTINGS, CATALOGUE, np.arange(12), seed) for seed in (1, 2))
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    sequence_training.copy_shared(source, target, np.array([0, 5]))
    after, given = target.state_dict(), source.state_dict()
    assert after["blocks.0.to_qkv.weight"].equal(given["blocks.0.to_qkv.weight"])
    for name in ("event_scenario.weight", "query_scenario.weight"):
        assert after[name].equal(before[name]) and not after[name].equal(given[name])
    for code in range(1, 13):
        expected = given if code in (1, 6) else before
        assert after["item.weight"][code].equal(expected["item.weight"][code])
