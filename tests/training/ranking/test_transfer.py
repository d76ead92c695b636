"""Transfer on planted rows: each mode by what it is for, and its parts by hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recspark import model_folder
from recspark.errors import ConfigError, TrainingError
from recspark.metrics import auc
from recspark.models.rankers import network as networks
from recspark.models.rankers.catalogue import BODIES
from recspark.training.feed.feed import Batch
from recspark.training.ranking import alignment, loop, saved, transfer
from recspark.training.ranking.fit import BatchPreparer, train_all
from recspark.training.ranking.job import INTS, RankerModel, Window
from tests.training import planted

TARGET = 1
TASKS = (planted.task("click"),)
QUICK = {"max_epochs": 6, "patience": 6, "dropout": 0.0}


def rows(num_rows: int, seed: int, day: int = planted.DAY) -> dict[str, np.ndarray]:
    """Clicks at taste > 0, everywhere; one row in twenty is scenario 1's, the target's, where gaps are never missing
    and noise lies higher by 2 (in the other two by 0). A tenth of the clicks are turned round."""
    rng = np.random.default_rng((seed, 2))
    found = planted.columns(num_rows, seed, day)
    target = rng.random(num_rows) < 0.05
    scenario = np.where(target, TARGET, np.where(rng.random(num_rows) < 0.5, 0, 2))
    click = (found["taste"] > 0) ^ (rng.random(num_rows) < 0.1)
    changed = {
        "scenario_idx": scenario.astype(np.int32),
        "label_click": click.astype(np.float32),
        "noise": (found["noise"] + 2 * target).astype(np.float32),
        "weight": np.ones(num_rows, np.float32),
    }
    return found | changed


def batch(num_rows: int = 3000, scenario: int | None = TARGET, seed: int = 77) -> Batch:
    """Fresh rows; with `scenario`, that one's only."""
    found = rows(num_rows * (20 if scenario is not None else 1), seed)
    chosen = np.flatnonzero(found["scenario_idx"] == scenario) if scenario is not None else np.arange(num_rows)
    ints = np.stack([found[name][chosen] for name in INTS], axis=1)
    floats = np.stack([found[name][chosen] for name in (*planted.FEATURES, "label_click")], axis=1)
    return Batch(ints, floats, found["weight"][chosen], len(chosen))


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    return planted.window(tmp_path_factory.mktemp("window"), 4500, rows=rows)


