"""Does a user like a movie, with titles: `python -m benchmarks text_ctr --data DIR --seeds 3`.

DIR: movielens-1m-text-ctr, `{train,valid,test}.parquet`, split by time (uid, iid, label, his = the movies that the user
liked before, title, not_cold). AUC over all rows, and UAUC, the mean AUC of users with both labels. Practice: a window
of rows is scored from rows before it, the last train windows and validation; a stack and a ranker learn from those,
settings are chosen on validation, and the test is scored once from train rows ("ours"), or from train and validation
rows ("ours, validation known"), and the rows' own `his`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from benchmarks.research import scoreboard, stack
from benchmarks.research.ratings import factors, like_features
from benchmarks.research.ratings.implicit_features import standardised
from benchmarks.research.ratings.ratings import Ratings
from recspark import metrics
from recspark.config.rankers import Gbdt
from recspark.encoders import text
from recspark.models.rankers import gbdt
from recspark.models.rankers.blend import blend, spread

WINDOWS = 8  # of the train rows by time; the last ones are practised on
PRACTISED = 3
CONTENT = 24  # principal components of the titles' vectors that the factors know an item by
FACTORS = (2, 4, 8)  # models whose mean logit the stack starts from
FOLDS = 5
QUICK_PRACTISED = 1
PARTS = ("train", "valid", "test")
RANKER = Gbdt(learning_rate=0.03, num_leaves=8)
TREES = tuple(stack.Settings(learning_rate=0.03, num_leaves=leaves) for leaves in (4, 8, 15))


@dataclass(frozen=True)
class Data:
    """All rows in order of time: `rows`, `label`, `year` of the movie, `second`, `warm`, `window` (n,), and vectors."""

    rows: like_features.Rows
    label: np.ndarray
    year: np.ndarray
    second: np.ndarray
    warm: np.ndarray
    window: np.ndarray  # WINDOWS of train, then validation, then test
    content_ID: np.ndarray

    def known(self, chosen: np.ndarray) -> Ratings:
        users, items = self.rows.user_idx, self.rows.item_idx
        values = self.label[chosen].astype(float)
        return Ratings(users[chosen], items[chosen], values, int(users.max()) + 1, len(self.content_ID))


def read(folder: str) -> Data:
    """All parts; train is cut into windows with the same number of rows."""
    frames = [pd.read_parquet(Path(folder) / f"{part}.parquet").assign(part=p) for p, part in enumerate(PARTS)]
    frame = pd.concat(frames).sort_values(["part", "timestamp"], kind="stable", ignore_index=True)
    titles = pd.concat(
        [
            frame[["iid", "title"]],
            pd.DataFrame({"iid": np.concatenate(frame["his"]), "title": np.concatenate(frame["his_title"])}),
        ]
    )
    titles = titles[titles["iid"] != 0].drop_duplicates("iid").sort_values("iid")
    names = titles["iid"].to_numpy()
    history = [np.searchsorted(names, [i for i in one if i != 0]) for one in frame["his"]]
    rows = like_features.Rows(
        np.unique(frame["uid"], return_inverse=True)[1],
        np.searchsorted(names, frame["iid"]),
        np.concatenate(history).astype(np.int64),
        np.concatenate(([0], np.cumsum([len(one) for one in history]))),
    )
    train = (frame["part"] == 0).to_numpy()
    window = np.where(train, np.arange(len(frame)) * WINDOWS // train.sum(), WINDOWS + frame["part"] - 1)
    year = titles["title"].str.extract(r"\((\d{4})\)", expand=False).astype(float).to_numpy()[rows.item_idx]
    content = text.load(device="cpu").encode(titles["title"].tolist())
    return Data(
        rows,
        frame["label"].to_numpy(),
        year,
        frame["timestamp"].to_numpy(),
        frame["not_cold"].to_numpy() > 0,
        window,
        content,
    )


def asked(data: Data, chosen: np.ndarray) -> like_features.Rows:
    """Some rows with their histories."""
    r, at = data.rows, np.flatnonzero(chosen)
    size = np.diff(r.offsets)[at]
    offsets = np.concatenate(([0], np.cumsum(size)))
    flat = np.arange(offsets[-1]) + np.repeat(r.offsets[at] - offsets[:-1], size)
    return like_features.Rows(r.user_idx[at], r.item_idx[at], r.history[flat], offsets)


def columns(
    data: Data, known_rows: np.ndarray, chosen: np.ndarray, settings: factors.Settings, seed: int
) -> pd.DataFrame:
    """Features of the chosen rows from known ones; `factors` is a chance, the logit that the stack starts from."""
    known, rows = data.known(known_rows), asked(data, chosen)
    found = like_features.features(known, rows, data.content_ID)
    centred = data.content_ID - data.content_ID.mean(axis=0)
    content = standardised(centred @ np.linalg.svd(centred, full_matrices=False)[2][:CONTENT].T)
    count = standardised(np.log1p(np.bincount(known.item_idx, minlength=known.num_items))[:, None])
    sides = np.zeros((known.num_users, 0)), np.concatenate([count, content], axis=1)
    for k in FACTORS:
        model = factors.fit(known, *sides, replace(settings, num_factors=k), seed)
        found[f"factors {k}"] = factors.predict(model, rows.user_idx, rows.item_idx)[0]
    found["factors"] = expit(stack.base(np.column_stack([found[f"factors {k}"] for k in FACTORS])))
    found["year"] = data.year[chosen]
    found["age"] = 1970 + data.second[chosen] / 31_556_952 - data.year[chosen]
    return pd.DataFrame(found)


def figures(data: Data, part: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """AUC and UAUC over the rows of a part (their scores), all, warm and cold."""
    found = {}
    user, label, warm = data.rows.user_idx[part], data.label[part], data.warm[part]
    for name, rows in (("", np.ones_like(warm)), (" warm", warm), (" cold", ~warm)):
        order = np.flatnonzero(rows)[np.argsort(user[rows], kind="stable")]
        sizes = np.unique(user[order], return_counts=True)[1]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        found[f"auc{name}"] = metrics.auc(label[order], scores[order])
        each = metrics.auc_per_list(label[order], scores[order], offsets)
        found[f"uauc{name}"] = (
            float(np.nanmean(each)) if np.isfinite(each).any() else np.nan
        )  # users with one label only
    return found


@dataclass(frozen=True)
class Learnt:
    """What scores rows: the stack, and rankers of each user's rows whose mean is blended with it, or none of them."""

    trees: stack.Model
    rankers: tuple[gbdt.Model, ...]
    spreads: tuple[float, float]

    def __call__(self, found: pd.DataFrame) -> np.ndarray:
        values = found.to_numpy(np.float32)
        chance = stack.predict(self.trees, values, start_of(found))
        ranks = np.mean([gbdt.predict(ranker, values) for ranker in self.rankers], axis=0)
        return blend((logit(chance), ranks), self.spreads)


