"""Does a user like a movie, in three scenarios by age: `python -m benchmarks scenario_ranking --data DIR --seeds 3`.

DIR: movielens-1m. Rows are split 8:1:1 at random; the label is rating > 3; a scenario is a group of ages. Listed
features: user, movie, gender, occupation, zip, the movie's first genre, age, scenario. Models learn from train rows
(labels, or the ratings themselves, and who rated what among train rows); the stack, early stops and the gate learn from
validation rows; test rows are scored once. `alone`: one model a scenario, on its own rows.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.metrics import log_loss

from benchmarks.research import stack
from benchmarks.research.ratings import deep_fm, factors, implicit_features
from benchmarks.research.ratings.ratings import Ratings, mean_of
from benchmarks.research.scoreboard import spread, table
from recspark import gate, metrics

SCENARIOS = {"1-24": (1, 18), "25-34": (25,), "35+": (35, 45, 50, 56)}
FIELDS = ("user", "movie", "gender", "occupation", "zip", "genre", "age", "scenario")
LIKED = 3  # a rating above is a positive
COMPANY = 64  # singular vectors of who rated what
FOLDS = 5
QUICK_USERS = 400
TRAIN, VALID, TEST = range(3)
LISTED = ("FM + MLP alone", "FM + MLP joint", "probit factors")  # lines that use the listed features and labels only
GATED = ("FM + MLP alone", "FM + MLP joint", "factors alone", "ours")


@dataclass(frozen=True)
class Data:
    """All ratings: `codes_NF` int64 in the order of FIELDS, `sizes` of the fields, `rating`, `label`, `part`."""

    codes_NF: np.ndarray
    sizes: tuple[int, ...]
    rating: np.ndarray
    label: np.ndarray
    part: np.ndarray

    def column(self, field: str) -> np.ndarray:
        return self.codes_NF[:, FIELDS.index(field)]

    def ratings(self, rows: np.ndarray, value: np.ndarray) -> Ratings:
        return Ratings(
            self.column("user")[rows], self.column("movie")[rows], value[rows].astype(float), *self.sizes[:2]
        )


def read(folder: str, quick: bool) -> pd.DataFrame:
    """One row a rating, with FIELDS as codes and `rating`."""
    rows = pq.read_table(Path(folder) / "interactions.parquet", columns=["user_id", "movie_id", "rating"]).to_pandas()
    if quick:
        rows = rows[rows["user_id"] <= QUICK_USERS]
    users = pd.read_csv(
        Path(folder) / "users.dat", sep="::", engine="python", names=["user_id", "gender", "age", "occupation", "zip"],
        dtype={"zip": str},
    )  # fmt: skip
    movies = pd.read_csv(
        Path(folder) / "movies.dat",
        sep="::",
        engine="python",
        names=["movie_id", "title", "genres"],
        encoding="latin-1",
    )
    users["scenario"] = users["age"].map({age: s for s, ages in enumerate(SCENARIOS.values()) for age in ages})
    movies["genre"] = movies["genres"].str.split("|").str[0]
    rows = (
        rows.merge(users, on="user_id")
        .merge(movies, on="movie_id")
        .rename({"user_id": "user", "movie_id": "movie"}, axis=1)
    )
    for field in FIELDS:
        rows[field] = pd.factorize(rows[field], sort=True)[0]
    return rows


def split(rows: pd.DataFrame, seed: int) -> Data:
    """A tenth of the rows for the test, a tenth for validation."""
    tenth = len(rows) // 10
    part = np.full(len(rows), TRAIN)
    order = np.random.default_rng(seed).permutation(len(rows))
    part[order[:tenth]], part[order[tenth : 2 * tenth]] = TEST, VALID
    codes, rating = rows[list(FIELDS)].to_numpy(np.int64), rows["rating"].to_numpy()
    return Data(codes, tuple((codes.max(axis=0) + 1).tolist()), rating, (rating > LIKED).astype(np.int64), part)


def described(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Listed features of users and of movies as 0 / 1 columns; of the zip its codes are too many for that."""
    found = []
    for key, fields in (("user", ("gender", "occupation", "age")), ("movie", ("genre",))):
        codes, first = np.unique(data.column(key), return_index=True)
        columns = [np.eye(data.sizes[FIELDS.index(f)])[data.column(f)[first]] for f in fields]
        wide = np.zeros((data.sizes[FIELDS.index(key)], sum(c.shape[1] for c in columns)))
        wide[codes] = np.concatenate(columns, axis=1)
        found.append(wide)
    return found[0], found[1]


