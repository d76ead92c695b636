from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.research import text_adapter as board


def test_pairs_are_consecutive_likes(tmp_path: Path) -> None:
    """User 1 likes 20, (not 10), 30, then 10; user 2 one film only."""
    films = ["10::Caf\xe9 (1995)::Drama", "20::Two (1996)::Action|Comedy", "30::Three (1997)::War"]
    (tmp_path / "movies.dat").write_text("\n".join(films) + "\n", encoding="latin-1")
    plot = "::".join(["20", *["x"] * 8, "A plot.", "poster"])
    (tmp_path / "movies_extrainfos.dat").write_text(plot + "\n", encoding="utf-8")
    rows = [(1, 20, 5, 0), (1, 10, 3, 1), (1, 30, 4, 2), (1, 10, 4, 3), (2, 20, 5, 0)]
    frame = pd.DataFrame(rows, columns=["user_id", "movie_id", "rating", "seq_pos"]).sample(frac=1, random_state=0)
    frame.to_parquet(tmp_path / "interactions.parquet")
    texts, pairs = board.read(str(tmp_path), quick=False)
    assert texts == ["Caf\xe9 (1995). Drama.", "Two (1996). Action, Comedy. A plot.", "Three (1997). War."]
    assert pairs.to_numpy().tolist() == [[1, 1, 2], [1, 2, 0]]


def test_asked_users_are_not_learnt_from() -> None:
    pairs = pd.DataFrame({"user": np.repeat(np.arange(10), 7), "left": 0, "right": 1})
    learnt, asked = board.split(pairs, 0, 20)
    assert len(learnt) == 20 and not set(learnt["user"]) & set(asked["user"])
    assert asked.groupby("user").size().tolist() == [5, 5]
    again = board.split(pairs, 0, 20)[1]
    assert again.equals(asked) and not board.split(pairs, 1, 20)[1].equals(asked)


def test_places_and_their_difference_by_hand() -> None:
    """From film 0: cosines .9, .5 and .5 to the films 1, 2 and 3; itself does not count."""
    scores = np.eye(4)
    scores[0] = [1.0, 0.9, 0.5, 0.5]
    asked = pd.DataFrame({"left": [0, 0], "right": [1, 2]})
    ours = board.places(scores, asked)
    assert ours.tolist() == [0.0, 1.5]
    assert board.figures(ours) == {"R@10": 1.0, "MRR": pytest.approx((1 + 1 / 2.5) / 2)}
    gap = board.difference(ours, np.array([19.0, 1.5]), np.array([7, 8]))
    assert gap["R@10"][0] == 0.5 and gap["MRR"][0] == pytest.approx((1 - 1 / 20) / 2)
    assert 0 <= gap["R@10"][1] <= gap["R@10"][2] <= 1
