"""How well content ranks items without any event: `python -m benchmarks cold_items --data DIR --seeds 3`.

DIR: movielens-1m (positives: ratings >= 4) or amazon-beauty-sports-toys (Beauty). A tenth of the items, drawn by the
seed, has all events hidden; each user's positives among them are ranked within all hidden items, NDCG@10. Every content
source goes through the same model (recspark/models/retrievers/content_map.py), alone, all together, and all but one;
the model chooses its weights on further hidden items of the visible ones. Beside it chance, the overlap of genres or
categories with the user's items, and nearest neighbours in TF-IDF and by the plain content retriever.

`facts` are TransE vectors of the visible items' facts; a hidden item is placed by its own. `+ LoRA` is the language
model fine-tuned on pairs of items that the same users interacted with one after the other, among the visible items:
its vectors of one source replace the frozen ones. Differences have a 95 % bootstrap interval over the users of all
seeds.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.research import facts as facts_of
from benchmarks.research.leave_one_out import histories, say
from benchmarks.research.scoreboard import difference, table
from recspark.config.content import FactEmbedding, TextAdapter
from recspark.config.retrievers import ContentMap
from recspark.encoders import graph, text
from recspark.histories import Histories, keep, owners
from recspark.models.retrievers import affinity, content, content_map
from recspark.models.retrievers.catalogue import Catalogue
from recspark.training.content import text_adapter

HIDDEN, MIN_RATING = 0.1, 4
MAX_PAIRS = 8000  # a fifth of them validates: with fewer no gain could be confirmed
ADAPTER = TextAdapter(batch_size=32, max_epochs=1)
QUICK_ITEMS, QUICK_USERS, QUICK_PAIRS = 300, 500, 64


@dataclass(frozen=True)
class Data:
    """`events` of all users in order; `texts`: source -> a text or None for each item; `overlap` (I, G): genres or
    categories; `facts` (item, relation, entity), items by their place; `tuned`: the source that LoRA learns."""

    events: Histories
    texts: dict[str, list[str | None]]
    overlap: np.ndarray
    facts: pd.DataFrame
    tuned: str


def movies(folder: str, quick: bool) -> Data:
    names = [line for line in facts_of.lines(f"{folder}/movies.dat")][: QUICK_ITEMS if quick else None]
    place = {film: at for at, (film, _, _) in enumerate(names)}
    plots = {cells[0]: cells[9] for cells in _cells(f"{folder}/movies_extrainfos.dat")}
    abstracts = json.loads(Path(f"{folder}/dbpedia_abstracts.json").read_text(encoding="utf-8"))
    rows = pq.read_table(f"{folder}/interactions.parquet").to_pandas().sort_values(["user_id", "seq_pos"])
    rows = rows[(rows["rating"] >= MIN_RATING) & (rows["user_id"] <= (QUICK_USERS if quick else np.inf))]
    item = rows["movie_id"].astype(str).map(place)
    known = facts_of.movies(folder)
    return Data(
        _events(rows["user_id"], item),
        {
            "title": [title for _, title, _ in names],
            "plot": [_filled(plots.get(film)) for film, _, _ in names],
            "abstract": [_filled(abstracts.get(film)) for film, _, _ in names],
        },
        _multi_hot([genres.split("|") for _, _, genres in names]),
        _placed(known, place),
        "abstract",
    )


def beauty(folder: str, quick: bool) -> Data:
    items = pq.read_table(f"{folder}/items.parquet").to_pandas()
    items = items[items["domain"] == "Beauty"].iloc[: QUICK_ITEMS if quick else None]
    place = {item: at for at, item in enumerate(items["item"])}
    rows = pq.read_table(f"{folder}/interactions.parquet").to_pandas()
    rows = rows[rows["domain"] == "Beauty"].sort_values(["user", "pos"])
    known = facts_of.shops(folder)
    categories = items["categories"].str.findall(r"""'([^']+)'|"([^"]+)\"""").map(
        lambda found: [one or other for one, other in found]
    )  # fmt: skip
    return Data(
        _events(rows["user"], rows["item"].map(place)),
        {
            "title": [_filled(title) for title in items["title"]],
            "brand": [_filled(brand) for brand in items["brand"]],
            "category": [_filled(", ".join(names)) for names in categories],
        },
        _multi_hot(categories.tolist()),
        _placed(known, place),
        "title",
    )


DATA: dict[str, Callable[[str, bool], Data]] = {"movielens-1m": movies, "amazon-beauty-sports-toys": beauty}


