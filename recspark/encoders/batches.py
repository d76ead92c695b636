"""Cells of a column to rows of vectors, a chunk at a time; what cannot be read is null with a reason."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import fsspec
import numpy as np

from recspark.arrays import Array
from recspark.errors import ConfigError

Chunk, Done, Input = TypeVar("Chunk"), TypeVar("Done"), TypeVar("Input")
Encoded = tuple[Array, list[str | None]]  # float32 (n, d), a row of zeros for null; why a row is null that was not

EMPTY, UNDECODABLE, TOO_LARGE, TOO_SHORT = "empty", "cannot be decoded", "too large", "too short"
NOT_FOUND = "cannot be opened"
NOT_UTF8, NOT_FINITE = "not UTF-8", "vector not finite"

MAX_BYTES = 1 << 28  # of a file; a chunk of them is in memory at a time
FETCHES = 8  # files opened at a time: a store far away is slow to answer


class Unreadable(Exception):
    """A cell that stands for nothing; the message is one of the fixed reasons above, so that one can GROUP BY it."""


def reason(noun: str, why: str) -> str:
    """As it stands in rejected_events: `item image: cannot be decoded`."""
    return f"item {noun}: {why}"


def encode_cells(
    cells: Sequence[bytes | str | None],
    read: Callable[[bytes], Input],
    forward: Callable[[list[Input]], Array],
    dim: int,
    per_chunk: int,
    noun: str,
) -> Encoded:
    """Vectors in the order of `cells`, and reasons; a thread reads the next chunk while the model works on this one.

    A cell is a file: its bytes, or where it lies, a path or an URI that fsspec opens (s3://, https://, data: ...).
    Raises ConfigError where the library for such an URI is not installed.
    """
    vectors, reasons = np.zeros((len(cells), dim), dtype=np.float32), [None] * len(cells)
    given = [row for row, cell in enumerate(cells) if cell is not None]
    chunks = [given[low : low + per_chunk] for low in range(0, len(given), per_chunk)]

    def read_chunk(rows: list[int]) -> list[Input | Unreadable]:
        if not any(isinstance(cells[row], str) for row in rows):
            return [_read(read, cells[row]) for row in rows]
        with ThreadPoolExecutor(FETCHES) as threads:
            return list(threads.map(partial(_read, read), [cells[row] for row in rows]))

    for rows, inputs in zip(chunks, one_ahead(read_chunk, chunks), strict=True):
        good = {}
        for row, found in zip(rows, inputs, strict=True):
            if isinstance(found, Unreadable):
                reasons[row] = reason(noun, str(found))
            else:
                good[row] = found
        if good:
            vectors[list(good)] = forward(list(good.values()))
    return drop_not_finite(vectors, reasons, noun)


def _read(read: Callable[[bytes], Input], cell: bytes | str) -> Input | Unreadable:
    try:
        content = fetch(cell) if isinstance(cell, str) else cell
        return read(content) if len(content) else Unreadable(EMPTY)
    except ConfigError:
        raise
    except Unreadable as error:
        return error
    except Exception:  # decoders raise whatever a strange file leads them to, and one file must not end the job
        return Unreadable(UNDECODABLE)


def fetch(uri: str) -> bytes:
    """The file at an URI or a path. Raises Unreadable where it is not there or too large, ConfigError where the library
    for that kind of URI is missing."""
    try:
        with fsspec.open(uri, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except ImportError as error:
        raise ConfigError(f"items.media: {uri.split(':', maxsplit=1)[0]}: {error}") from None
    except Exception as error:  # each file system has its own
        raise Unreadable(NOT_FOUND) from error
    if len(content) > MAX_BYTES:
        raise Unreadable(TOO_LARGE)
    return bytes(content)


def drop_not_finite(vectors: Array, reasons: list[str | None], noun: str) -> Encoded:
    """A row with NaN or infinity becomes zeros, in place, with its reason: it would spread through a top-K."""
    for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
        vectors[row], reasons[row] = 0.0, reason(noun, NOT_FINITE)
    return vectors, reasons


def one_ahead(work: Callable[[Chunk], Done], chunks: Sequence[Chunk]) -> Iterator[Done]:
    """work(chunk) of every chunk in order; a thread does the next one while the caller uses this one."""
    if len(chunks) < 2:  # nothing to be ahead of
        yield from map(work, chunks)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(work, chunks[0])
        for chunk in chunks[1:]:
            done, coming = coming, thread.submit(work, chunk)
            yield done.result()
        yield coming.result()