def start_of(found: pd.DataFrame) -> np.ndarray:
    """The logit that the stack starts from."""
    return stack.base(found[["factors"]].to_numpy())


def learn(data: Data, known_until: int, practised: Sequence[int], settings: factors.Settings, seed: int) -> Learnt:
    """From windows that are practised on with the rows of windows before `known_until` + their own number known.

    The stack learns the labels, which AUC asks for; the rankers learn the order of a user's rows, which UAUC asks for.
    Settings are chosen by the sum of both on the validation rows, each scored by models of other users.
    """
    parts = [columns(data, data.window < w + known_until, data.window == w, settings, seed) for w in practised]
    practice = pd.concat(parts, ignore_index=True)
    chosen = np.isin(data.window, practised)
    label, user, window = data.label[chosen], data.rows.user_idx[chosen], data.window[chosen]
    fold = np.random.default_rng(seed).integers(0, FOLDS, int(user.max()) + 1)[user]
    values, start = practice.to_numpy(np.float32), start_of(practice)
    lists = np.column_stack([window, np.zeros_like(user), user])
    keys = np.column_stack([lists, np.arange(len(user))])
    rankers, ranks = [], np.empty(len(label))
    for f in range(FOLDS):
        rankers.append(gbdt.fit(values, label, keys, fold == f, tuple(practice), RANKER, seed))
        ranks[fold == f] = gbdt.predict(rankers[-1], values[fold == f])
    best: tuple[float, Any] = (-np.inf, None)
    for trees in TREES:
        model = stack.fit(values, label, start, fold, trees, seed)
        spreads = (spread(lists, logit(model.held_out)), spread(lists, ranks))
        scores = blend((logit(model.held_out), ranks), spreads)
        seen = figures(data, data.window == WINDOWS, scores[window == WINDOWS])
        print(f"seed {seed}: {trees}: validation auc {seen['auc']:.4f} uauc {seen['uauc']:.4f}", flush=True)
        best = max(best, (seen["auc"] + seen["uauc"], Learnt(model, tuple(rankers), spreads)), key=lambda pair: pair[0])
    return best[1]


def one_seed(data: Data, seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Every line of the scoreboard for one seed."""
    settings = factors.Settings(num_burn_in=20, num_samples=10 if quick else 40, ordered=True)
    test = data.window == WINDOWS + 1
    practised = range(WINDOWS - (QUICK_PRACTISED if quick else PRACTISED), WINDOWS + 1)
    lines = {}
    # between the train rows and the test lies the validation: a window, which is left out of the practice too
    for name, known_until in (("ours", -1), ("ours, validation known", 0)):
        model = learn(data, known_until, practised, settings, seed)
        found = columns(data, data.window < WINDOWS + 1 + known_until, test, settings, seed)
        if name == "ours":
            lines = {line: found[line].to_numpy() for line in ("item_mean", "company", "content_liked", "factors")}
        lines[name] = model(found)
    seen = {name: figures(data, test, np.nan_to_num(scores)) for name, scores in lines.items()}
    for name, values in seen.items():
        print(f"seed {seed}: {name}", "  ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)
    return seen


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """AUC and UAUC of ours, scored from train rows; prints all lines."""
    started, everything = time.monotonic(), read(data)
    runs = [one_seed(everything, seed, quick) for seed in range(seeds)]
    seconds = (time.monotonic() - started) / seeds
    scoreboard.table(runs, f"text_ctr, {seeds} seeds, {seconds:.0f} s a seed")
    lines = {line: {f: scoreboard.spread(runs, line, f)[0] for f in ("auc", "uauc")} for line in runs[0]}
    return {
        **{f: scoreboard.spread(runs, "ours", f)[0] for f in runs[0]["ours"]},
        "lines": lines,
        "seeds": seeds,
        "seconds_a_seed": round(seconds, 1),
    }