def chances(data: Data, settings: factors.Settings, train: np.ndarray, listed: bool, seed: int) -> np.ndarray:
    """Chance of a label of all rows (N,), by factors of the `train` rows (N,) mask; `listed`: without the ratings."""
    users, movies = described(data)
    ratings = data.ratings(train, data.label if listed else data.rating)
    if not listed:
        more = implicit_features.features(ratings, COMPANY, seed)
        users, movies = np.concatenate([users, more[0]], axis=1), np.concatenate([movies, more[1]], axis=1)
    model = factors.fit(ratings, users, movies, settings, seed)
    asked, out = data.part != TRAIN, np.full(len(train), np.nan)
    above = factors.predict(model, data.column("user")[asked], data.column("movie")[asked])[1]
    out[asked] = above[:, np.searchsorted(model.values_C, 0 if listed else LIKED)]
    return out


def alone(data: Data, model: Any) -> np.ndarray:
    """`model`(mask of a scenario's rows) (N,) of every scenario, each row from its own."""
    out = np.full(len(data.part), np.nan)
    for s in range(len(SCENARIOS)):
        mine = data.column("scenario") == s
        out[mine] = model(mine)[mine]
    return out


def deep(data: Data, mine: np.ndarray, settings: deep_fm.Settings, seed: int) -> np.ndarray:
    """Chance of a label of all rows (N,) by FM + MLP of some."""
    learns, stops = (mine & (data.part == p) for p in (TRAIN, VALID))
    valid = (data.codes_NF[stops], data.label[stops])
    model = deep_fm.fit(data.codes_NF[learns], data.label[learns], valid, data.sizes, settings, seed)
    return deep_fm.predict(model, data.codes_NF)


def item_mean(data: Data) -> np.ndarray:
    """Share of positives among a movie's train rows, with five rows of the mean movie."""
    movie, label = (column[data.part == TRAIN] for column in (data.column("movie"), data.label))
    return mean_of(movie, label, data.sizes[1], 5.0, float(label.mean()))[data.column("movie")]


def stacked(data: Data, known: Sequence[np.ndarray], seed: int, settings: stack.Settings) -> np.ndarray:
    """Trees over the known chances (N,), the listed features and train means: all rows but the train's, (N,)."""
    train = data.part == TRAIN
    columns = [*known, *data.codes_NF.T[2:]]
    for field in ("user", "movie"):
        code, size = data.column(field), data.sizes[FIELDS.index(field)]
        columns.append(np.bincount(code[train], minlength=size)[code])
        columns += [
            mean_of(code[train], value[train], size, 5.0, float(value[train].mean()))[code]
            for value in (data.rating, data.label, data.rating**2)
        ]
    features, start = np.column_stack(columns).astype(np.float32), stack.base(np.column_stack(known))
    out, valid, test = np.full(len(train), np.nan), data.part == VALID, data.part == TEST
    fold = np.random.default_rng(seed).integers(0, FOLDS, valid.sum())
    model = stack.fit(features[valid], data.label[valid], start[valid], fold, settings, seed)
    out[valid], out[test] = model.held_out, stack.predict(model, features[test], start[test])
    return out


def figures(data: Data, scores: np.ndarray, part: int) -> dict[str, float]:
    """AUC and log loss of a part, over all and in each scenario."""
    found = {}
    for s, name in enumerate(("all", *SCENARIOS)):
        rows = (data.part == part) & ((data.column("scenario") == s - 1) | (s == 0))
        found[f"auc {name}"] = metrics.auc(data.label[rows], scores[rows])
        found[f"logloss {name}"] = float(log_loss(data.label[rows], scores[rows].astype(np.float64), labels=(0, 1)))
    return found


