"""Raw events with every kind of damage that we know of, and what must become of each row.

A row begins as a good one, with a user of its own, and is damaged in one place or two. The truth is known by
construction: nothing here is computed by recspark. `draw` gives the rows, damaged_files.py writes them.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

RUN_DATE = date(2024, 2, 1)
COLUMNS = ("page", "user", "item", "at", "action", "amount", "n", "note")
EXPRESSIONS = {
    "scenario": "page",
    "user_id": "user",
    "item_id": "item",
    "event_time": "at",
    "event": "action",
    "value": "amount",
    "context": {"quantity": "n"},
}
NAMES = {"page": "scenario", "user": "user_id", "item": "item_id", "action": "event"}
ACCEPTED, LATER = "accepted", "later"
# Which of two damages decides: the first of these.
ORDER = (
    LATER,
    *(f"null {name}" for name in ("user_id", "item_id", "scenario", "event")),
    *(f"unreadable {name}" for name in ("scenario", "user_id", "item_id", "event")),
    "reserved user_id",
    "reserved scenario",
    *("unparsable event_time", "null event_time", "event_time before 1900"),
    *("unparsable value", "non-finite value", "out of range value"),
    ACCEPTED,
)
LONG = 100_000  # letters of a long id

Row = dict[str, Any]


@dataclass(frozen=True)
class Damage:
    """A value that a column gets, what becomes of the row, and the value that an accepted row has then."""

    column: str
    raw: Any
    outcome: str
    value: Any = None


def _ids() -> list[Damage]:
    """Of the four columns of ids."""
    found = []
    blank = (None, "", " \t ", "\u00a0\u3000", "\u200b\ufeff", "\x00")
    odd = (
        "аnn", "ﬁ", "e\u0301", "👩‍🚀", "مرحبا", "../../etc/passwd", "'; DROP TABLE x; --", "a/b\\c", "a=b&c", "%20",
        "*", "${HOME}", "NULL", "null", "NA", "NaN", "None", "undefined", "0", "007", "1e5", "true", "_", ".", "#x",
        'a "b", c', '"', "a\x00b", "a\x07b", "<b>", "{}", "[1]", "\\", "\\n", "a'b", "a;b", "a|b", "-", "x" * LONG,
    )  # fmt: skip
    around = (("  x ", "x"), ("\ufeffx", "x"), ("\tx\t", "x"), ("x\u00a0", "x"), ("a  b", "a  b"))
    for column, name in NAMES.items():
        found += [Damage(column, value, f"null {name}") for value in blank]
        found += [Damage(column, value, f"unreadable {name}") for value in ("M\ufffdller", "\ufffd")]
        found += [Damage(column, value, ACCEPTED, value) for value in odd]
        found += [Damage(column, raw, ACCEPTED, value) for raw, value in around]
    found += [Damage("user", value, "reserved user_id") for value in ("__default__", " __default__\t")]
    found += [Damage("page", value, "reserved scenario") for value in ("__all__", "__all__ ")]
    found += [Damage("user", "__all__", ACCEPTED, "__all__"), Damage("page", "__default__", ACCEPTED, "__default__")]
    return found


def _times() -> list[Damage]:
    unparsable = (
        "yesterday", "now", "today", "2024-02-30", "2023-02-29", "2024-13-01", "2024-00-10", "0000-00-00", "10:00:00",
        "T10:00", "12:34", "1704067200", "1704067200000", "1704067200000000", "1000000000000000000", "1e9", "45292.5",
        "20713", "20240102", "01/02/2024", "2024/01/02", "02.01.2024", "2024-01-01 25:00:00", "2024-01-01 24:00:00",
        "2024-01-01 23:59:60", "2024-01-01 10:00:00 PM", "Jan 2 2024", "Mon, 02 Jan 2024 10:00:00 GMT", "10000-01-01",
        "2024-01-01x", "2024-01-01T10:00:00,5", "-2024-01-01", "NaN", "null", "0",
    )  # fmt: skip
    early = ("0001-01-01", "1753-01-01 00:00:00", "1582-10-10", "1899-12-31 23:59:59", "0024-01-02", "1234")
    late = (
        "9999-12-31 23:59:59", "2024-02-01", "2024-02-01T00:30:00Z", "2024-01-31T23:30:00-01:00", "2042-01-01",
        "2024-01-31 20:00:00 America/New_York",
    )  # fmt: skip
    good = {
        "2024-01-05": "2024-01-05 00:00:00",
        "2024-1-5 7:08:09": "2024-01-05 07:08:09",
        " 2024-01-05 ": "2024-01-05 00:00:00",
        "2024-01-05T10:00": "2024-01-05 10:00:00",
        "2024-01-05T10:00:00Z": "2024-01-05 10:00:00",
        "2024-01-05T10:00:00+02:00": "2024-01-05 08:00:00",
        "2024-01-05T10:00:00.123456789Z": "2024-01-05 10:00:00.123456",
        "2024-01-05 10:00:00.5": "2024-01-05 10:00:00.5",
        "2024-01-15 10:00:00 America/New_York": "2024-01-15 15:00:00",
        "2023-07-15 10:00:00 America/New_York": "2023-07-15 14:00:00",
        "2023-11-05 01:30:00 America/New_York": "2023-11-05 05:30:00",
        "2023-03-12 02:30:00": "2023-03-12 02:30:00",
        "2024-02-01T00:30:00+01:00": "2024-01-31 23:30:00",
        "2024-01": "2024-01-01 00:00:00",
        "1900-01-01": "1900-01-01 00:00:00",
    }
    return [
        *(Damage("at", value, "null event_time") for value in (None, "", "   ", "\u00a0")),
        *(Damage("at", value, "unparsable event_time") for value in unparsable),
        *(Damage("at", value, "event_time before 1900") for value in early),
        *(Damage("at", value, LATER) for value in late),
        *(Damage("at", raw, ACCEPTED, value) for raw, value in good.items()),
    ]


def _numbers() -> list[Damage]:
    unparsable = (
        "cheap", "1,5", "1.234,56", "$5", "5%", "5d", "5f", "1.5D", "0x10", "0x1p3", "1_000", "1 000", "true", "--1",
        "1e", "٣", "1/2", "½", "5 EUR", "null", "#REF!", "1.2.3", "+", ".", "{}",
    )  # fmt: skip
    good = {
        "1e-320": 1e-320, "4.9e-324": 5e-324, "1e-400": 0.0, "-0": -0.0, "+1": 1.0, "1e3": 1000.0, ".5": 0.5,
        "5.": 5.0, " 2.5 ": 2.5, "1e30": 1e30, "-7": -7.0, "007": 7.0, "0.1": 0.1, "9007199254740993": 2.0**53,
    }  # fmt: skip
    return [
        *(Damage("amount", value, ACCEPTED) for value in (None, "", "  ")),
        *(Damage("amount", value, "unparsable value") for value in unparsable),
        *(Damage("amount", v, "non-finite value") for v in ("NaN", "nan", "Infinity", "-Infinity", "inf", "1e309")),
        *(Damage("amount", value, "out of range value") for value in ("1e31", "-3.4e38", "1e39", "1e300")),
        *(Damage("amount", raw, ACCEPTED, value) for raw, value in good.items()),
    ]


def _typed() -> list[Damage]:
    """Of a column of microseconds and one of doubles."""
    second = 10**6
    values: dict[float, str] = {
        float("nan"): "non-finite value",
        float("inf"): "non-finite value",
        float("-inf"): "non-finite value",
        1e31: "out of range value",
        -1.7e308: "out of range value",
        1e30: ACCEPTED,
        5e-324: ACCEPTED,
        -0.0: ACCEPTED,
    }
    return [
        *(Damage("at", time, "unparsable event_time") for time in (10**18, -(10**18), 2**63 - 1, -(2**63))),
        Damage("at", None, "null event_time"),
        Damage("at", -62135596800 * second, "event_time before 1900"),  # 0001-01-01
        Damage("at", -2208988801 * second, "event_time before 1900"),  # 1899-12-31 23:59:59
        Damage("at", 253402300799 * second, LATER),  # 9999-12-31 23:59:59
        Damage("at", 1706745600 * second, LATER),  # 2024-02-01
        Damage("at", 1706745600 * second - 1, ACCEPTED, "2024-01-31 23:59:59.999999"),
        Damage("at", 1704067200 * 1000, ACCEPTED, "1970-01-20 17:21:07.2"),  # milliseconds, taken for microseconds
        Damage("amount", None, ACCEPTED),
        *(Damage("amount", value, outcome, value) for value, outcome in values.items()),
    ]


TEXTS = (*_ids(), *_times(), *_numbers())
TYPED = (*_ids(), *_typed())


@dataclass
class Truth:
    """What must become of the raw rows. `rejected`: (reason, mark) of every rejected row; a mark is the row's note, or
    the text of a malformed one."""

    accepted: dict[tuple[Any, ...], tuple[float | None, str | None]] = field(default_factory=dict)
    raw: int = 0
    merged: int = 0
    duplicates: int = 0
    later: int = 0
    rejected: list[tuple[str, str | None]] = field(default_factory=list)

    def add(self, outcome: str, row: Row, mark: str | None) -> None:
        """`row`: with the values that an accepted row has."""
        self.raw += 1
        if outcome == LATER:
            self.later += 1
        elif outcome == ACCEPTED:
            self.accepted[key_of(row)] = (row["amount"], row["n"])
        else:
            self.rejected.append((outcome, mark))

    @property
    def reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(reason for reason, _ in self.rejected).items()))


def key_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("page", "user", "item", "at", "action"))


@dataclass(frozen=True)
class Made:
    """A row as it is written, as it must be read, and what must become of it."""

    raw: Row
    read: Row
    outcome: str


def good(number: int, rng: random.Random) -> Row:
    """A row that nothing is wrong with; as written."""
    at = datetime(2024, 1, 1) + timedelta(seconds=rng.randrange(31 * 86400))
    return {
        "page": rng.choice(("shop", "Österreich", "cart page")),
        "user": f"u{number}",
        "item": f"i{rng.randrange(500)}",
        "at": f"{at:%Y-%m-%d %H:%M:%S}",
        "action": rng.choice(("view", "buy")),
        "amount": str(rng.randrange(1, 400) / 4),
        "n": str(rng.randrange(1, 9)),
        "note": f"note {number}",
    }


def read_as(row: Row) -> Row:
    return {**row, "amount": float(row["amount"])}


def damaged(row: Row, damages: list[Damage]) -> Made:
    """The row with values of other columns; the first of the outcomes in ORDER is its own."""
    raw, read = dict(row), read_as(row)
    for one in damages:
        raw[one.column] = one.raw
        read[one.column] = one.value
    return Made(raw, read, min((*(one.outcome for one in damages), ACCEPTED), key=ORDER.index))


def draw(rng: random.Random, num_rows: int, damages: Sequence[Damage] = TEXTS) -> list[Made]:
    """Each damage at least once, a tenth of the damaged rows with two, and good rows for the rest."""
    rows = [damaged(good(number, rng), [one]) for number, one in enumerate(damages)]
    short = [one for one in damages if len(str(one.raw)) < LONG]
    while len(rows) < num_rows:
        kind, row = rng.random(), good(len(rows), rng)
        chosen = [rng.choice(short) for _ in range(0 if kind < 0.7 else 2 if kind > 0.97 else 1)]
        rows.append(damaged(row, list({one.column: one for one in chosen}.values())))
    rng.shuffle(rows)
    return rows


def truth_of(rows: list[Made]) -> Truth:
    found = Truth()
    for row in rows:
        found.add(row.outcome, row.read, row.raw["note"])
    return found


def repeated(rows: list[Made], truth: Truth, rng: random.Random, count: int) -> list[Row]:
    """More raw rows: copies of accepted ones, and rows with the same key and other values, which are merged."""
    more = []
    for number in range(count):
        picked = rows[number * len(rows) // count]
        if picked.outcome != ACCEPTED or picked.raw["amount"] != str(picked.read["amount"]):
            continue  # sums of others need more than a look
        copy, key = dict(picked.raw), key_of(picked.read)
        truth.raw += 1
        if rng.random() < 0.5:
            truth.duplicates += 1
        else:
            copy |= {"amount": "0.25", "n": "3", "note": f"again {number}"}
            value, quantity = truth.accepted[key]
            truth.accepted[key] = ((value or 0.0) + 0.25, str(int(quantity or 0) + 3))
            truth.merged += 1
        more.append(copy)
    return more