@pytest.fixture(scope="module")
def trained(window: Window, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Mode -> folder, all learnt in one job; `joint` is one ranker for all scenarios, as in a night."""
    folder = tmp_path_factory.mktemp("models")
    models = tuple(
        RankerModel(mode, f"{folder}/{mode}", (window,), mode=mode, target=None if mode == "joint" else TARGET)
        for mode in transfer.MODES
    )
    answer = train_all(planted.job(models, **QUICK, tasks=TASKS))
    assert set(answer["models"]) == set(transfer.MODES)
    return {model.name: model.folder for model in models}


def preparer(window: Window) -> BatchPreparer:
    return BatchPreparer(planted.FEATURES, TASKS, (window,), 3)


def hidden(folder: str, window: Window, asked: Batch) -> torch.Tensor:
    """Of the layer before the heads."""
    found, last = saved.load(folder), []
    found.body.bottom.register_forward_hook(lambda module, inputs, output: last.append(output))
    with torch.inference_mode():
        found(preparer(window)(asked)[0])
    return last[0]


@pytest.mark.parametrize("mode", transfer.MODES)
def test_every_mode_ranks_the_target(trained: dict[str, str], window: Window, mode: str) -> None:
    """The best AUC is .9: a tenth of the labels is turned round. `alone` has some 200 rows."""
    asked = batch()
    inputs, targets = preparer(window)(asked)
    with torch.inference_mode():
        score = saved.load(trained[mode])(inputs)[:, 0].numpy()
    assert auc(targets[:, 0].numpy(), score) > (0.7 if mode in transfer.OWN_ROWS_ONLY else 0.8)


def test_what_each_mode_learnt_from(trained: dict[str, str]) -> None:
    found = {mode: model_folder.read_manifest(folder)["training"] for mode, folder in trained.items()}
    learnt = [rows(1500, seed) for seed in range(3)]
    trains = np.concatenate([part["fold"] != 0 for part in learnt])
    own = trains & np.concatenate([part["scenario_idx"] == TARGET for part in learnt])
    for mode in ("joint", "reweight", "mmd"):
        assert found[mode]["rows"] == trains.sum(), mode
    for mode in ("alone", "augment", "finetune", "distill"):  # the last stage
        assert found[mode]["rows"] == own.sum(), mode
    assert {mode for mode in found if found[mode]["first_epochs"] > 0} == {"finetune", "distill"}


def test_the_rankers_are_as_wide_as_asked(trained: dict[str, str]) -> None:
    names = set(model_folder.read_weights(trained["joint"]))
    for mode, folder in trained.items():
        assert model_folder.read_manifest(folder)["spec"]["hidden"] == list(planted.SETTINGS.hidden), mode
        assert set(model_folder.read_weights(folder)) == names, mode


def test_a_published_one_takes_the_epochs_of_both_stages(window: Window, tmp_path: Path) -> None:
    first = RankerModel("first", f"{tmp_path}/first", (window,), mode="finetune", target=TARGET)
    second = replace(first, name="second", folder=f"{tmp_path}/second", epochs_of="first")
    done = train_all(planted.job((first, second), max_epochs=2, tasks=TASKS))["models"]
    for stage in ("num_epochs", "first_epochs"):
        assert done["second"][stage] == done["first"][stage] > 0
    assert done["second"]["target_epoch_schedule"] == done["first"]["target_epoch_schedule"] != (1, 1)
    assert done["second"]["rows"] > done["first"]["rows"]  # with the users that stopped the first


def test_without_rows_of_the_target_there_is_no_ranker(window: Window, tmp_path: Path) -> None:
    first = RankerModel("first", f"{tmp_path}/first", (window,), mode="alone", target=9)
    second = replace(first, name="second", folder=f"{tmp_path}/second", epochs_of="first")
    done = train_all(planted.job((first, second), tasks=TASKS))["models"]
    assert done["first"]["rows"] == done["second"]["rows"] == 0
    assert not model_folder.exists(first.folder) and not model_folder.exists(second.folder)


def test_a_fine_tuning_moves_the_heads_alone_at_first(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one epoch there is only that: all but the heads are as the sources left them."""
    kept = {}
    real = transfer._first_stage

    def stage(context: Any, network: Any, *rest: Any) -> Any:
        found = real(context, network, *rest)
        kept.update({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return found

    monkeypatch.setattr(transfer, "_first_stage", stage)
    model = RankerModel("tuned", f"{tmp_path}/tuned", (window,), mode="finetune", target=TARGET)
    train_all(planted.job((model,), max_epochs=1, tasks=TASKS))
    now = saved.load(model.folder).state_dict()
    moved = {name for name in now if not torch.equal(now[name], kept[name])}
    assert moved == {"body.head.shared.weight", "body.head.shared.bias", "body.head.own.weight"}


@pytest.mark.parametrize("model", BODIES)
def test_every_ranker_has_heads_and_more(model: str) -> None:
    spec = networks.Spec(("a",), ("t",), ("binary",), 5, 2, 0, 2, 4, (8, 4), 3, 0.0, model=model)
    names = [name for name, _ in networks.build(spec, 0).named_parameters()]
    heads = [name for name in names if transfer.is_head(name)]
    assert 0 < len(heads) < len(names)
    assert not any(name.startswith("encoder") for name in heads)


def test_source_rows_weigh_as_much_as_they_are_like_the_target() -> None:
    """The target's noise lies higher by 2: sources of high noise weigh more, and the target's rows 1."""
    asked = batch(4000, scenario=None)
    spec = networks.Spec(planted.FEATURES, ("t",), ("binary",), 5, 3, 1, 2, 4, (8, 4), 3, 0.0)
    network = networks.build(spec, 0)
    dense, is_target = asked.floats[:, :3], asked.ints[:, 1] == TARGET
    network.fit(dense, asked.ints[:, 1], asked.floats[:, 3:])
    ratio = transfer.density_ratio(transfer._features(network, dense), is_target)

    class OneBatch:
        num_steps = 1

        def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
            yield asked

    weights = next(transfer.Reweighted(OneBatch(), network, ratio, TARGET).batches(0)).weights
    noise = asked.floats[:, 1]
    assert (weights[is_target] == 1).all()
    assert weights[~is_target & (noise > 1.5)].mean() > 3
    assert weights[~is_target & (noise < 0)].mean() < 0.5


class Three:
    """A feed of three steps; a batch knows its epoch and step."""

    num_steps = 3

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from ((epoch, step) for step in range(start, 3))


def test_an_epoch_of_several_passes_goes_on_where_it_was_left() -> None:
    """Epoch 2 of two passes is the passes 4 and 5 over the rows; step 4 of it is step 1 of the second one."""
    repeated = transfer.Repeated(Three(), 2)
    assert repeated.num_steps == 6
    whole = list(repeated.batches(2))
    assert whole == [(4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2)]
    assert all(list(repeated.batches(2, step)) == whole[step:] for step in range(6))


@pytest.mark.parametrize(("own", "expected"), [(100, (1, 1)), (50, (2, 1)), (10, (8, 2)), (1, (8, 13))])
def test_the_epoch_schedule_of_a_poor_target(own: int, expected: tuple[int, int]) -> None:
    """An epoch of all rows has 100 steps: so many passes over the target's rows, in at most 8 checks. 10 passes in 8
    checks: 2 before each; 100 passes: 12.5, so 13."""

    class Steps:
        def __init__(self, num_steps: int) -> None:
            self.num_steps = num_steps

    class Context:
        schedule: tuple[int, int] | None = None

        def feed(self, part: str) -> Steps:
            return Steps(own if part == "own" else 100)

    assert transfer.target_epoch_schedule(Context()) == expected
    given = Context()
    given.schedule = (3, 2)
    assert transfer.target_epoch_schedule(given) == (3, 2)


def test_a_poor_target_has_the_steps_of_the_rich(window: Window, trained: dict[str, str]) -> None:
    """Some 200 own rows are one step of 256, all 4,050 are 16: `alone` takes as many steps as `joint`, to a fifth."""
    steps = {mode: model_folder.read_manifest(trained[mode])["training"]["steps"] for mode in ("alone", "joint")}
    assert 0.8 < steps["alone"] / steps["joint"] < 1.2, steps


def test_a_student_learns_half_from_labels_and_half_from_its_teacher(window: Window) -> None:
    """A teacher of constant logits: 0 for the click, which is .5, and 1 for a spend of mean 2 and spread 3, which is 5.
    The student's targets lie half way, and no label stays no label."""
    spec = networks.Spec(planted.FEATURES, ("a", "b"), ("binary", "regression"), 20, 3, 1, 6, 4, (8, 4), 3, 0.0)
    teacher = networks.build(spec, 0).eval()
    for parameter in teacher.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(teacher.body.head.shared.bias)
    teacher.body.head.shared.bias.data[0] = 0.0
    teacher.target_mean_T[1], teacher.target_std_T[1] = 2.0, 3.0
    labels = torch.tensor([[1.0, 3.0], [0.0, torch.nan]])
    asked = batch()
    two = Batch(asked.ints[:2], asked.floats[:2], asked.weights[:2], 2)
    training_prepare = transfer.distilled_targets(
        lambda rows: (preparer(window)(rows)[0], labels), teacher, torch.device("cpu")
    )
    found = training_prepare(two)[1]
    np.testing.assert_allclose(found.numpy(), [[0.75, 4.0], [0.25, np.nan]], atol=1e-6)


def shifted(num_rows: int, seed: int, day: int = planted.DAY) -> dict[str, np.ndarray]:
    """Half of the rows are the target's. Noise, which lies higher by 2 there, says as much about a click as taste."""
    found = rows(num_rows, seed, day)
    target = np.random.default_rng((seed, 3)).random(num_rows) < 0.5
    noise = planted.columns(num_rows, seed, day)["noise"] + 2 * target
    return found | {
        "scenario_idx": np.where(target, TARGET, 0).astype(np.int32),
        "noise": noise.astype(np.float32),
        "label_click": (found["taste"] + noise > 1).astype(np.float32),
    }


def test_mmd_hides_the_scenario_from_the_heads(tmp_path: Path) -> None:
    """The discrepancy of target and sources in the hidden layer, on fresh rows, is less than half of joint's."""
    window = planted.window(tmp_path, 4500, rows=shifted)
    models = [RankerModel(name, f"{tmp_path}/{name}", (window,), mode=name, target=TARGET) for name in ("joint", "mmd")]
    train_all(planted.job(tuple(models), **QUICK, tasks=TASKS))
    fresh = shifted(2000, seed=77)
    ints = np.stack([fresh[name] for name in INTS], axis=1)
    floats = np.stack([fresh[name] for name in (*planted.FEATURES, "label_click")], axis=1)
    target = torch.from_numpy(fresh["scenario_idx"] == TARGET)
    layers = [hidden(model.folder, window, Batch(ints, floats, fresh["weight"], 2000)) for model in models]
    before, after = (float(alignment.discrepancy(layer[target], layer[~target])) for layer in layers)
    assert after < 0.5 * before, (before, after)


def test_a_diverging_transfer_is_an_error(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "STRENGTH", float("nan"))
    model = RankerModel("mmd", f"{tmp_path}/mmd", (window,), mode="mmd", target=TARGET)
    with pytest.raises(TrainingError, match=r"^loss is nan"):
        train_all(planted.job((model,), tasks=TASKS))


def test_a_ranker_without_a_shared_hidden_layer_is_refused(window: Window, tmp_path: Path) -> None:
    model = RankerModel("mmd", f"{tmp_path}/mmd", (window,), mode="mmd", target=TARGET)
    with pytest.raises(ConfigError, match=r"ranker\.model mmoe has none"):
        train_all(planted.job((model,), model="mmoe", tasks=TASKS))


def test_without_extras_nothing_is_frozen() -> None:
    assert not loop.NO_EXTRAS.frozen("encoder.item_id.weight", 0)