def shares(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(n,) the share of rows of the other label that a row stands on the right side of, ties half; its mean over the
    positives, and over the negatives, is the AUC (DeLong et al. 1988)."""
    out = np.empty(len(labels))
    for label in (0, 1):
        other = np.sort(scores[labels != label])
        own = scores[labels == label]
        below = (np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")) / 2 / max(len(other), 1)
        out[labels == label] = below if label else 1 - below
    return out


def gated(data: Data, lines: dict[str, np.ndarray]) -> tuple[np.ndarray, list[gate.Decision]]:
    """Every scenario's rows by the mode that the gate takes on validation rows, `alone` where none is surely better."""
    valid = data.part == VALID
    scenario = data.column("scenario")[valid]
    figure = np.empty((valid.sum(), len(GATED)))
    for m, name in enumerate(GATED):
        for s in range(len(SCENARIOS)):
            rows = scenario == s
            figure[rows, m] = shares(data.label[valid][rows], lines[name][valid][rows])
    mine = [figure[scenario == s] for s in range(len(SCENARIOS))]
    sums, cross = np.stack([x.sum(axis=0) for x in mine]), np.stack([x.T @ x for x in mine])
    moments = gate.GainMoments(np.array([len(x) for x in mine]), sums, cross)
    decisions = gate.decide(tuple(SCENARIOS), GATED, moments, {}, GATED[:1])
    every = np.stack([lines[decision.mode] for decision in decisions])
    return every[data.column("scenario"), np.arange(len(valid))], decisions


def one_seed(rows: pd.DataFrame, seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Every line of the scoreboard for one seed."""
    data, started = split(rows, seed), time.monotonic()
    samples = {"num_burn_in": 5, "num_samples": 10} if quick else {}
    network = deep_fm.Settings(max_epochs=2) if quick else deep_fm.Settings()
    numbers, ordered = factors.Settings(**samples), factors.Settings(ordered=True, **samples)
    train, lines = data.part == TRAIN, {}

    def done(name: str, scores: np.ndarray) -> np.ndarray:
        lines[name] = scores
        seen = figures(data, scores, VALID)
        print(
            f"seed {seed}: {name}, validation auc {seen['auc all']:.4f}, {time.monotonic() - started:.0f} s", flush=True
        )
        return scores

    done("item mean", item_mean(data))
    done("FM + MLP alone", alone(data, lambda mine: deep(data, mine, network, seed)))
    done("FM + MLP joint", deep(data, np.ones_like(train), network, seed))
    done("probit factors", chances(data, ordered, train, True, seed))
    done("factors alone", alone(data, lambda mine: chances(data, ordered, train & mine, False, seed)))
    known = [
        done(f"factors {name}", chances(data, settings, train, False, seed))
        for name, settings in (("numbers", numbers), ("ordered", ordered))
    ]
    done("ours", stacked(data, known, seed, stack.Settings()))
    lines["gate"], decisions = gated(data, lines)
    for decision in decisions:
        print(f"seed {seed}: {decision.scenario}: {decision.reason}", flush=True)
    best = max(LISTED, key=lambda name: figures(data, lines[name], VALID)["auc all"])
    print(f"seed {seed}: of the models with the listed features only, validation takes {best}", flush=True)
    lines["listed features only"] = lines[best]
    found = {name: figures(data, scores, TEST) for name, scores in lines.items()}
    for name, values in found.items():
        print(f"seed {seed}: {name}", "  ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)
    return found


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """AUC and log loss of the gate's choice; prints all lines."""
    started, rows = time.monotonic(), read(data, quick)
    runs = [one_seed(rows, seed, quick) for seed in range(seeds)]
    seconds = (time.monotonic() - started) / seeds
    table(runs, f"scenario_ranking, {len(rows)} rows, {seeds} seeds, {seconds:.0f} s a seed")
    found = {name: spread(runs, "gate", name)[0] for name in runs[0]["gate"]}
    lines = {line: spread(runs, line, "auc all")[0] for line in runs[0]}
    return {**found, "auc": lines, "seeds": seeds, "seconds_a_seed": round(seconds, 1)}
