"""A language model that learns from behaviour: `python -m benchmarks text_adapter --data DIR --seeds 3`.

DIR: movielens-1m. A film's text is its title, genres and plot. Pairs are the films that a user liked (rating >= 4) one
right after the other. Four fifths of the users, drawn by the seed, make the pairs that the adapter learns from (some of
them stop it); of every other user up to five pairs are asked: given the first film, where is the second among all films
by cosine? The frozen model gets both lengths of text, the adapter was trained on the short one.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.research import scoreboard
from recspark import metrics
from recspark.config.content import TextAdapter
from recspark.encoders import text
from recspark.training.content import text_adapter

MIN_RATING = 4
HELD_OUT = 0.2  # of the users
ASKED = 5  # pairs of a held-out user
MAX_PAIRS = 3_000  # 4 to 8 minutes of training on 2 cores; SETTINGS were not tuned
SETTINGS = TextAdapter(batch_size=32, max_epochs=1)
QUICK_FILMS, QUICK_USERS, QUICK_PAIRS = 60, 200, 200
K = 10
REPLICATES = 1000


def read(folder: str, quick: bool) -> tuple[list[str], pd.DataFrame]:
    """(texts of the films, rows (user, left, right): consecutive likes, films by their place among the texts)."""
    names = [line.split("::") for line in read_lines(folder, "movies.dat", "latin-1")]
    about = [line.split("::") for line in read_lines(folder, "movies_extrainfos.dat", "utf-8")]
    plots = {int(cells[0]): cells[9] for cells in about}
    texts = [
        f"{title}. {genres.replace('|', ', ')}. {plots.get(int(film), '')}".strip() for film, title, genres in names
    ]
    place = {int(film): at for at, (film, _, _) in enumerate(names)}
    columns = ["user_id", "movie_id", "rating", "seq_pos"]
    rows = pd.read_parquet(Path(folder) / "interactions.parquet", columns=columns)
    rows = rows[rows["rating"] >= MIN_RATING].sort_values(["user_id", "seq_pos"])
    rows["right"] = rows["movie_id"].map(place)
    if quick:
        rows = rows[(rows["right"] < QUICK_FILMS) & (rows["user_id"] <= QUICK_USERS)]
        texts = texts[:QUICK_FILMS]
    rows["left"] = rows.groupby("user_id")["right"].shift()
    pairs = rows.dropna(subset=["left"]).astype({"left": int})
    return texts, pairs.rename(columns={"user_id": "user"})[["user", "left", "right"]].reset_index(drop=True)


def read_lines(folder: str, name: str, encoding: str) -> list[str]:
    return (Path(folder) / name).read_text(encoding=encoding).strip().split("\n")


def split(pairs: pd.DataFrame, seed: int, max_pairs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(pairs to learn from, pairs asked about), of different users."""
    rng = np.random.default_rng(seed)
    users = rng.permutation(pairs["user"].unique())
    held = pairs["user"].isin(users[: int(len(users) * HELD_OUT)])
    drawn = pairs.iloc[rng.permutation(len(pairs))]
    return drawn[~held[drawn.index]].head(max_pairs), drawn[held[drawn.index]].groupby("user").head(ASKED)


def places(scores_FF: np.ndarray, asked: pd.DataFrame) -> np.ndarray:
    """(P,) from 0: the place of `right` among all films but `left`; ties share a place."""
    left, right = asked["left"].to_numpy(), asked["right"].to_numpy()
    scores = scores_FF[left].astype(np.float64)
    rows = np.arange(len(left))
    own = scores[rows, right][:, None]
    scores[rows, left] = -np.inf
    return (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2


def figures(place_P: np.ndarray) -> dict[str, float]:
    return {f"R@{K}": float((place_P < K).mean()), "MRR": float((1 / (place_P + 1)).mean())}


def difference(ours_P: np.ndarray, other_P: np.ndarray, users: np.ndarray) -> dict[str, list[float]]:
    """figure -> (mean, lower, upper) of ours minus the other's, 95 % bootstrap over the users."""
    weights = metrics.poisson_weights(metrics.hash_users(users, 0), REPLICATES)
    gaps = {f"R@{K}": (ours_P < K) * 1.0 - (other_P < K), "MRR": 1 / (ours_P + 1) - 1 / (other_P + 1)}
    return {
        name: [float(gap.mean()), *metrics.interval(gap @ weights / np.maximum(weights.sum(axis=0), 1))]
        for name, gap in gaps.items()
    }


def cosines(encoder: text.TextEncoder, texts: list[str]) -> np.ndarray:
    vectors = encoder.encode(texts)
    return vectors @ vectors.T


def learn(texts: list[str], learnt: pd.DataFrame, settings: TextAdapter, seed: int) -> tuple[np.ndarray, int]:
    """Cosines of all films by the adapter's folder, opened anew, and the epoch that was best."""
    encoder = text.load(device="cpu", packed=False)
    sides = ([texts[i] for i in learnt[side]] for side in ("left", "right"))
    trained = text_adapter.train(encoder, text_adapter.pairs_of(learnt["user"].tolist(), *sides), settings, seed, print)
    with tempfile.TemporaryDirectory() as folder:
        text_adapter.save(folder, trained, settings, {}, seed)
        return cosines(text.load(folder, device="cpu"), texts), trained.epochs


def one_seed(
    texts: list[str], pairs: pd.DataFrame, fixed: dict[str, np.ndarray], max_pairs: int, seed: int
) -> tuple[scoreboard.Lines, dict[str, list[float]]]:
    """(figures of all methods, the adapter's difference to the better of `fixed`, cosines of the frozen model)."""
    began = time.monotonic()
    learnt, asked = split(pairs, seed, max_pairs)
    known = pairs[~pairs["user"].isin(asked["user"])]
    likes = np.bincount(known["right"], minlength=len(texts)).astype(float)
    scores = {"popular": np.tile(likes, (len(texts), 1)), **fixed}
    scores["adapter"], epochs = learn(texts, learnt, SETTINGS, seed)
    found = {name: places(one, asked) for name, one in scores.items()}
    lines = {name: figures(one) for name, one in found.items()}
    best = max(fixed, key=lambda name: lines[name]["MRR"])
    gain = difference(found["adapter"], found[best], asked["user"].to_numpy())
    print(
        f"seed {seed}: {len(learnt):,} pairs, {len(asked):,} asked, epoch {epochs}, adapter - {best}: {gain} "
        f"({time.monotonic() - began:.0f} s)",
        flush=True,
    )
    return lines, gain


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    texts, pairs = read(data, quick)
    fixed = frozen(texts)
    done = [one_seed(texts, pairs, fixed, QUICK_PAIRS if quick else MAX_PAIRS, seed) for seed in range(seeds)]
    runs = [lines for lines, _ in done]
    scoreboard.table(runs, f"the next film among {len(texts):,}")
    return {"runs": runs, "adapter - frozen": [gain for _, gain in done]}


def frozen(texts: list[str]) -> dict[str, np.ndarray]:
    """Cosines by the model as it is, of whole texts and of those that the adapter is trained on."""
    encoder = text.load(device="cpu")
    short = replace(encoder, max_tokens=SETTINGS.max_tokens)
    return {"frozen": cosines(encoder, texts), "frozen, short texts": cosines(short, texts)}
