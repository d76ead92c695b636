"""Damaged rows (damages.py) as sources of every format, with the damages that only a text in CSV or JSON can have.

Each `write` puts files into a folder and gives the source's settings and the truth of all its rows.
"""

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.night.damages import (
    ACCEPTED,
    COLUMNS,
    TYPED,
    Made,
    Row,
    Truth,
    draw,
    good,
    read_as,
    repeated,
    truth_of,
)

Written = tuple[dict[str, Any], Truth]  # settings of the source, and what must become of its rows
Text = tuple[bytes, list[tuple[str, Row, str | None]]]  # bytes of lines, [(outcome, row as read, mark)]


# -- CSV --------------------------------------------------------------------------------------------------------------


def csv_line(row: Row) -> str:
    """Quotes where a spreadsheet would write them."""

    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n\r') else text

    return ",".join(cell(row[name]) for name in COLUMNS)


def csv_texts(row: Row) -> list[Text]:
    """Damages of a CSV's text, made of a good row: (bytes of the lines, [(outcome, row as read, mark)])."""
    line, read, cells = csv_line(row), read_as(row), csv_line(row).split(",")
    user, note = row["user"], row["note"]

    def bad(*texts: str) -> Text:
        return "\n".join(texts).encode(), [("malformed row", read, text) for text in texts]

    def fine(text: str, **values: Any) -> Text:
        return text.encode(), [(ACCEPTED, {**read, **values}, note)]

    return [
        *(bad(",".join(cells[:width])) for width in range(1, len(cells))),
        bad(line + ","),
        bad(line + ",more"),
        bad(line + "," * 50),
        bad(line.replace(user, f'"{user}')),  # a quote that never closes ends with its line
        bad(*line.replace(user, f'"{user}\nx"').split("\n")),  # so does a line break inside quotes
        fine(line.replace(note, f'"{note}')),
        fine(line.replace(user, f'"{user}"')),
        fine(line.replace(user, f'{user}"7'), user=f'{user}"7'),
        fine(line.replace(user, f'"{user}"x'), user=f'"{user}"x'),
        fine("\x00" + line),
        fine("\ufeff" + line),
        fine("#" + line, page="#" + row["page"]),
        fine(line + "\r"),
        (line.replace(user, "M?ller").encode().replace(b"M?", b"M\xfc"), [("unreadable user_id", read, note)]),
        (line.replace(row["item"], "i?").encode().replace(b"i?", b"i\xff\xfe"), [("unreadable item_id", read, note)]),
        (b"\n   \n\r\n\t\n", []),
        (",".join(COLUMNS).encode(), [("unparsable event_time", read, "note")]),
        (b"," * (len(COLUMNS) - 1), [("null user_id", read, None)]),
    ]


