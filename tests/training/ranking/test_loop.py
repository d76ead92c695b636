"""Training: two ranks = one rank, killed = not killed, a planted signal is learnt, divergence is an error."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from recspark import model_folder
from recspark.errors import DataError, TrainingError
from recspark.metrics import auc
from recspark.training import checkpoint
from recspark.training.feed.feed import Batch
from recspark.training.ranking import fit, loop, saved
from recspark.training.ranking.fit import BatchPreparer, train_all
from recspark.training.ranking.job import INTS, RankerJob, RankerModel
from tests.training import planted
from tests.training.ranking.predicted import logits, scores


def test_learns_the_planted_signal_and_turns_it_round_where_the_scenario_does(tmp_path: Path) -> None:
    window = planted.window(tmp_path, num_rows=9000)
    model = RankerModel("evaluated", f"{tmp_path}/model", (window,))
    answer = train_all(planted.job((model,), max_epochs=8, dropout=0.0))
    assert set(answer["models"]) == {"evaluated"}
    rows, score = planted.columns(2000, seed=99), scores(model.folder, window)
    for scenario in (0, 1, 2):
        here = rows["scenario_idx"] == scenario
        clicked = rows["label_click"][here] > 0
        better = score[here][clicked][:, None] > score[here][~clicked][None, :]
        assert better.mean() > 0.95, scenario  # the AUC: 0.5 without the scenario's own taste
    spend = logits(model.folder, window)[:, 1]
    assert torch.isfinite(spend).all()  # learnt from clicked rows alone, all at log(1 + 10)


def test_a_training_is_stopped_by_the_task_that_ranks(tmp_path: Path) -> None:
    """The validation loss is the click's cross-entropy; and where no click has a label, the spend's Huber loss."""
    window = planted.window(tmp_path, num_rows=600)
    model = RankerModel("evaluated", f"{tmp_path}/model", (window,))
    train_all(planted.job((model,)))
    network, rows = saved.load(model.folder), planted.columns(600, seed=3)
    ints = np.stack([rows[name] for name in INTS], axis=1)
    floats = np.stack([rows[name] for name in (*planted.FEATURES, "label_click", "label_spend")], axis=1)
    batch = Batch(ints, floats, rows["weight"], 600)
    prepare_batch = BatchPreparer(planted.FEATURES, planted.TASKS, (window,), 3)

    class One:
        num_steps = 1

        def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
            yield batch

    with torch.inference_mode():
        chance = torch.sigmoid(network(prepare_batch(batch)[0])[:, 0]).double().numpy()
    click, weight = rows["label_click"], rows["weight"]
    by_hand = -np.average(np.log(np.where(click > 0, chance, 1 - chance)), weights=weight)
    assert loop.evaluate(network, One(), prepare_batch) == pytest.approx(by_hand, rel=1e-5)
    floats[:, len(planted.FEATURES)] = np.nan
    assert loop.evaluate(network, One(), prepare_batch) not in (0.0, pytest.approx(by_hand, rel=0.01))


@pytest.mark.parametrize(("rows", "expected"), [(0, 256), (100, 256), (330_757, 1024), (10**9, 8192)])
def test_a_batch_is_of_some_three_hundredth_of_the_rows(rows: int, expected: int) -> None:
    """330,757 / 300 = 1,103, next to 2^10; never below 256 or above 8,192."""
    assert fit.batch_size(rows) == expected


@pytest.mark.parametrize("folds", ([1, 2], [fit.STOP_FOLD]))
def test_where_only_some_folds_have_users_all_rows_train_and_stop(tmp_path: Path, folds: list[int]) -> None:
    """Small data: no user by whom to stop, or nobody else."""

    def few(num_rows: int, seed: int, day: int) -> dict[str, Any]:
        rows = planted.columns(num_rows, seed, day)
        return rows | {"fold": np.array(folds, np.int32)[rows["user_idx"] % len(folds)]}

    window = planted.window(tmp_path, num_rows=600, rows=few)
    answer = train_all(planted.job((RankerModel("evaluated", f"{tmp_path}/model", (window,)),)))
    assert answer["models"]["evaluated"]["rows"] == 600


def two_ranks(rank: int, job: RankerJob, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": str(rank)}
    os.environ["MASTER_PORT"] = Path(folder, "port").read_text()
    train_all(job)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_ranks_are_one_rank(tmp_path: Path) -> None:
    """Real processes over gloo, with dropout, an odd number of rows and early stopping."""
    window = planted.window(tmp_path)
    Path(tmp_path, "port").write_text(str(free_port()))
    one, two = (RankerModel("evaluated", f"{tmp_path}/{name}", (window,)) for name in ("one", "two"))
    train_all(planted.job((one,)))
    mp.start_processes(two_ranks, args=(planted.job((two,)), str(tmp_path)), nprocs=2, start_method="spawn")
    np.testing.assert_allclose(scores(one.folder, window), scores(two.folder, window), atol=1e-5)
    histories = [model_folder.read_manifest(model.folder)["training"]["history"] for model in (one, two)]
    for mine, other in zip(*histories, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert mine["valid_loss"] == pytest.approx(other["valid_loss"], abs=1e-5)


KILLED = """
import os, pickle, signal, sys
from recspark.training.ranking import fit, loop
real, steps = loop._step, [0]
def step(*args):
    steps[0] += 1
    if steps[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
loop._step = step
with open(sys.argv[1], "rb") as file:
    fit.train_all(pickle.load(file))
"""


@pytest.mark.parametrize("at", [8, 19])  # 11 steps an epoch, a checkpoint every 5 steps
def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path, at: int) -> None:
    window = planted.window(tmp_path)
    calm, killed = (RankerModel("evaluated", f"{tmp_path}/{name}", (window,)) for name in ("calm", "killed"))
    train_all(planted.job((calm,), checkpoint_steps=5))
    job = planted.job((killed,), checkpoint_steps=5)
    Path(tmp_path, "job").write_bytes(pickle.dumps(job))
    done = subprocess.run([sys.executable, "-c", KILLED, f"{tmp_path}/job", str(at)], check=False, cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    assert not model_folder.exists(killed.folder)
    found = checkpoint.latest_step(f"{killed.folder}/steps")
    assert found is not None and found[0]["progress"]["taken"] == {8: 5, 19: 15}[at]
    train_all(job)
    one, other = model_folder.read_weights(calm.folder), model_folder.read_weights(killed.folder)
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, other[name], err_msg=name)
    histories = [model_folder.read_manifest(model.folder)["training"]["history"] for model in (calm, killed)]
    assert histories[0] == histories[1]
    assert not Path(killed.folder, "steps").exists()


def test_a_diverging_loss_stops_with_its_step_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = planted.window(tmp_path)
    model = RankerModel("evaluated", f"{tmp_path}/model", (window,))
    real, calls = loop.losses.sums, []

    def sums(*args: Any) -> tuple[Any, torch.Tensor]:
        calls.append(1)
        totals, weights = real(*args)
        return (totals * float("nan") if len(calls) == 8 else totals), weights

    monkeypatch.setattr(loop.losses, "sums", sums)
    with pytest.raises(TrainingError, match=r"^loss is nan, gradient norm nan in epoch 1, step 7 \(learning rate 0.01"):
        train_all(planted.job((model,), checkpoint_steps=5))
    found = checkpoint.latest_step(f"{model.folder}/steps")
    assert found is not None and found[0]["progress"]["taken"] == 5
    assert all(np.isfinite(array).all() or "starts_FK" in name for name, array in found[1].items())
    assert not model_folder.exists(model.folder)


def test_a_label_out_of_range_stops_with_its_task(tmp_path: Path) -> None:
    def counts(num_rows: int, seed: int, day: int) -> dict[str, np.ndarray]:
        rows = planted.columns(num_rows, seed, day)
        return rows | {"label_click": rows["label_click"] * 2}

    window = planted.window(tmp_path, 600, rows=counts)
    with pytest.raises(DataError, match=r"^label click \(binary\): found 2 in "):
        train_all(planted.job((RankerModel("evaluated", f"{tmp_path}/model", (window,)),)))


def test_a_task_without_any_label_has_no_part(tmp_path: Path) -> None:
    """With learnt weights too: without a loss, nothing else may pull at its variance."""

    def unlabelled(num_rows: int, seed: int, day: int) -> dict[str, np.ndarray]:
        return planted.columns(num_rows, seed, day) | {"label_spend": np.full(num_rows, np.nan, np.float32)}

    window = planted.window(tmp_path, 600, rows=unlabelled)
    for weighting in ("fixed", "uncertainty"):
        model = RankerModel("evaluated", f"{tmp_path}/{weighting}", (window,))
        train_all(planted.job((model,), task_weighting=weighting, weight_decay=0.0))
        assert all(np.isfinite(entry["loss"]) for entry in read_history(model))
        assert np.isfinite(logits(model.folder, window).numpy()).all()
    variances = model_folder.read_weights(f"{tmp_path}/uncertainty")["log_variance_T"]
    assert variances[0] != 0 and variances[1] == 0


def test_a_noisy_task_loses_weight(tmp_path: Path) -> None:
    """Clicks follow from the features, views are coins: the variance of views ends above that of clicks."""

    def coins(num_rows: int, seed: int, day: int) -> dict[str, np.ndarray]:
        views = np.random.default_rng(seed + 50).random(num_rows) < 0.5
        return planted.columns(num_rows, seed, day) | {"label_view": views.astype(np.float32)}

    window = planted.window(tmp_path, rows=coins)
    model = RankerModel("evaluated", f"{tmp_path}/model", (window,))
    tasks = (planted.task("click"), planted.task("view"))
    train_all(planted.job((model,), tasks, task_weighting="uncertainty", max_epochs=4, patience=4))
    clicks, views = model_folder.read_weights(model.folder)["log_variance_T"]
    assert views > clicks + 0.05


def test_a_funnel_learns_from_all_rows_what_clicked_ones_do(tmp_path: Path) -> None:
    """Who clicked buys where there is much noise: P(buy) = P(click) P(buy | click), below P(click) in every row."""

    def funnel(num_rows: int, seed: int, day: int) -> dict[str, np.ndarray]:
        rows = planted.columns(num_rows, seed, day)
        return rows | {"label_buy": rows["label_click"] * (rows["noise"] > 0)}

    window = planted.window(tmp_path, 6000, rows=funnel)
    model = RankerModel("evaluated", f"{tmp_path}/model", (window,))
    tasks = (planted.task("buy", given="click"), planted.task("click"))  # the first one ranks
    train_all(planted.job((model,), tasks, max_epochs=6, dropout=0.0))
    assert saved.load(model.folder).spec.given == (1, -1)
    rows, found = funnel(2000, 99, planted.DAY), logits(model.folder, window)
    assert (found[:, 0] < found[:, 1]).all()
    assert auc(rows["label_buy"], found[:, 0].numpy()) > 0.95


def test_eight_bits_say_what_they_cost(tmp_path: Path) -> None:
    window = planted.window(tmp_path)
    exact, small = (RankerModel("evaluated", f"{tmp_path}/{name}", (window,)) for name in ("exact", "small"))
    train_all(planted.job((exact,)))
    train_all(planted.job((small,), int8=True))
    cost = model_folder.read_manifest(small.folder)["int8"]
    assert abs(cost["auc_loss"]) < 0.01 and 0.8 < cost["top_overlap"] <= 1
    assert "int8" not in model_folder.read_manifest(exact.folder)
    difference = np.abs(scores(exact.folder, window) - scores(small.folder, window)).max()
    assert 0 < difference < 0.05


def read_history(model: RankerModel) -> list[dict[str, float]]:
    return list(model_folder.read_manifest(model.folder)["training"]["history"])


def test_published_takes_the_epochs_of_evaluated_and_all_rows(tmp_path: Path) -> None:
    newest, older = planted.window(tmp_path, 600, planted.DAY), planted.window(tmp_path, 600, planted.DAY - 28, seed=5)
    evaluated = RankerModel("evaluated", f"{tmp_path}/e", (older,))
    published = RankerModel("published", f"{tmp_path}/p", (newest, older), epochs_of="evaluated")
    done = train_all(planted.job((evaluated, published), max_epochs=4, patience=1))["models"]
    assert done["published"]["num_epochs"] == len(done["published"]["history"]) == done["evaluated"]["num_epochs"]
    assert "valid_loss" not in done["published"]["history"][0]
    assert done["published"]["rows"] == 1200
    assert done["evaluated"]["rows"] < 600  # without the tenth that stops it
    losses = [entry["valid_loss"] for entry in done["evaluated"]["history"]]
    assert done["evaluated"]["num_epochs"] == 1 + losses.index(min(losses))
