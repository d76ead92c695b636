"""The rows of a small table without Spark, in milliseconds: for commands that must answer when Spark does not start.

It reads what recspark writes: Delta's log with commits as JSON and checkpoints of one file, tables without partitions.
For all else it answers None, and Spark is to be asked.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
READER_VERSION = 1  # of Delta: no deletion vectors, no other names of columns than those in the files


def read(folder: str, columns: Sequence[str], where: tuple[str, str] | None = None) -> list[dict[str, Any]] | None:
    """Rows of the newest version; none without a table; None where only Spark can tell.

    `where`: (column, value) of texts or dates as texts, of which only the files that may have it are read.
    """
    fs, root = fsspec.core.url_to_fs(folder)
    try:
        names = sorted(path.rsplit("/", 1)[-1] for path in fs.ls(f"{root}/_delta_log", detail=False))
    except FileNotFoundError:
        return []
    files = _files(fs, f"{root}/_delta_log", names)
    if files is None:
        return None
    rows: list[dict[str, Any]] = []
    for path, stats in sorted(files.items()):
        if where is None or _may_have(stats, *where):
            with fs.open(f"{root}/{unquote(path)}", "rb") as file:
                rows += _table(file, columns).to_pylist()
    return rows if where is None else [row for row in rows if str(row[where[0]]) == where[1]]


def _files(fs: fsspec.AbstractFileSystem, log: str, names: Iterable[str]) -> dict[str, str] | None:
    """Data file -> its statistics, of the newest version; None where only Spark can tell."""
    commits = {int(match[1]): match[0] for name in names if (match := COMMIT.fullmatch(name))}
    checkpoints = {int(match[1]): match[0] for name in names if (match := CHECKPOINT.fullmatch(name))}
    start = max(checkpoints, default=-1)
    later = sorted(version for version in commits if version > start)
    if later != list(range(start + 1, start + 1 + len(later))) or (start < 0 and not later):
        return None  # the log was cleaned while it was listed, or its checkpoints are of another kind
    actions: list[dict[str, Any]] = []
    if start >= 0:
        with fs.open(f"{log}/{checkpoints[start]}", "rb") as file:
            actions += _table(file, ("add", "protocol")).to_pylist()
    for version in later:
        actions += map(json.loads, fs.cat_file(f"{log}/{commits[version]}").splitlines())
    found: dict[str, str] = {}
    for action in actions:
        protocol, add, remove = (action.get(name) for name in ("protocol", "add", "remove"))
        if protocol and protocol["minReaderVersion"] > READER_VERSION:
            return None
        if remove:
            found.pop(remove["path"], None)
        if add:
            if add.get("partitionValues") or ":" in add["path"]:
                return None
            found[add["path"]] = add.get("stats") or "{}"
    return found


def _table(file: Any, columns: Sequence[str]) -> pa.Table:
    """Read in this thread alone: pyarrow's may still run when the command ends, and end it with a signal."""
    return pq.ParquetFile(file, coerce_int96_timestamp_unit="us").read(list(columns), use_threads=False)


def _may_have(stats: str, column: str, value: str) -> bool:
    known = json.loads(stats)
    least, most = (known.get(name, {}).get(column) for name in ("minValues", "maxValues"))
    return least is None or most is None or str(least) <= value <= str(most)