def _cells(file: str) -> list[list[str]]:
    return [line.split("::") for line in Path(file).read_text(encoding="utf-8").strip().split("\n")]


def _filled(cell: str | None) -> str | None:
    return cell if cell and cell.strip() not in ("", "N/A") else None


def _multi_hot(values: list[list[str]]) -> np.ndarray:
    """float32 (I, G)."""
    names = {name: at for at, name in enumerate(sorted({name for row in values for name in row}))}
    found = np.zeros((len(values), len(names)), np.float32)
    for row, of_item in enumerate(values):
        found[row, [names[name] for name in of_item]] = 1
    return found


def _placed(known: pd.DataFrame, place: dict[str, int]) -> pd.DataFrame:
    known = known.assign(item=known["item"].map(place)).dropna(subset=["item"]).astype({"item": int})
    return known.sort_values(["item", "relation", "entity"], ignore_index=True)


def _events(user: pd.Series, item: pd.Series) -> Histories:
    """Rows in order of the user's time; items that are not in the catalogue left out."""
    rows = pd.DataFrame({"user": user, "item": item}).dropna()
    codes = np.unique(rows["user"], return_inverse=True)[1]
    zeros, order = np.zeros(len(rows), np.int32), np.arange(len(rows), dtype=float)
    return histories(codes, rows["item"].to_numpy(np.int32), zeros, order, order, int(codes.max()) + 1)


# -- sources -----------------------------------------------------------------------------------------------------------


def of_facts(data: Data, hidden_I: np.ndarray, seed: int) -> np.ndarray:
    """float32 (I, D): trained vectors of the visible items, and where their facts put the hidden ones."""
    numbers = {name: np.unique(data.facts[name], return_inverse=True)[1] for name in ("relation", "entity")}
    sizes = (len(hidden_I), int(numbers["relation"].max()) + 1, int(numbers["entity"].max()) + 1)
    every = graph.Facts(data.facts["item"].to_numpy(), numbers["relation"], numbers["entity"], *sizes)
    known = every.take(~hidden_I[every.item])
    model, _ = graph.fit(known, FactEmbedding(), seed, lambda line: None)
    trained = np.bincount(known.entity, minlength=every.num_entities) > 0
    late = every.take(hidden_I[every.item] & trained[every.entity])
    placed = graph.from_entities(model, late.item, late.relation, late.entity, len(hidden_I))
    return np.where(hidden_I[:, None], placed, model.items_ID)


def tuned(data: Data, visible: Histories, texts: list[str | None], seed: int, most: int) -> np.ndarray:
    """float32 (I, D): the texts by the model fine-tuned on users' items one after the other."""
    user = owners(visible.offsets)
    left, right = visible.item_idx[:-1], visible.item_idx[1:]
    able = np.array([isinstance(cell, str) for cell in texts])
    rows = np.flatnonzero((user[1:] == user[:-1]) & able[left] & able[right])
    rows = np.random.default_rng((seed, 3)).permutation(rows)[:most]
    sides = ([texts[item] for item in side[rows]] for side in (left, right))
    encoder = text.load(device="cpu", packed=False)
    adapted = text_adapter.train(encoder, text_adapter.pairs_of(user[rows].tolist(), *sides), ADAPTER, seed, say)
    with tempfile.TemporaryDirectory() as folder:
        text_adapter.save(folder, adapted, ADAPTER, {}, seed)
        return text.load(folder, device="cpu").encode(texts)


# -- one draw ----------------------------------------------------------------------------------------------------------