def _texts(damages: Callable[[Row], list[Text]], num_rows: int, truth: Truth, rng: random.Random) -> list[bytes]:
    """Each damage of a text once, and again for every 500 rows; each of a row of its own."""
    found = []
    for again in range(max(1, num_rows // 500)):
        for kind in range(len(damages(good(0, rng)))):
            text, outcomes = damages(good(10**6 + 1000 * again + kind, rng))[kind]
            found.append(text)
            for outcome, read, mark in outcomes:
                truth.add(outcome, read, mark)
    return found


def write_csv(folder: Path, num_rows: int, rng: random.Random) -> Written:
    """In several files: with and without a mark of the byte order, a header alone, nothing at all."""
    rows = draw(rng, num_rows)
    truth = truth_of(rows)
    lines = [csv_line(row) for row in (*(made.raw for made in rows), *repeated(rows, truth, rng, len(rows) // 10))]
    chunks = [line.encode() for line in lines]
    chunks += _texts(csv_texts, len(rows), truth, rng)
    rng.shuffle(chunks)
    header, half = ",".join(COLUMNS).encode(), len(chunks) // 2
    parts = ((b"\xef\xbb\xbf", chunks[:half], b"\n"), (b"", chunks[half:], b"\r\n"), (b"", [], b"\n"))
    for number, (mark, part, end) in enumerate(parts):
        (folder / f"{number}.csv").write_bytes(mark + end.join([header, *part]) + end)
    (folder / "empty.csv").write_bytes(b"")
    return {"format": "csv", "paths": [str(folder)], "options": {"header": "true"}}, truth


# -- JSON -------------------------------------------------------------------------------------------------------------


def json_objects(row: Row, fresh: Callable[[], Row]) -> list[Made]:
    """Damages of an object: other types of values, missing, further and reordered keys. `fresh`: another good row."""

    def made(outcome: str = ACCEPTED, *, drop: tuple[str, ...] = (), read: Row | None = None, **values: Any) -> Made:
        new = fresh()
        raw = {name: value for name, value in {**new, **values}.items() if name not in drop}
        return Made(raw, {**read_as(new), **(read or {})}, outcome)

    backwards = dict(reversed(row.items()))
    return [
        Made(backwards, read_as(row), ACCEPTED),
        made(user=5, read={"user": "5"}),
        made(user=1.5, read={"user": "1.5"}),
        made(user=True, read={"user": "true"}),
        made(user={"a": 1}, read={"user": '{"a": 1}'}),
        made(user=["a"], read={"user": '["a"]'}),
        made(user=2**70, read={"user": str(2**70)}),
        made("unparsable event_time", at=1704067200),
        made("unparsable event_time", at={"$date": "2024-01-01"}),
        made("unparsable event_time", at=True),
        made(amount=2.5, read={"amount": 2.5}),
        made("unparsable value", amount=True),
        made("unparsable value", amount=[1]),
        made("non-finite value", amount=float("nan")),
        made("non-finite value", amount=float("-inf")),
        made("out of range value", amount=10**40),
        made(n=4, read={"n": "4"}),
        made(more=1, deep={"a": [{"b": None}]}),
        made("null user_id", drop=("user",)),
        made("null event_time", drop=("at",)),
        made(drop=("amount",), read={"amount": None}),
        made(drop=("n",), read={"n": None}),
        Made({"note": None}, read_as(row), "null user_id"),
    ]


def json_texts(row: Row) -> list[Text]:
    """Damages of a line of JSON, as `csv_texts`."""
    text, read, user, note = json.dumps(row, ensure_ascii=False), read_as(row), row["user"], row["note"]
    again = {**row, "user": user + "b"}

    def bad(line: str, seen: str | None = None) -> Text:
        return line.encode(), [("malformed row", read, seen or line)]

    def fine(line: str, **values: Any) -> Text:
        return line.encode(), [(ACCEPTED, {**read, **values}, note)]

    return [
        *(bad(text[: len(text) * part // 7]) for part in range(1, 7)),
        bad(text[1:]),
        bad(text[:-1]),
        bad(text.replace(f'"{user}"', f'"{user}')),
        bad(text.replace(f'"{user}"', user)),
        bad(text.replace(f'"{user}"', f'"{user}\t"')),
        bad(text.replace(f'"{user}"', "007")),
        bad(text.replace('"user"', "user")),
        bad(text[:-1] + ",}"),
        bad(f"{user} null"),
        bad(f'"{user}"'),
        bad(f"[{user[1:]}]"),
        fine(text.replace('"', "'")),
        fine(text + " # the end"),
        fine(text + "\r"),
        fine("  " + text + "  "),
        fine(text.replace(f'"{user}"', f'"{user}\\ud800"'), user=user + "?"),
        fine(text.replace(f'"{user}"', f'"{user}\\u0000\\u0041"'), user=user + "\x00A"),
        (text.replace(user, "M?ller").encode().replace(b"M?", b"M\xfc"), [
            ("malformed row", read, text.replace(user, "M\ufffdller"))
        ]),
        (f"[{text}, {json.dumps(again)}]".encode(), [(ACCEPTED, read, note), (ACCEPTED, read_as(again), note)]),
        (b"\n   \n\r\n[]\n", []),
    ]  # fmt: skip


def _objects(rows: list[Made], truth: Truth, rng: random.Random) -> list[Row]:
    numbers = iter(range(2 * 10**6, 3 * 10**6))
    made = [
        one
        for _ in range(max(1, len(rows) // 500))
        for one in json_objects(good(next(numbers), rng), lambda: good(next(numbers), rng))
    ]
    for one in made:
        truth.add(one.outcome, one.read, one.raw["note"])
    return [*(row.raw for row in rows), *repeated(rows, truth, rng, len(rows) // 10), *(one.raw for one in made)]


def write_json(folder: Path, num_rows: int, rng: random.Random) -> Written:
    """An object a line."""
    rows = draw(rng, num_rows)
    truth = truth_of(rows)
    chunks = [json.dumps(row, ensure_ascii=rng.random() < 0.5).encode() for row in _objects(rows, truth, rng)]
    chunks += _texts(json_texts, len(rows), truth, rng)
    rng.shuffle(chunks)
    half = len(chunks) // 2
    (folder / "a.json").write_bytes(b"\xef\xbb\xbf" + b"\n".join(chunks[:half]) + b"\n")
    (folder / "b.json").write_bytes(b"\r\n".join(chunks[half:]))
    (folder / "empty.json").write_bytes(b"")
    return {"format": "json", "paths": [str(folder)]}, truth


def write_list(folder: Path, num_rows: int, rng: random.Random) -> Written:
    """One list in the file."""
    rows = draw(rng, num_rows)
    truth = truth_of(rows)
    objects = _objects(rows, truth, rng)
    rng.shuffle(objects)
    between = rng.choice((",", ",\n", "\n  , "))
    text = f"[{between.join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in objects)}]"
    (folder / "a.json").write_text(text, encoding="utf-8")
    return {"format": "json", "paths": [str(folder)], "options": {"multiLine": "true"}}, truth


# -- formats with types -----------------------------------------------------------------------------------------------


def write_texts(folder: Path, num_rows: int, rng: random.Random) -> Written:
    """Parquet with a text in every column, some of which are not UTF-8."""
    rows = draw(rng, num_rows)
    truth = truth_of(rows)
    raws = [*(row.raw for row in rows), *repeated(rows, truth, rng, len(rows) // 10)]
    cells = {name: [None if row[name] is None else row[name].encode() for row in raws] for name in COLUMNS}
    for number in range(max(1, len(rows) // 500)):
        new = good(4 * 10**6 + number, rng)
        for name, value in {**new, "user": None}.items():
            cells[name].append(value.encode() if value else b"M\xfcller")
        truth.add("unreadable user_id", read_as(new), new["note"])
    columns = {name: _unchecked(values) for name, values in cells.items()}
    pq.write_table(pa.table(columns), folder / "a.parquet", row_group_size=1000)
    return {"format": "parquet", "paths": [str(folder)]}, truth


def _unchecked(values: list[bytes | None]) -> pa.Array:
    """Texts whose bytes pyarrow has not looked at."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def write_typed(folder: Path, num_rows: int, rng: random.Random) -> Written:
    """Parquet with times, doubles and whole numbers."""
    rows = draw(rng, num_rows, TYPED)
    truth = truth_of(rows)
    raws = [*(row.raw for row in rows), *repeated(rows, truth, rng, len(rows) // 10)]
    times = [_micros(row["at"]) for row in raws]
    texts = {name: pa.array([row[name] for row in raws]) for name in ("page", "user", "item", "action", "note")}
    columns = {
        **texts,
        "at": pa.array(times, pa.int64()).cast(pa.timestamp("us")),
        "amount": pa.array([None if row["amount"] is None else float(row["amount"]) for row in raws]),
        "n": pa.array([int(row["n"]) for row in raws]),
    }
    pq.write_table(pa.table({name: columns[name] for name in COLUMNS}), folder / "a.parquet", row_group_size=1000)
    return {"format": "parquet", "paths": [str(folder)]}, truth


def _micros(time: str | int | None) -> int | None:
    """Since 1970."""
    if not isinstance(time, str):
        return time
    return (datetime.fromisoformat(time) - datetime(1970, 1, 1)) // timedelta(microseconds=1)


WRITERS: dict[str, Callable[[Path, int, random.Random], Written]] = {
    "csv": write_csv,
    "json": write_json,
    "json list": write_list,
    "parquet of texts": write_texts,
    "parquet": write_typed,
}
