"""The first rows of files that nobody has described yet: which belong together, how they are read, what is in them.

Without Spark, so that it takes seconds: at most FIRST_ROWS rows of FIRST_FILES files are read, and the start of a text.
"""

import codecs
import csv
import itertools
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pandas as pd
import pyarrow.parquet as pq

from recspark.errors import DataError

log = logging.getLogger(__name__)

FIRST_ROWS, FIRST_FILES, FIRST_BYTES = 20_000, 8, 8 << 20
WHOLE_BYTES = 256 << 20  # of files of which a column is read to the end
SEPARATORS = ("::", "\t", ";", "|", ",", " ")
FORMATS = {
    "parquet": "parquet",
    "csv": "csv",
    "txt": "csv",
    "tsv": "csv",
    "dat": "csv",
    "json": "json",
    "jsonl": "json",
}
csv.field_size_limit(FIRST_BYTES)
NEXT = re.compile(r"[\s,]*")
NUMBER = re.compile(r"^-?\d+([.]\d+)?$")


@dataclass(frozen=True)
class Group:
    """Files with the same columns: what Spark needs to read them, and their first rows.

    `paths`: of every file; `options`: of Spark's reader; `rows`: texts where the format has no types, else typed.
    """

    format: str
    paths: tuple[str, ...]
    rows: pd.DataFrame
    options: dict[str, str] = field(default_factory=dict)
    table: str | None = None

    @property
    def names(self) -> list[str]:
        """The files' names, without folders."""
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in self.paths]


def groups(places: Sequence[str]) -> list[Group]:
    """The files of the given files and folders, grouped by folder, format and columns.

    Raises: DataError for a place that does not exist or holds no file that can be read.
    """
    found: dict[tuple[Any, ...], list[Group]] = {}
    for place in places:
        for path, kind in list_files(place):
            one = read(path, kind) if path == place else readable(path, kind)
            if one is not None and len(one.rows):
                key = (folder_of(path), kind, tuple(one.rows.columns), tuple(one.options.items()))
                found.setdefault(key, []).append(one)
    if not found:
        raise DataError(
            f"{', '.join(places)}: found no rows in files that end in {', '.join(FORMATS)}, nor a Delta folder; "
            "give files, or the folder that holds them"
        )
    return [together(parts) for parts in found.values()]


def together(parts: Sequence[Group]) -> Group:
    """One group of the files; their rows one below the other."""
    rows = pd.concat([part.rows for part in parts[:FIRST_FILES]], ignore_index=True)
    return Group(parts[0].format, tuple(path for part in parts for path in part.paths), rows, parts[0].options)


def list_files(place: str) -> Iterator[tuple[str, str]]:
    """(path, format) of each file below a place; a Delta folder counts as one file.

    Raises: DataError if the place does not exist.
    """
    try:
        fs, root = fsspec.core.url_to_fs(place)
        there = fs.exists(root)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{place} cannot be opened: {error}") from error
    if not there:
        raise DataError(f"{place} does not exist; give files, or the folder that holds them")
    prefix = place[: len(place) - len(root)] if place.endswith(root) else ""
    if fs.isfile(root):
        yield place, kind_of(root) or "csv"
        return
    if fs.exists(f"{root}/_delta_log"):
        yield place, "delta"
        return
    for path in sorted(fs.ls(root, detail=False)):
        name = path.rsplit("/", 1)[-1]
        shown = f"{place.rstrip('/')}/{name}" if not prefix else f"{prefix}{path}"
        if name.startswith((".", "_")):
            continue
        if fs.isdir(path):
            yield from list_files(shown)
        elif kind_of(name):
            yield shown, str(kind_of(name))


def kind_of(name: str) -> str | None:
    """The format that a file's name says, also below .gz; None for others, and for a README."""
    parts = name.lower().removesuffix(".gz").rsplit(".", 1)
    return FORMATS.get(parts[-1]) if len(parts) == 2 and "readme" not in parts[0] else None


def folder_of(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0]


def readable(path: str, kind: str) -> Group | None:
    """As `read`, for a file that nobody named: None if it cannot be read."""
    try:
        return read(path, kind)
    except DataError as error:
        log.warning("left out: %s", error)
        return None


def read(path: str, kind: str) -> Group | None:
    """The first rows of one file; None if it is no table.

    Raises: DataError if it cannot be read as its name says.
    """
    try:
        if kind == "parquet":
            return Group(kind, (path,), parquet_rows(path))
        if kind == "delta":
            fs, root = fsspec.core.url_to_fs(path)
            data = sorted(file for file in fs.find(root) if file.endswith(".parquet") and "_delta_log" not in file)
            return Group(kind, (path,), parquet_rows(fs.unstrip_protocol(data[-1]))) if data else None
        return json_rows(path) if kind == "json" else text_rows(path)
    except (ValueError, OSError, EOFError, csv.Error) as error:  # EOFError: a gzip file that is cut off
        raise DataError(f"{path} cannot be read as {kind}: {str(error).splitlines()[0]:.120}") from error


