"""What the two data sets say, by hand, and the protocol on a planted world."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.research import cold_items
from recspark.models.retrievers import content_map
from tests.models.retrievers.planted import world

MOVIES = "1::Ooo (1995)::Drama|Comedy\n2::Alien::Sci-Fi\n"
ABOUT = """1::Ooo::1995::G::x::Drama::A Bee::E Eff::N/A::A plot::url
2::Alien::1979::R::x::Sci-Fi::R S::N/A::N/A::N/A::url
"""


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "movielens-1m"
    folder.mkdir()
    (folder / "movies.dat").write_text(MOVIES, encoding="latin-1")
    (folder / "movies_extrainfos.dat").write_text(ABOUT, encoding="utf-8")
    (folder / "dbpedia_abstracts.json").write_text(json.dumps({"2": "A film."}))
    rows = [(7, 2, 5, 1), (7, 1, 4, 0), (7, 1, 3, 2), (8, 1, 5, 0)]
    pd.DataFrame(rows, columns=["user_id", "movie_id", "rating", "seq_pos"]).to_parquet(folder / "interactions.parquet")
    return str(folder)


def test_films_by_hand(films):
    """A rating of 3 is no positive; `N/A` is no plot; genres in order of their names."""
    data = cold_items.movies(films, quick=False)
    assert data.events.offsets.tolist() == [0, 2, 3] and data.events.item_idx.tolist() == [0, 1, 0]
    assert data.texts == {"title": ["Ooo (1995)", "Alien"], "plot": ["A plot", None], "abstract": [None, "A film."]}
    assert data.overlap.tolist() == [[1, 1, 0], [0, 0, 1]]
    directors = data.facts[data.facts["relation"] == "director"]
    assert list(zip(directors["item"], directors["entity"], strict=True)) == [(0, "A Bee"), (1, "R S")]


def test_products_by_hand(tmp_path):
    folder = tmp_path / "amazon-beauty-sports-toys"
    folder.mkdir()
    items = [("Beauty", "a", "red", "Red", """'Hair', "Men's\"""", "X", "[1]"), ("Toys", "b", "", "B", "", "", "[2]")]
    names = ["domain", "item", "words", "title", "categories", "brand", "s3rec_attribute_ids"]
    pd.DataFrame(items, columns=names).to_parquet(folder / "items.parquet")
    events = [("Beauty", "u", "a", 0), ("Toys", "u", "b", 0)]
    pd.DataFrame(events, columns=["domain", "user", "item", "pos"]).to_parquet(folder / "interactions.parquet")
    data = cold_items.beauty(str(folder), quick=False)
    assert data.texts == {"title": ["Red"], "brand": ["X"], "category": ["Hair, Men's"]}
    assert data.overlap.tolist() == [[1, 1]] and data.events.item_idx.tolist() == [0]
    assert set(zip(data.facts["relation"], data.facts["entity"], strict=True)) == {
        ("brand", "X"), ("category", "Hair"), ("category", "Men's"), ("word", "red"),
    }  # fmt: skip


def test_nobody_learns_from_hidden_items(monkeypatch):
    """All methods rank the hidden items of a planted world; what learns has seen no event of them, and knows better."""
    histories, catalogue, taste_I = world()
    texts: dict[str, list[str | None]] = {"first": [None] * len(taste_I), "second": [None] * len(taste_I)}
    data = cold_items.Data(histories, texts, np.eye(2, dtype=np.float32)[taste_I], pd.DataFrame(), "first")
    seen = []

    def facts(data, hidden_I, seed):
        seen.append(hidden_I)
        return catalogue.parts()[2]

    def tuned(data, visible, texts, seed, most):
        assert not hidden[visible.item_idx].any() and len(visible.item_idx) < len(histories.item_idx)
        return catalogue.parts()[0]

    hidden = np.random.default_rng((3, 0)).random(len(taste_I)) < cold_items.HIDDEN
    monkeypatch.setattr(cold_items, "of_facts", facts)
    monkeypatch.setattr(cold_items, "tuned", tuned)
    frozen = dict(zip(texts, catalogue.parts(), strict=False))
    found = cold_items.one_seed(data, frozen, catalogue.parts()[2], 3, 10)
    np.testing.assert_array_equal(seen[0], hidden)
    means = {name: float(gains.mean()) for name, gains in found.items()}
    assert means["genre overlap"] > means["random"] + 0.1  # the planted truth
    assert means["all fused"] > means["TF-IDF neighbours"] + 0.05  # that one is noise here
    np.testing.assert_array_equal(found["first + LoRA"], found["first"])  # the same vectors
    assert len({len(gains) for gains in found.values()}) == 1
    assert {f"all but {name}" for name in (*texts, "facts")} < set(found)


def test_ndcg_is_the_one_definition():
    assert content_map.ndcg_of_users(np.array([[1.0, 2.0]]), np.array([[True, False]]))[0] == 1 / np.log2(3)
