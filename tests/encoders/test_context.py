"""Sentences about the context of an event, each derived by hand."""

import numpy as np
import pytest

from recspark.encoders.context import sentences


def one(time: str = "NaT", place: str | None = None, history: tuple[str, ...] = (), **options: str) -> str | None:
    return sentences(np.array([time], dtype="datetime64[s]"), [place], [history], **options)[0]


def test_time_place_and_history():
    # 2011-12-04 was a Sunday; the newest three items, newest first
    found = one("2011-12-04T18:30:00", "Germany", ("OLD", "RED MUG", "LANTERN", "CLOCK"))
    assert found == "Sunday evening, Germany, last bought CLOCK; LANTERN; RED MUG"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1970-01-01T00:00:00", "Thursday night"),
        ("1969-12-31T23:59:59", "Wednesday evening"),  # before the epoch
        ("2011-12-05T05:59:59", "Monday night"),
        ("2011-12-05T06:00:00", "Monday morning"),
        ("2011-12-05T12:00:00", "Monday afternoon"),
        ("2011-12-05T23:59:59", "Monday evening"),
        ("2012-02-29T12:00:00", "Wednesday afternoon"),
    ],
)
def test_parts_of_the_week(time, expected):
    assert one(time) == expected


def test_what_is_not_known_is_left_out():
    assert one() is None
    assert one(place=" ", history=("", "  ")) is None
    assert one(place="France") == "France"
    assert one(history=("MUG", "", " LAMP "), verb="watched") == "last watched LAMP; MUG"


def test_rows_keep_their_order():
    times = np.array(["2011-12-05T08", "NaT"], dtype="datetime64[ns]")
    assert sentences(times, [None, "Japan"], [["MUG"], []]) == ["Monday morning, last bought MUG", "Japan"]
    assert sentences(np.array([], dtype="datetime64[s]"), [], []) == []
    with pytest.raises(ValueError, match="zip"):
        sentences(times, ["Japan"], [[], []])
