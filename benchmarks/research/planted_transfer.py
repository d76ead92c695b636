"""Does the gate know when transfer helps? `python -m benchmarks planted_transfer --seeds 10`.

Planted lists in two pairs of scenarios. In each, a rich source teaches a poor target, whose users click by a factor of
NUM_FEATURES features, each of weight +-1. In the pair `shared` the source clicks by the same factor; in `opposed` by
one of the same features with the signs of OPPOSED of them turned round. (With all of them turned round the source
still teaches what matters, up to a sign that a new head finds: a transfer that helps.)

Every mode learns from the pair's rows, by the path of a night's training; a tenth of the target's users stops it. The
gate (recspark/gate.py, `alone` as the incumbent) then chooses on half of the target's other users and confirms on the
rest. Users of a third kind, looked at once, tell what it was worth: `share` = gain over `alone` of what was published,
over the gain of an oracle that knows the factor and orders by it. Truth is known: in `shared` the gate should take a
transfer, in `opposed` none.
"""

import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.research.scoreboard import spread, table
from recspark import gate, metrics, model_folder
from recspark.config.rankers import Ranker, Task
from recspark.errors import TrainingError
from recspark.histories import finish
from recspark.training import entry
from recspark.training.ranking import fit, job, scoring, transfer

SOURCE, TARGET = 1, 2
PAIRS = ("shared", "opposed")
NUM_FEATURES, NUM_ITEMS, ITEMS_A_LIST, TOP, DAY = 24, 50, 10, 5, 15_000
OPPOSED = 12  # of 24 signs: half of the tastes are turned round, so the source says nothing of what the target wants
STEEPNESS, BASE = 1.5, -1.5  # logit of a click: BASE + STEEPNESS x a factor of variance 1
FEATURES = tuple(f"feature_{n}" for n in range(NUM_FEATURES))
MODES = tuple(mode for mode in transfer.MODES if mode != "augment")  # that one is about histories; here are none
TASKS = (Task(name="click", kind="binary", sql="none"),)  # its SQL does not matter: the rows have their labels
SETTINGS = Ranker(
    embedding_dim=4, hidden=(128, 64), history_length=2, dropout=0.1, learning_rate=0.001, weight_decay=1e-5,
    batch_size=256, max_epochs=10, patience=3, model="shared_bottom", min_item_rows=1,
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """Users: those that models learn from, of both sides, and the target's that the gate and the test look at."""

    source: int = 2000
    target: int = 30
    gate: int = 1500
    test: int = 2000


@dataclass(frozen=True)
class Lists:
    """Lists of ITEMS_A_LIST rows, one a user: ids and features of the rows, their clicks and true probabilities."""

    scenario: int
    users: np.ndarray
    items: np.ndarray
    features: np.ndarray  # float32 (n, NUM_FEATURES)
    clicks: np.ndarray
    factor: np.ndarray


def lists(scenario: int, weights: np.ndarray, users: range, rng: np.random.Generator) -> Lists:
    n = len(users) * ITEMS_A_LIST
    features = rng.normal(size=(n, NUM_FEATURES))
    factor = features @ weights / np.sqrt(NUM_FEATURES)
    probabilities = 1.0 / (1.0 + np.exp(-(BASE + STEEPNESS * factor)))
    clicks = (rng.random(n) < probabilities).astype(np.float64)
    user = np.repeat(np.asarray(users), ITEMS_A_LIST)
    return Lists(scenario, user, rng.integers(0, NUM_ITEMS, n), features.astype(np.float32), clicks, factor)


def pair(name: str, sizes: Sizes, seed: int) -> tuple[Lists, Lists, Lists, Lists]:
    """Training lists of source and target, then the gate's and the test's, of users of their own."""
    rng = np.random.default_rng((seed, PAIRS.index(name)))
    weights = rng.choice([-1.0, 1.0], NUM_FEATURES)
    turned = np.zeros(NUM_FEATURES, bool)
    turned[rng.permutation(NUM_FEATURES)[:OPPOSED]] = name == "opposed"
    ends = np.cumsum([0, sizes.source, sizes.target, sizes.gate, sizes.test])
    users = [range(a, b) for a, b in pairwise(ends)]
    source = lists(SOURCE, np.where(turned, -weights, weights), users[0], rng)
    return source, *(lists(TARGET, weights, part, rng) for part in users[1:])  # type: ignore[return-value]


def window(folder: str, parts: tuple[Lists, ...]) -> job.Window:
    """The parts as the files of a closed window; nobody has a history and no item content."""
    path = Path(folder, "examples.parquet")
    ids = {job.AS_OF_DAY: [np.full(len(p.users), DAY) for p in parts]}
    ids["scenario_idx"] = [np.full(len(p.users), p.scenario) for p in parts]
    ids["user_idx"], ids["item_idx"] = [p.users for p in parts], [p.items for p in parts]
    ids["fold"] = [p.users % 10 for p in parts]
    columns = {name: np.concatenate(found).astype(np.int32) for name, found in ids.items()}
    features = np.concatenate([p.features for p in parts])
    columns |= dict(zip(FEATURES, features.T, strict=True))
    columns["label_click"] = np.concatenate([p.clicks for p in parts]).astype(np.float32)
    columns["weight"] = np.ones(len(features), np.float32)
    pq.write_table(pa.table(columns), path, row_group_size=5000)
    finish(f"{folder}/histories", [], {})
    content = np.zeros((NUM_ITEMS, 2), np.float32)
    model_folder.save(f"{folder}/bundle", {"scenarios": {"source": SOURCE, "target": TARGET}}, {"content": content})
    return job.Window(DAY, (str(path),), f"{folder}/histories", f"{folder}/bundle")


def learn(folder: str, parts: tuple[Lists, ...], seed: int) -> dict[str, str]:
    """Mode -> folder of its model. Joint is one for both scenarios."""
    known = window(folder, parts)
    models = tuple(
        job.RankerModel(mode, f"{folder}/{mode}", (known,), mode=mode, target=None if mode == "joint" else TARGET)
        for mode in MODES
    )
    answer = entry.run(fit.train_all, job.RankerJob(models, FEATURES, TASKS, SETTINGS, seed, "arrow", threads=1))
    if "error" in answer:
        raise TrainingError(answer["error"])
    return {model.name: model.folder for model in models}


def ndcg(found: dict[str, str], folder: str, asked: Lists) -> dict[str, np.ndarray]:
    """NDCG@TOP of every user who clicked, by mode; `oracle` orders by the factor."""
    scores = {"oracle": asked.factor}
    where = (f"{folder}/histories", f"{folder}/bundle", DAY)
    ids = (np.full(len(asked.users), asked.scenario), asked.users, asked.items)
    for mode, model in found.items():
        scores[mode] = scoring.probabilities(model, *where, asked.features, ids)
    user, clicks = asked.users.reshape(-1, ITEMS_A_LIST)[:, 0], asked.clicks.reshape(-1, ITEMS_A_LIST)
    offsets = np.arange(len(user) + 1) * ITEMS_A_LIST
    out = {}
    for mode, score in scores.items():
        order = np.argsort(-score.reshape(-1, ITEMS_A_LIST), axis=1, kind="stable")
        ranked = np.take_along_axis(clicks, order, axis=1).ravel()
        out[mode] = metrics.ndcg_at_k(ranked, offsets, clicks.sum(axis=1).astype(int), TOP)[clicks.any(axis=1)]
    return out


def moments(users: list[dict[str, np.ndarray]], modes: tuple[str, ...]) -> gate.GainMoments:
    rows = [np.column_stack([found[mode] for mode in modes]) for found in users]
    return gate.GainMoments(
        np.array([len(x) for x in rows]), np.stack([x.sum(axis=0) for x in rows]), np.stack([x.T @ x for x in rows])
    )


def one_seed(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    """A line for each pair: test NDCG of every mode, of what the gate published, and whether it was right to."""
    judged, tested = [], []
    for name in PAIRS:
        source, target, judges, test = pair(name, sizes, seed)
        with tempfile.TemporaryDirectory() as folder:
            found = learn(folder, (source, target), seed)
            judged.append(ndcg(found, folder, judges))
            tested.append({mode: float(values.mean()) for mode, values in ndcg(found, folder, test).items()})
    measured = moments(judged, MODES)
    decisions = gate.decide(PAIRS, MODES, measured, dict.fromkeys(PAIRS, "alone"), ["alone"])
    transferring = [mode for mode in MODES if mode not in transfer.OWN_ROWS_ONLY]
    decisions = gate.name_negative_transfer(decisions, MODES, measured, "alone", transferring)
    lines = {}
    for decision, test_of in zip(decisions, tested, strict=True):
        took = decision.mode in transferring
        print(f"seed {seed}: {decision.scenario}: {decision.reason}", flush=True)
        gain = test_of[decision.mode] - test_of["alone"]
        lines[decision.scenario] = {
            **test_of,
            "published": test_of[decision.mode],
            "took": float(took),
            "hurt": float(gain < 0),
            "named": float("negative transfer" in decision.reason),
            "share": gain / (test_of["oracle"] - test_of["alone"]),
        }
    return lines


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """No data set is read. `hits`: seeds in which the gate took a transfer in `shared` and reached 80 % of the oracle's
    gain; `refused`: seeds in which it took none in `opposed`, `hurt`: in which what it took was worse on the test."""
    started = time.monotonic()
    sizes = Sizes(source=500, gate=400, test=500) if quick else Sizes()
    runs = [one_seed(seed, sizes) for seed in range(seeds)]
    seconds = time.monotonic() - started
    table(runs, f"planted transfer, {seeds} seeds, {seconds / seeds:.0f} s a seed")
    shared, opposed = ([run[name] for run in runs] for name in PAIRS)
    return {
        "shared_share": round(spread(runs, "shared", "share")[0], 3),
        "shared_share_least": round(min(line["share"] for line in shared), 3),
        "shared_taken": sum(line["took"] == 1 for line in shared),
        "shared_hits": sum(line["took"] == 1 and line["share"] >= 0.8 for line in shared),
        "opposed_refused": sum(line["took"] == 0 for line in opposed),
        "opposed_hurt": sum(line["hurt"] == 1 for line in opposed),
        "opposed_named": sum(line["named"] == 1 for line in opposed),
        "opposed_loss_of_joint": round(spread(runs, "opposed", "alone")[0] - spread(runs, "opposed", "joint")[0], 4),
        "seeds": seeds,
        "seconds_a_seed": round(seconds / seeds, 1),
    }
