"""The rankers and transfers of one night side by side: `python -m benchmarks rankers --seeds 3`.

Online Retail, the night of RUN_DATE. All learn from the closed windows but the newest and are judged on that one:
NDCG@10 of the lists with a purchase among their candidates, in the United Kingdom, in the group of all other countries,
and over both; `seconds` of training on this machine. `gate`: what the rule of recspark/gate.py publishes, `alone` being
the incumbent, judged on users whom neither of its halves has seen. Last, 8-bit scoring against float32 on the same
rows: AUC lost, share of the ten best that stay, and rows a second on one thread, at the default and at WIDE layers.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.night.nightly import nightly
from benchmarks.research.scoreboard import spread, table
from recspark import columns as c
from recspark import gate, metrics, model_folder
from recspark.config.rankers import Gbdt, Ranker, Task
from recspark.errors import TrainingError
from recspark.features import features_of
from recspark.models.rankers import gbdt
from recspark.models.rankers.catalogue import BODIES
from recspark.training import entry
from recspark.training.feed.users import read_lists
from recspark.training.ranking import fit, job, quantise, scoring, transfer
from recspark.windows import as_of_day

RUN_DATE = "2011-11-11"
# their SQL does not matter: the rows have their labels
TASKS = (Task(name="purchase", kind="binary", sql="none"), Task(name="spend", kind="regression", sql="none"))
GROUPS = {"others": 0}  # scenario_idx of the small countries; the United Kingdom has the other one
WIDE = (512, 256)
LABEL = "label_purchase"
TOP, ROUNDS, THREADS = 10, 3, 2


@dataclass(frozen=True)
class Night:
    """Closed windows, newest first, and the newest one's rows: `ids` scenario, user, item, `dense` as `names`."""

    windows: tuple[job.Window, ...]
    names: tuple[str, ...]
    ids: tuple[np.ndarray, np.ndarray, np.ndarray]
    dense: np.ndarray
    label: np.ndarray
    linear: np.ndarray


def read(warehouse: str) -> Night:
    """What a night has left; its tables are fresh, so every file counts."""
    windows = []
    for folder in sorted(Path(warehouse, "training_examples").glob("as_of=*"), reverse=True):
        day = folder.name.split("=")[1]
        models = [str(next(Path(warehouse, "models", part).glob(f"{day}-*"))) for part in ("histories", "retriever")]
        files = tuple(sorted(str(file) for file in folder.glob("*.parquet")))
        windows.append(job.Window(as_of_day(date.fromisoformat(day)), files, *models))
    rows = pa.concat_tables([pq.read_table(file) for file in windows[0].files])
    names = features_of(("linear", "content", "popular"))
    ids = tuple(rows[name].to_numpy() for name in (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX))
    dense = np.column_stack([rows[name].to_numpy() for name in names]).astype(np.float32)
    linear = np.nan_to_num(rows["linear_score"].to_numpy(), nan=-1.0)
    return Night(tuple(windows), names, ids, dense, rows[LABEL].to_numpy(), linear)


def learn(night: Night, folder: str, settings: Ranker, modes: Mapping[str, int | None], seed: int) -> dict[str, float]:
    """Train models of one mode each (name "mode/target") into `folder`; name -> seconds."""
    seconds = {}
    for name, target in modes.items():
        began = time.monotonic()
        model = job.RankerModel(name, f"{folder}/{name}", night.windows[1:], mode=name.split("/")[0], target=target)
        training = job.RankerJob((model,), night.names, TASKS, settings, seed, "arrow", threads=THREADS)
        answer = entry.run(fit.train_all, training)
        if "error" in answer:
            raise TrainingError(answer["error"])
        seconds[name] = time.monotonic() - began
    return seconds


def score(night: Night, model: str, rows: np.ndarray) -> np.ndarray:
    window = night.windows[0]
    ids = tuple(column[rows] for column in night.ids)
    return scoring.probabilities(model, window.histories, window.bundle, window.day, night.dense[rows], ids)


def trees(night: Night, seed: int) -> np.ndarray:
    files = [file for window in night.windows[1:] for file in window.files]
    keys = (job.AS_OF_DAY, c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)
    settings = Gbdt()
    rows = read_lists(files, [*keys, *night.names, LABEL, c.FOLD], keys[:3], LABEL, settings.max_rows, seed)
    features = np.column_stack([rows[name] for name in night.names])
    key = np.column_stack([rows[name] for name in keys])
    model = gbdt.fit(features, rows[LABEL], key, rows[c.FOLD] == job.STOP_FOLD, night.names, settings, seed, None)
    return np.asarray(gbdt.predict(model, night.dense, num_threads=2), np.float64)


