"""What the transformer gains from other scenarios: `python -m benchmarks transfer --data DIR --seeds 3`.

Data and protocol of `cross_domain_sequence` (DIR/events.csv, two domains). The same network knows a domain alone, both
together with balanced sampling, both with an adapter a domain, or the other domain first and then the own one. Early
stop on the validation lists of the domain, or of both; test events are looked at once.
"""

import tempfile
import time
from dataclasses import replace

import numpy as np

from benchmarks.research.cross_domain_sequence import FUSION_NEGATIVES, NEGATIVES, Data, figures, questions, read
from benchmarks.research.event_time_features import Lists
from benchmarks.research.scoreboard import gain, spread, table
from recspark.config.retrievers import Sequence
from recspark.models.retrievers import sequence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.training.retrieval import sequence as sequence_training
from recspark.training.retrieval.sequence import Plan

SETTINGS = Sequence()
QUICK_SETTINGS = Sequence(dim=16, layers=1, negatives=128, max_epochs=3)
MODES = ("single", "joint", "adapter", "finetune")


def at_lists(model: sequence.Model, lists: Lists) -> np.ndarray:
    """Scores of lists of equal length, float32 (L, K)."""
    items = lists.item_idx.reshape(len(lists.time), -1)
    return sequence.scores_at(model, lists.histories, lists.scenario_idx, lists.time, items)


def alone(lists: Lists, target: int) -> Lists:
    """The same lists of users whose events in other scenarios are unknown."""
    return replace(lists, histories=sequence_training.of_scenarios(lists.histories, lambda s: s == target))


def trained(data: Data, target: int | None, valid: Lists, seed: int, settings: Sequence) -> sequence.Model:
    """One training, stopped by the validation lists of the target domain; None: of all."""
    counted = np.ones(len(valid.time), dtype=bool) if target is None else valid.scenario_idx == target

    def ndcg(model: sequence.Model) -> float:
        scores = np.nan_to_num(at_lists(model, valid)[counted], nan=-np.inf)
        place = (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
        return float(gain(place).mean())

    catalogue = Catalogue(data.num_items, len(data.domains))
    with tempfile.TemporaryDirectory() as folder:
        return sequence_training.train(data.histories(1), catalogue, settings, Plan(target), seed, folder, ndcg, print)


def one_seed(data: Data, seed: int, settings: Sequence) -> dict[str, dict[str, float]]:
    """A line for each mode."""
    valid, test = (questions(data, *x, seed) for x in ((1, FUSION_NEGATIVES), (0, NEGATIVES)))
    lines = {}
    for mode in MODES:
        scores = np.empty((len(test.time), NEGATIVES + 1), dtype=np.float32)
        for target in (None,) if mode in ("joint", "adapter") else range(len(data.domains)):
            known = [alone(lists, target) if mode == "single" else lists for lists in (valid, test)]
            name = None if target is None else data.domains[target]
            model = trained(data, target, known[0], seed, settings.model_copy(update={"mode": mode, "target": name}))
            rows = slice(None) if target is None else test.scenario_idx == target
            scores[rows] = at_lists(model, known[1])[rows]
        lines[mode] = figures(scores.ravel(), test, data)
        print(f"seed {seed}: {mode}", "  ".join(f"{k} {v:.4f}" for k, v in lines[mode].items()), flush=True)
    return lines


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """Figures of every mode, mean over the seeds."""
    started = time.monotonic()
    events = read(data, quick)
    runs = [one_seed(events, seed, QUICK_SETTINGS if quick else SETTINGS) for seed in range(seeds)]
    seconds = (time.monotonic() - started) / seeds
    table(runs, f"transfer, {seeds} seeds, {seconds:.0f} s a seed")
    result = {f"{mode} {name}": spread(runs, mode, name)[0] for mode in MODES for name in runs[0][mode]}
    return {**result, "seeds": seeds, "seconds_a_seed": round(seconds, 1)}
