"""Facts of items held out and found again: filtered MRR and hits@10 of TransE, tail prediction.

DIR holds `movielens-1m` and `amazon-beauty-sports-toys`. A tenth of the facts is held out, as far as item and entity
keep others; every entity is ranked, other true ones left out. Early stop on facts of the rest; the settings are the
defaults, chosen on another draw of MovieLens-1M. Beside it how often the relation has the entity, and chance.

New items: a tenth of the items is left out of the training altogether, and each is placed by its facts but a tenth,
which is then asked for; entities that the training has not seen are left out.
"""

import re
import time as clock
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.research import scoreboard
from benchmarks.research.leave_one_out import say
from recspark.config.content import FactEmbedding
from recspark.encoders import graph
from recspark.encoders.graph import Facts

SHARE, QUICK_ITEMS = 0.1, 1500
COLUMNS = ["item", "relation", "entity"]


def movies(folder: str) -> pd.DataFrame:
    """genre, year and decade of `movies.dat`; director, writer and cast of `movies_extrainfos.dat`."""
    rows = []
    for movie, title, genres in lines(f"{folder}/movies.dat"):
        rows += [(movie, "genre", genre) for genre in genres.split("|")]
        year = re.search(r"\((\d{4})\)\s*$", title)
        rows += [(movie, "year", year[1]), (movie, "decade", f"{year[1][:3]}0s")] if year else []
    for fields in lines(f"{folder}/movies_extrainfos.dat"):
        for relation, people in zip(("director", "writer", "cast"), fields[6:9], strict=True):
            # "Joss Whedon (screenplay by), ...": a comma within brackets is no separator
            rows += [(fields[0], relation, name) for name in re.sub(r"\([^)]*\)", "", people).split(",")]
    return tidy(pd.DataFrame(rows, columns=COLUMNS))


def lines(file: str) -> list[list[str]]:
    with open(file, encoding="latin-1") as rows:
        return [row.rstrip("\n").split("::") for row in rows]


def shops(folder: str) -> pd.DataFrame:
    """brand and category (Beauty has their names), attribute (numbers of brands and categories, in the other shops) and
    word."""
    items = pq.read_table(f"{folder}/items.parquet").to_pandas().drop_duplicates("item")
    named = items["domain"] == "Beauty"
    values = {
        "brand": items["brand"][named].map(lambda name: [name]),
        "category": items["categories"][named].str.findall(r"""'([^']+)'|"([^"]+)\"""").map(
            lambda found: [one or other for one, other in found]
        ),
        "attribute": items["s3rec_attribute_ids"][~named].str.findall(r"\d+"),
        "word": items["words"].str.split(),
    }  # fmt: skip
    parts = [
        pd.DataFrame({"item": items["item"][column.index], "relation": name, "entity": column}).explode("entity")
        for name, column in values.items()
    ]
    return tidy(pd.concat(parts))


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """As the table item_facts has them: trimmed, distinct, without blanks."""
    rows = rows.dropna().assign(entity=lambda r: r["entity"].str.strip())
    return rows[~rows["entity"].isin(["", "N/A"])].drop_duplicates().reset_index(drop=True)


DATA = {"movielens-1m": movies, "amazon-beauty-sports-toys": shops}


def numbered(rows: pd.DataFrame) -> Facts:
    codes = [np.unique(rows[name], return_inverse=True)[1] for name in COLUMNS]
    return Facts(*codes, *(int(code.max()) + 1 for code in codes))


def found(facts: Facts, seed: int, settings: FactEmbedding) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Line -> figures on the held-out facts, and what was counted."""
    rng = np.random.default_rng((1, seed))
    held = graph.hold_out(facts, SHARE, rng)
    known, asked = facts.take(~held), facts.take(held)
    began = clock.perf_counter()
    model, stopped = graph.fit(known, settings, seed, say)
    seconds = clock.perf_counter() - began
    counts = np.zeros((facts.num_relations, facts.num_entities), dtype=np.float32)
    np.add.at(counts, (known.relation, known.entity), 1)
    scores = {
        "TransE": graph.scorer(model),
        "popular": lambda item, relation: counts[relation],
        "chance": lambda item, relation: rng.random((len(item), facts.num_entities), dtype=np.float32),
    }
    figures = {name: graph.evaluate(score, known, asked) for name, score in scores.items()}
    say(f"seed {seed}: validation {stopped}, {seconds:.0f} s, {figures}")
    cold = rng.random(facts.num_items) < SHARE
    figures |= placed(facts, cold, seed, settings)
    return figures, {"facts": len(known.item), "asked": len(asked.item), "train_seconds": round(seconds, 1)}


def placed(facts: Facts, cold: np.ndarray, seed: int, settings: FactEmbedding) -> dict[str, dict[str, float]]:
    """Held-out facts of items that the training has not seen, from their other facts, and by popularity."""
    warm, late = facts.take(~cold[facts.item]), facts.take(cold[facts.item])
    model, _ = graph.fit(warm, settings, seed, say)
    trained = np.bincount(warm.entity, minlength=facts.num_entities) > 0
    late = late.take(trained[late.entity])
    held = np.random.default_rng((2, seed)).random(len(late.item)) < SHARE
    held &= np.bincount(late.item[~held], minlength=facts.num_items)[late.item] > 0
    known, asked = late.take(~held), late.take(held)
    vectors = graph.from_entities(model, known.item, known.relation, known.entity, facts.num_items)
    counts = np.zeros((facts.num_relations, facts.num_entities), dtype=np.float32)
    np.add.at(counts, (warm.relation, warm.entity), 1)
    score = graph.scorer(replace(model, items_ID=vectors))
    return {
        "TransE, new items": graph.evaluate(score, known, asked),
        "popular, new items": graph.evaluate(lambda item, relation: counts[relation], known, asked),
    }


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """Means over the seeds, by data set and line."""
    settings, out = FactEmbedding(max_epochs=4) if quick else FactEmbedding(), {}
    for name, read in DATA.items():
        rows = read(f"{data}/{name}")
        if quick:
            rows = rows[rows["item"].isin(np.unique(rows["item"])[:QUICK_ITEMS])]
        facts = numbered(rows)
        say(f"{name}: {rows.groupby('relation').size().to_dict()}, {facts.num_items} items")
        runs, sizes = zip(*(found(facts, seed, settings) for seed in range(seeds)), strict=True)
        scoreboard.table(list(runs), f"{name}, {seeds} seeds, {facts.num_entities} entities")
        means = {line: {f: scoreboard.spread(list(runs), line, f)[0] for f in runs[0][line]} for line in runs[0]}
        out[name] = {"lines": means, **sizes[0]}
    return {**out, "seeds": seeds}