def gains(night: Night, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NDCG of every list with a purchase, its scenario_idx and its user_idx; ties by item."""
    scenario, user, item = night.ids
    order = np.lexsort((item, -scores, user, scenario))
    first = np.flatnonzero((np.diff(scenario[order], prepend=-1) != 0) | (np.diff(user[order], prepend=-1) != 0))
    bought = np.add.reduceat(night.label[order], first).astype(int)
    offsets = np.append(first, len(order))
    found = metrics.ndcg_at_k(night.label[order], offsets, bought, TOP)
    kept = bought > 0
    return found[kept], scenario[order][first][kept], user[order][first][kept]


def gated(lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], modes: tuple[str, ...]) -> np.ndarray:
    """NDCG of every list by the mode that the gate takes; two thirds of the users decide, the last third is told."""
    figure = np.column_stack([lines[mode][0] for mode in modes])
    _, scenario, user = lines[modes[0]]
    part = metrics.hash_users(user, 0) % np.uint64(3)
    groups = np.unique(scenario)
    mine = [figure[(part < 2) & (scenario == group)] for group in groups]
    sums, cross = np.stack([x.sum(axis=0) for x in mine]), np.stack([x.T @ x for x in mine])
    moments = gate.GainMoments(np.array([len(x) for x in mine]), sums, cross)
    names = [next((name for name, idx in GROUPS.items() if idx == group), "United Kingdom") for group in groups]
    decisions = gate.decide(names, modes, moments, {}, ("alone",))
    told = np.full(len(user), np.nan)
    for group, decision in zip(groups, decisions, strict=True):
        print(f"{decision.scenario}: {decision.reason}", flush=True)
        rows = (part == 2) & (scenario == group)
        told[rows] = figure[rows, modes.index(decision.mode)]
    return told


def line(found: tuple[np.ndarray, np.ndarray, np.ndarray], seconds: float, told: np.ndarray) -> dict[str, float]:
    figure, scenario, _ = found
    parts = {"all": np.full(len(figure), True), "UK": scenario != 0, "others": scenario == 0, "told": told}
    means = {name: float(figure[rows].mean()) if rows.any() else np.nan for name, rows in parts.items()}
    return means | {"seconds": seconds}


def eight_bits(night: Night, place: str, settings: Ranker, seed: int) -> dict[str, float]:
    """What 8 bits cost and gain at one width of the hidden layers; a float32 ranker in `place` is not learnt again."""
    models = {False: place, True: f"{place}-int8"}
    every, scores, rate = np.arange(len(night.label)), {}, {}
    for int8, model in models.items():
        learn(night, model, settings.model_copy(update={"int8": int8}), {"joint": None}, seed)
        scores[int8] = score(night, f"{model}/joint", every)
    for int8 in [False, True] * ROUNDS:  # in turns, so that both meet the same machine; the best of each counts
        began = time.process_time()
        score(night, f"{models[int8]}/joint", every)
        rate[int8] = max(rate.get(int8, 0.0), len(every) / (time.process_time() - began))
    lists = np.column_stack(night.ids[:2])
    cost = quantise.cost(night.label, lists, scores[False], scores[True], TOP)
    return cost | {"rows_a_second": rate[False], "int8_rows_a_second": rate[True]}


def one_seed(night: Night, seed: int, quick: bool) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Lines of the scoreboard, and of the 8-bit one."""
    settings = Ranker(max_epochs=1) if quick else Ranker()
    every, lines, seconds = np.arange(len(night.label)), {"linear": gains(night, night.linear)}, {"linear": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        lines["gbdt"] = gains(night, trees(night, seed))
        seconds["gbdt"] = time.monotonic() - began
        for body in BODIES:
            place = f"{folder}/{body}"
            asked = settings.model_copy(update={"model": body})
            seconds[body] = learn(night, place, asked, {"joint": None}, seed)["joint"]
            lines[body] = gains(night, score(night, f"{place}/joint", every))
        for mode in transfer.MODES:
            if mode == "joint":
                continue
            scores, seconds[mode] = np.empty(len(every)), 0.0
            for target in np.unique(night.ids[0]):
                name, mine = f"{mode}/{target}", np.flatnonzero(night.ids[0] == target)
                seconds[mode] += learn(night, folder, settings, {name: int(target)}, seed)[name]
                own = model_folder.exists(f"{folder}/{name}")  # not where the target, or its sources, have no rows
                scores[mine] = score(night, f"{folder}/{name}" if own else f"{folder}/{settings.model}/joint", mine)
            lines[mode] = gains(night, scores)
        modes = ("alone", *(name for name in lines if name != "alone"))
        told = gated(lines, modes)
        seen = np.isfinite(told)
        found = {name: line(values, seconds[name], seen) for name, values in lines.items()}
        found["gate"] = {**dict.fromkeys(("all", "UK", "others", "seconds"), np.nan), "told": float(told[seen].mean())}
        small = {
            settings.model: eight_bits(night, f"{folder}/{settings.model}", settings, seed),
            "wide": eight_bits(night, f"{folder}/wide", settings.model_copy(update={"hidden": WIDE}), seed),
        }
    for name, figures in found.items():
        print(f"seed {seed}: {name}", "  ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
    return found, small


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """One night (the seed changes the models, not the night); `quick`: without the largest country, one epoch."""
    with tempfile.TemporaryDirectory() as warehouse:
        nightly(data, warehouse, RUN_DATE, quick)
        night = read(warehouse)
        runs = [one_seed(night, seed, quick) for seed in range(seeds)]
    table([found for found, _ in runs], f"rankers, {len(night.label)} rows, {seeds} seeds")
    table([small for _, small in runs], "8 bits")
    small_of = [small for _, small in runs]
    return {
        "ndcg@10": {name: round(spread([f for f, _ in runs], name, "all")[0], 4) for name in runs[0][0]},
        "told": {name: round(spread([f for f, _ in runs], name, "told")[0], 4) for name in runs[0][0]},
        "int8": {
            name: {figure: round(spread(small_of, name, figure)[0], 5) for figure in small_of[0][name]}
            for name in small_of[0]
        },
        "seeds": seeds,
    }
