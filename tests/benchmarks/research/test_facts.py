"""What the two data sets say, by hand, and the whole protocol on a tiny one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.research import facts
from recspark.config.content import FactEmbedding
from recspark.encoders import graph

MOVIE = "1::Ooo (1995)::1995::G::x::Drama::A Bee, C Dee::E Eff (story by, maybe), A Bee (x), E Eff (y)::N/A::plot::url"
ITEMS = [
    {
        "domain": "Beauty",
        "item": "a",
        "words": "red mug red",
        "categories": """'Hair', "Men's, all\"""",
        "brand": " X ",
    },
    {"domain": "Toys", "item": "b", "words": "", "categories": "", "brand": "", "s3rec_attribute_ids": "[3, 14]"},
]


def said(rows: pd.DataFrame) -> set[tuple[str, str, str]]:
    assert not rows.duplicated().any()
    return set(rows.itertuples(index=False, name=None))


def test_movies_have_their_people_once_and_without_brackets(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::Ooo (1995)::Drama|War\n2::Nameless::War\n", encoding="latin-1")
    (tmp_path / "movies_extrainfos.dat").write_text(f"{MOVIE}\n", encoding="latin-1")
    assert said(facts.movies(str(tmp_path))) == {
        ("1", "genre", "Drama"),
        ("1", "genre", "War"),
        ("2", "genre", "War"),
        ("1", "year", "1995"),
        ("1", "decade", "1990s"),
        ("1", "director", "A Bee"),
        ("1", "director", "C Dee"),
        ("1", "writer", "E Eff"),
        ("1", "writer", "A Bee"),
    }


def test_shops_have_names_in_beauty_and_numbers_elsewhere(tmp_path: Path) -> None:
    pd.DataFrame(ITEMS).to_parquet(tmp_path / "items.parquet")
    assert said(facts.shops(str(tmp_path))) == {
        ("a", "brand", "X"),
        ("a", "category", "Hair"),
        ("a", "category", "Men's, all"),
        ("a", "word", "red"),
        ("a", "word", "mug"),
        ("b", "attribute", "3"),
        ("b", "attribute", "14"),
    }


def test_lines_of_a_planted_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A maker has one kind and two names, so at best (1 + 1 + 3 / 4) / 3: found above popularity, that above chance, in
    items of the training and in new ones."""
    monkeypatch.setattr(graph, "NEGATIVES", 8)
    rows = [
        (item, relation, entity)
        for item in range(200)
        for relation, entity in (("maker", f"m{item % 10}"), ("kind", f"k{item % 2}"), ("name", f"n{item % 20}"))
    ]
    lines, counts = facts.found(
        facts.numbered(pd.DataFrame(rows, columns=facts.COLUMNS)), 0, FactEmbedding(dim=8, max_epochs=40)
    )
    mrr = {name: figures["mrr"] for name, figures in lines.items()}
    assert mrr["TransE"] > 0.8 > mrr["popular"] > mrr["chance"]
    assert mrr["TransE, new items"] > 0.8 > mrr["popular, new items"]
    assert counts["facts"] + counts["asked"] == len(rows) and np.isclose(counts["asked"], 60, atol=30)
