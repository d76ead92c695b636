"""The time of a network with one tower for each scenario: `python -m benchmarks towers`.

The rows of a batch belong to 10, 30 or 100 scenarios; one thread, CPU time, best of several rounds. `own`: each row
runs its own tower (recspark/models/towers.py); `all`: every tower runs for every row and the right result is chosen.
Scoring is forward alone, training is forward and backward. `ranker` is the whole model `single`, with the feature
encoder and without the optimizer.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recspark.features import FEATURES
from recspark.models.layers import Inputs, look_up
from recspark.models.rankers import network
from recspark.models.rankers.spec import Spec
from recspark.models.towers import GroupedMlp, Groups

HIDDEN, WIDTH = (128, 64), 160
SCENARIOS = (10, 30, 100)
SCORED, LEARNT = 16_384, 4096  # rows at once, as in scoring and in the default batch
NUM_ITEMS, CONTENT_DIM = 4000, 384


def all_towers(towers: GroupedMlp, x_BX: Tensor, tower_B: Tensor) -> Tensor:
    """(B, H): every tower runs for every row, then each row's own result is chosen."""
    first, *rest = towers.linears
    x_BGH = (x_BX @ first.weight_GXH.permute(1, 0, 2).flatten(1)).unflatten(1, (len(first.bias_GH), -1)) + first.bias_GH
    for number, (scale_GH, shift_GH) in enumerate(zip(towers.scales_GH, towers.shifts_GH, strict=True)):
        if number:
            linear = rest[number - 1]
            x_BGH = torch.bmm(x_BGH.transpose(0, 1), linear.weight_GXH).transpose(0, 1) + linear.bias_GH
        x_BGH = torch.relu(torch.addcmul(shift_GH, F.layer_norm(x_BGH, x_BGH.shape[2:]), scale_GH))
    return x_BGH[torch.arange(len(tower_B)), tower_B]


def own_tower(towers: GroupedMlp, x_BX: Tensor, tower_B: Tensor) -> Tensor:
    groups = Groups.of(tower_B, len(towers.scales_GH[0]))
    return towers(x_BX[groups.order_B], groups)[groups.place_B]


def ranker(num_scenarios: int) -> network.Network:
    spec = Spec(
        features=FEATURES, tasks=("click",), kinds=("binary",), num_items=NUM_ITEMS, num_scenarios=num_scenarios,
        num_missing=4, content_dim=CONTENT_DIM, embedding_dim=32, hidden=HIDDEN, history_length=50, dropout=0.0,
        model="single",
    )  # fmt: skip
    made = network.build(spec, 0)
    dense = np.random.default_rng(0).normal(size=(1000, len(FEATURES))).astype(np.float32)
    dense[0, :4] = np.nan
    made.fit(dense, np.arange(1000) % num_scenarios, np.zeros((1000, 1), np.float32))
    return made


def batch(num_rows: int, num_scenarios: int) -> Inputs:
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(num_rows, len(FEATURES))).astype(np.float32)
    history = rng.integers(-1, NUM_ITEMS, (num_rows, 50)).astype(np.int32)
    content = rng.normal(size=(NUM_ITEMS, CONTENT_DIM)).astype(np.float32)
    scenario, item = rng.integers(0, num_scenarios, num_rows), rng.integers(0, NUM_ITEMS, num_rows)
    return look_up(dense, scenario, item, history, content)


def scoring(way: Callable[[], Tensor]) -> Callable[[], object]:
    return torch.inference_mode()(way)


def training(way: Callable[[], Tensor]) -> Callable[[], object]:
    return lambda: way().sum().backward()


def ways(num_scenarios: int, scored: int, learnt: int) -> dict[str, Callable[[], object]]:
    """name -> function that is timed."""
    torch.manual_seed(0)
    towers, model = GroupedMlp(num_scenarios, WIDTH, HIDDEN, 0.0), ranker(num_scenarios)
    found: dict[str, Callable[[], object]] = {}
    for use, num_rows in ((scoring, scored), (training, learnt)):
        x_BX, tower_B = torch.randn(num_rows, WIDTH), torch.randint(num_scenarios, (num_rows,))
        inputs = batch(num_rows, num_scenarios)
        found[f"own {use.__name__}"] = use(partial(own_tower, towers, x_BX, tower_B))
        found[f"ranker {use.__name__}"] = use(partial(model, inputs))
        if num_scenarios <= 30:  # more do not fit into memory
            found[f"all {use.__name__}"] = use(partial(all_towers, towers, x_BX, tower_B))
    return found


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """Milliseconds of CPU time and their ratios; no data set is read, `seeds` multiplies the rounds."""
    scored, learnt = (SCORED // 8, LEARNT // 8) if quick else (SCORED, LEARNT)
    torch.set_num_threads(1)
    timed = {f"{name} {n}": way for n in SCENARIOS for name, way in ways(n, scored, learnt).items()}
    best = dict.fromkeys(timed, np.inf)
    for _ in range(1 + 5 * seeds):  # the first warms up
        for name, way in timed.items():
            began = time.process_time()
            way()
            best[name] = min(best[name], 1e3 * (time.process_time() - began))
    for name, milliseconds in best.items():
        print(f"{name:22s} {milliseconds:9.2f} ms", flush=True)
    figures = {f"{name} ms": round(milliseconds, 2) for name, milliseconds in best.items()}
    for use in ("scoring", "training"):
        figures[f"all over own {use} 30"] = round(best[f"all {use} 30"] / best[f"own {use} 30"], 1)
        for what in ("own", "ranker"):
            figures[f"{what} {use} 100 over 10"] = round(best[f"{what} {use} 100"] / best[f"{what} {use} 10"], 2)
    return figures
