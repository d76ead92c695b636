"""Does a user like a movie, with titles: `python -m benchmarks text_ctr --data DIR --seeds 3`.

DIR: movielens-1m-text-ctr, `{train,valid,test}.parquet`, split by time (uid, iid, label, his = the movies that the user
liked before, title, not_cold). AUC over all rows, and UAUC, the mean AUC of users with both labels. Practice: a window
of rows is scored from the rows before it, the last train windows and validation; the stack learns from those, its
settings are chosen on validation, and the test is scored once from train rows ("ours"), or from train and validation
rows ("ours, validation known"), and the rows' own `his`.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from benchmarks.scoreboard import spread, table
from recspark import metrics
from recspark.encoders import text
from recspark.models.ratings import factors, likes
from recspark.models.ratings.company import standardised
from recspark.models.ratings.observed import Ratings
from recspark.training import stack

WINDOWS = 8  # of the train rows by time; the last ones are practised on
PRACTISED = 3
CONTENT = 24  # principal components of the titles' vectors that the factors know an item by
FACTORS = (2, 4, 8)  # models whose mean logit the stack starts from
FOLDS = 5
QUICK_PRACTISED = 1
PARTS = ("train", "valid", "test")
TREES = tuple(stack.Settings(learning_rate=0.03, num_leaves=leaves) for leaves in (4, 8, 15))


@dataclass(frozen=True)
class Data:
    """All rows in order of time: `rows`, `label`, `year` of the movie, `second`, `warm`, `window` (n,), and vectors."""

    rows: likes.Rows
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
    rows = likes.Rows(
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


def asked(data: Data, chosen: np.ndarray) -> likes.Rows:
    """Some rows with their histories."""
    r, at = data.rows, np.flatnonzero(chosen)
    size = np.diff(r.offsets)[at]
    offsets = np.concatenate(([0], np.cumsum(size)))
    flat = np.arange(offsets[-1]) + np.repeat(r.offsets[at] - offsets[:-1], size)
    return likes.Rows(r.user_idx[at], r.item_idx[at], r.history[flat], offsets)


def columns(
    data: Data, known_rows: np.ndarray, chosen: np.ndarray, settings: factors.Settings, seed: int
) -> pd.DataFrame:
    """Features of the chosen rows from known ones; `factors` is a chance, the logit that the stack starts from."""
    known, rows = data.known(known_rows), asked(data, chosen)
    found = likes.features(known, rows, data.content_ID)
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


def one_seed(data: Data, seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Every line of the scoreboard for one seed."""
    settings = factors.Settings(num_burn_in=20, num_samples=10 if quick else 40, ordered=True)
    valid, test = data.window == WINDOWS, data.window == WINDOWS + 1
    practised = range(WINDOWS - (QUICK_PRACTISED if quick else PRACTISED), WINDOWS + 1)
    chosen = np.isin(data.window, practised)
    parts = [columns(data, data.window < w, data.window == w, settings, seed) for w in practised]
    practice = pd.concat(parts, ignore_index=True)
    label, user, in_valid = data.label[chosen], data.rows.user_idx[chosen], valid[chosen]
    fold = np.random.default_rng(seed).integers(0, FOLDS, int(user.max()) + 1)[user]
    start, values = stack.base(practice[["factors"]].to_numpy()), practice.to_numpy(np.float32)
    best: tuple[float, Any] = (-np.inf, None)
    for trees in TREES:
        model = stack.fit(values, label, start, fold, trees, seed)
        seen = figures(data, valid, model.held_out[in_valid])
        print(f"seed {seed}: {trees}: validation auc {seen['auc']:.4f} uauc {seen['uauc']:.4f}", flush=True)
        best = max(best, (seen["auc"] + seen["uauc"], model), key=lambda pair: pair[0])
    lines = {}
    for name, known in (("ours", data.window < WINDOWS), ("ours, validation known", data.window <= WINDOWS)):
        found = columns(data, known, test, settings, seed)
        if name == "ours":
            lines = {line: found[line].to_numpy() for line in ("item_mean", "company", "content_liked", "factors")}
        lines[name] = stack.predict(best[1], found.to_numpy(np.float32), stack.base(found[["factors"]].to_numpy()))
    seen = {name: figures(data, test, np.nan_to_num(scores)) for name, scores in lines.items()}
    for name, values in seen.items():
        print(f"seed {seed}: {name}", "  ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)
    return seen


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """AUC and UAUC of ours, scored from train rows; prints all lines."""
    started, everything = time.monotonic(), read(data)
    runs = [one_seed(everything, seed, quick) for seed in range(seeds)]
    seconds = (time.monotonic() - started) / seeds
    table(runs, f"text_ctr, {seeds} seeds, {seconds:.0f} s a seed")
    lines = {line: {f: spread(runs, line, f)[0] for f in ("auc", "uauc")} for line in runs[0]}
    return {
        **{f: spread(runs, "ours", f)[0] for f in runs[0]["ours"]},
        "lines": lines,
        "seeds": seeds,
        "seconds_a_seed": round(seconds, 1),
    }