def parquet_rows(path: str) -> pd.DataFrame:
    """Rows from the start, the middle and the end of the file: a file may be sorted."""
    with fsspec.open(path, "rb") as file:
        found = pq.ParquetFile(file)
        last = found.num_row_groups - 1
        parts = []
        for number in sorted({0, last // 2, last}):
            batches = found.iter_batches(FIRST_ROWS, row_groups=[number])
            parts += [batch.to_pandas() for batch in [next(batches, None)] if batch is not None]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def json_rows(path: str) -> Group:
    """An object a line, or one list of objects in the file."""
    text, _ = start_of(path)
    is_list = text.lstrip().startswith("[")
    found = elements(text) if is_list else map(json_of, text.splitlines())
    rows = [plain(row) for row in itertools.islice(found, FIRST_ROWS) if isinstance(row, dict)]
    if not rows:
        raise ValueError("no line is an object, and the file is no list of them")
    return Group("json", (path,), pd.DataFrame(rows), {"multiLine": "true"} if is_list else {})


def elements(text: str) -> Iterator[Any]:
    """The elements of a list in JSON, of which only the start may be there."""
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    while True:
        at = NEXT.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing as well
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        yield value


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """As Spark reads it: half of a surrogate pair, which is no letter, is `?`."""
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def json_of(line: str) -> Any:
    """What a line holds; None for a broken one, which a night rejects."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def start_of(path: str) -> tuple[str, str]:
    """The start of a text file, whole lines, and its encoding: UTF-8, else Latin-1."""
    with fsspec.open(path, "rb", compression="infer") as file:
        data: bytes = file.read(FIRST_BYTES)
    if len(data) == FIRST_BYTES:
        data = data[: data.rfind(b"\n") + 1] or data
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(data), "UTF-8"  # the last letter may be cut off
    except UnicodeDecodeError:
        return data.decode("latin-1"), "ISO-8859-1"


def text_rows(path: str) -> Group | None:
    """A text with one row a line, every value a text; None if its lines have no common separator."""
    text, encoding = start_of(path)
    lines = [line for line in text.splitlines() if line.strip()][:FIRST_ROWS]
    separator = separator_of(lines[:200])
    if separator is None:
        return None
    rows = [split(line, separator) for line in lines]
    width = len(rows[0])
    whole = [row for row in rows if len(row) == width]
    header = has_header(whole)
    names = whole[0] if header else [f"_c{n}" for n in range(width)]  # as Spark names them
    options = {"sep": separator} if separator != "," else {}
    options |= {"header": "true"} if header else {}
    options |= {"encoding": encoding} if encoding != "UTF-8" else {}
    frame = pd.DataFrame(whole[1:] if header else whole, columns=unique(names))
    return Group("csv", (path,), frame.replace("", None), options)


def unique(names: Sequence[str]) -> list[str]:
    """Names for a frame: an empty one is `_c<position>`, as in Spark."""
    return [name or f"_c{n}" for n, name in enumerate(names)]


def split(line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator))


def separator_of(lines: Sequence[str]) -> str | None:
    """The separator that gives nearly all lines the same number of values, at least two."""
    for separator in SEPARATORS:
        widths = pd.Series([len(split(line, separator)) for line in lines])
        width = int(widths.mode()[0]) if len(widths) else 0
        if width > 1 and (widths == width).mean() >= 0.95:
            return separator
    return None


def has_header(rows: Sequence[list[str]]) -> bool:
    """The first row names columns: it holds no number, and a number stands below, or it is unlike all other rows."""
    if any(NUMBER.match(value) for value in rows[0]) or len(set(rows[0])) < len(rows[0]):
        return False
    numeric = [all(NUMBER.match(row[n]) for row in rows[1:20]) for n in range(len(rows[0]))]
    if len(rows) == 1:
        return all(re.fullmatch(r"[A-Za-z_][\w .-]*", value) for value in rows[0])
    repeated = any(value in {row[n] for row in rows[1:]} for n, value in enumerate(rows[0]))
    return any(numeric) or not repeated


def whole_column(group: Group, column: str) -> pd.Series | None:
    """A column of all rows; None if the files are too large for that, of a format that is not read so, or damaged after
    their first rows."""
    if group.format not in ("parquet", "csv"):
        return None
    fs = fsspec.core.url_to_fs(group.paths[0])[0]
    if sum(fs.size(path) for path in group.paths) > WHOLE_BYTES:
        return None
    try:
        return pd.concat([column_of(path, group, column) for path in group.paths], ignore_index=True)
    except (ValueError, OSError, EOFError) as error:
        log.warning("%s: only the first rows were read: %s", group.names[0], error)
        return None


def column_of(path: str, group: Group, column: str) -> pd.Series:
    """A column of one file."""
    with fsspec.open(path, "rb", compression="infer") as file:
        if group.format == "parquet":
            return pq.read_table(file, columns=[column]).to_pandas()[column]
        separator = group.options.get("sep", ",")
        found = pd.read_csv(
            file,
            sep=separator,
            engine="c" if len(separator) == 1 else "python",
            header=0 if "header" in group.options else None,
            usecols=[list(group.rows.columns).index(column)],
            dtype=str,
            encoding=group.options.get("encoding", "utf-8"),
            encoding_errors="replace",
            on_bad_lines="skip",
        )
        return found.iloc[:, 0]