def one_seed(
    data: Data, frozen: dict[str, np.ndarray], tfidf: np.ndarray, seed: int, most: int
) -> dict[str, np.ndarray]:
    """method -> NDCG@10 (U,) of the users who have a positive among the hidden items."""
    num_items, h = len(data.overlap), data.events
    hidden_I = np.random.default_rng((seed, 0)).random(num_items) < HIDDEN
    positive_UI = affinity.positives(h.offsets, h.item_idx, h.weight, num_items)
    visible = keep(h, ~hidden_I[h.item_idx])
    known_UI = affinity.positives(visible.offsets, visible.item_idx, visible.weight, num_items)
    users = np.flatnonzero(np.diff(positive_UI[:, hidden_I].indptr) & (np.diff(known_UI.indptr) > 0))
    true_UH = positive_UI[users][:, hidden_I].toarray() > 0
    history_UI = known_UI[users]
    known = _of_users(visible, users)

    def neighbours(vectors: np.ndarray) -> np.ndarray:
        unit = content.unit(vectors)
        return content_map.ndcg_of_users(content.profiles(history_UI, unit) @ unit[hidden_I].T, true_UH)

    def mapped(parts: dict[str, np.ndarray], name: str) -> np.ndarray:
        widths = tuple(part.shape[1] for part in parts.values())
        catalogue = Catalogue(num_items, 1, np.concatenate(list(parts.values()), axis=1), widths)
        model = content_map.fit(visible, catalogue, ContentMap(), seed)
        nothing = np.zeros(len(users), np.int64)
        found = content_map.ndcg_of_users(
            content_map.scores(model, known, nothing, nothing * 1.0)[:, hidden_I], true_UH
        )
        chosen = dict(zip(parts, model.choice.weights, strict=True))
        say(f"seed {seed}: {name} {found.mean():.4f}, {model.choice}, weights {chosen}")
        return found

    parts = {**frozen, "facts": of_facts(data, hidden_I, seed)}
    found = {
        "random": content_map.ndcg_of_users(np.random.default_rng((seed, 2)).random(true_UH.shape), true_UH),
        "genre overlap": neighbours(data.overlap),
        "TF-IDF neighbours": neighbours(tfidf),
        "content neighbours": neighbours(np.concatenate([content.unit(part) for part in parts.values()], axis=1)),
    }
    say(f"seed {seed}: { ({name: round(float(gains.mean()), 4) for name, gains in found.items()}) }")
    found |= {name: mapped({name: part}, name) for name, part in parts.items()}
    found["all fused"] = mapped(parts, "all fused")
    for name in parts:
        found[f"all but {name}"] = mapped({key: part for key, part in parts.items() if key != name}, f"all but {name}")
    adapted = tuned(data, visible, data.texts[data.tuned], seed, most)
    found[f"{data.tuned} + LoRA"] = mapped({data.tuned: adapted}, f"{data.tuned} + LoRA")
    found["all fused + LoRA"] = mapped({**parts, data.tuned: adapted}, "all fused + LoRA")
    return found


def _of_users(h: Histories, users: np.ndarray) -> Histories:
    rows = np.concatenate([np.arange(h.offsets[user], h.offsets[user + 1]) for user in users])
    columns = (getattr(h, name)[rows] for name in ("item_idx", "scenario_idx", "time", "weight", "value", "price"))
    return Histories(np.concatenate(([0], np.cumsum(np.diff(h.offsets)[users]))), *columns)


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """NDCG@10 of every method, and the differences that matter with their intervals."""
    began = time.monotonic()
    world = DATA[Path(data).name](data, quick)
    encoder = text.load(device="cpu")
    frozen = {name: encoder.encode(texts) for name, texts in world.texts.items()}
    say(f"{len(world.overlap)} items, {len(world.events.offsets) - 1} users; texts encoded")
    joined = [" ".join(filter(None, cells)) for cells in zip(*world.texts.values(), strict=True)]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english", dtype=np.float32)
    tfidf, most = words.fit_transform(joined).toarray(), QUICK_PAIRS if quick else MAX_PAIRS
    runs: list[dict[str, np.ndarray]] = []
    for seed in range(seeds):
        runs.append(one_seed(world, frozen, tfidf, seed, most))
        gaps = differences(runs, world.tuned)
    lines = [{name: {"NDCG@10": float(gains.mean())} for name, gains in found.items()} for found in runs]
    table(lines, f"{Path(data).name}, {seeds} seeds, {(time.monotonic() - began) / seeds:.0f} s a seed")
    figures = {name: round(float(gains.mean()), 4) for name, gains in pooled(runs).items()}
    return {"data": Path(data).name, "seeds": seeds, "ndcg@10": figures, "differences": gaps}


def pooled(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([found[name] for found in runs]) for name in runs[0]}


def differences(runs: list[dict[str, np.ndarray]], tuned: str) -> dict[str, tuple[float, float, float]]:
    """Print the seeds so far: ours minus the other, with its interval."""
    users = pooled(runs)
    singles = [name.removeprefix("all but ") for name in users if name.startswith("all but ")]
    pairs = [("all fused", name) for name in (*singles, "TF-IDF neighbours", "content neighbours")]
    pairs += [(f"{tuned} + LoRA", tuned), ("all fused + LoRA", "all fused")]
    gaps = {f"{ours} - {other}": difference(users[ours], users[other]) for ours, other in pairs}
    for name, (mean, low, high) in gaps.items():
        say(f"{len(runs)} seeds: {name} {mean:+.4f} [{low:+.4f}, {high:+.4f}]")
    return gaps
