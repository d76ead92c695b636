"""A moment as a sentence, made of time, place and history, for the text encoder. Needs no torch."""

from collections.abc import Sequence

import numpy as np

from recspark.arrays import Array

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = ("night", "morning", "afternoon", "evening")  # six hours each, from 00:00 on
LAST = 3  # items of a history that are named


def sentences(
    times: Array, places: Sequence[str | None], histories: Sequence[Sequence[str]], verb: str = "bought"
) -> list[str | None]:
    """`Sunday evening, Germany, last bought RED MUG; GREEN LAMP`, one for each row; null where nothing is known.

    `times` is datetime64 (n,) in the clock that the words mean (NaT: not known), `histories` are texts of the user's
    items, oldest first; the newest `LAST` are named, newest first. Blank places and texts are left out.
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
    return f"{DAYS[(hours // 24 + 3) % 7]} {PARTS[hours % 24 // 6]}"
