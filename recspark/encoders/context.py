"""The context of an event (time, place, history) as a sentence for the text encoder. Needs no torch."""

from collections.abc import Sequence

import numpy as np

from recspark.arrays import Array

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")  # six hours each, from 00:00 on
LAST = 3  # newest items of a history that are named


def sentences(
    times: Array, places: Sequence[str | None], histories: Sequence[Sequence[str]], verb: str = "bought"
) -> list[str | None]:
    """`Sunday evening, Germany, last bought RED MUG; GREEN LAMP`, one for each row; None where nothing is known.

    `times`: datetime64 (n,) in local time (NaT: not known); `histories`: the texts of the user's items, oldest first,
    of which the newest `LAST` are named, newest first. Blank places and texts are left out.
    """
    rows = zip(np.asarray(times, dtype="datetime64[h]"), places, histories, strict=True)
    return [", ".join(filter(None, _parts(time, place, texts, verb))) or None for time, place, texts in rows]


def _parts(time: np.datetime64, place: str | None, texts: Sequence[str], verb: str) -> tuple[str, str, str]:
    named = [text.strip() for text in texts if text and text.strip()][: -LAST - 1 : -1]
    return _moment(time), (place or "").strip(), f"last {verb} {'; '.join(named)}" if named else ""


def _moment(time: np.datetime64) -> str:
    if np.isnat(time):
        return ""
    hours = int(time.astype(np.int64))  # since Thursday, 1970-01-01 00:00
    return f"{DAYS[(hours // 24 + 3) % 7]} {PARTS_OF_DAY[hours % 24 // 6]}"
