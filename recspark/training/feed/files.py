"""Parquet files of training rows: their row groups, which of their rows count, and their columns by pyarrow."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow.parquet as pq

from recspark.arrays import Array
from recspark.errors import DataError, SchemaError
from recspark.training.feed.lanes import RowGroup

Columns: TypeAlias = dict[str, Array]
PART_ROWS = 1 << 16  # decoded at once
READ_BYTES = 1 << 16  # from a local file at once


@dataclass(frozen=True)
class RowFilter:
    """Which rows count: those whose `column` is one of `values`, or, with keep=False, is none of them."""

    column: str
    values: frozenset[int]
    keep: bool = True

    def mask(self, column: Array) -> Array:
        return np.isin(column, sorted(self.values), invert=not self.keep)


def rows_that_count(filters: Sequence[RowFilter], columns: Columns) -> Array:
    """bool (n,): the rows that every filter counts."""
    masks = [one.mask(columns[one.column]) for one in filters]
    return np.asarray(np.logical_and.reduce(masks))


def num_rows(files: Sequence[str], filters: Sequence[RowFilter]) -> int:
    """How many rows of the files count; 0 is not an error."""
    return sum(group.rows for group in row_groups([local_path(file) for file in files], (), filters))


def row_groups(paths: Sequence[str], names: Sequence[str], filters: Sequence[RowFilter] = ()) -> list[RowGroup]:
    """All row groups with the number of rows that count: from the footers, and the filters' columns if there are any.

    Raises: SchemaError when a column of `names` or of a filter is missing, DataError when a file is gone.
    """
    groups = []
    columns = list(dict.fromkeys(one.column for one in filters))
    for number, path in enumerate(paths):
        file = _open(path)
        missing = sorted({*names, *columns} - set(file.schema_arrow.names))
        if missing:
            raise SchemaError(f"{path}: columns {missing} are missing, present are {sorted(file.schema_arrow.names)}")
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if filters:
                table = file.read_row_group(group, columns=columns)
                rows = int(rows_that_count(filters, {name: table[name].to_numpy() for name in columns}).sum())
            groups.append(RowGroup(number, group, rows))
    return groups


def arrow_groups(paths: Sequence[str], groups: Sequence[RowGroup], names: Sequence[str]) -> Iterator[Iterator[Columns]]:
    """The columns `names` of each row group, in parts."""
    opened: tuple[int, pq.ParquetFile] | None = None
    for group in groups:
        if opened is None or opened[0] != group.file:
            opened = (group.file, _open(paths[group.file]))
        # in parts that stay in the cache; a row group at once would need new memory every time
        yield (
            {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}
            for batch in opened[1].iter_batches(PART_ROWS, row_groups=[group.number], columns=names, use_threads=False)
        )


def local_path(uri: str) -> str:
    """`df.inputFiles()` gives escaped URIs; local ones become paths (Databricks mounts dbfs:/ at /dbfs)."""
    found = re.match(r"(file|dbfs):/*(/.*)", uri)
    if not found:
        return uri
    return ("/dbfs" if found[1] == "dbfs" else "") + unquote(found[2])


def _open(path: str) -> pq.ParquetFile:
    try:
        if "://" not in path:
            return pq.ParquetFile(path, buffer_size=READ_BYTES)
        fs, name = fsspec.core.url_to_fs(path)
        return pq.ParquetFile(fs.open(name))
    except FileNotFoundError:
        raise DataError(f"training file {path} is gone (VACUUM removes old versions); run the job again") from None
