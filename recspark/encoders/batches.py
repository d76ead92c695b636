"""Cells of a column to rows of vectors, a chunk at a time; a cell that cannot be read is null with a reason."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from recspark.arrays import Array
from recspark.errors import ConfigError

Chunk = TypeVar("Chunk")
Done = TypeVar("Done")
Input = TypeVar("Input")
Cell = bytes | Callable[[], bytes] | None  # the bytes of a file, or what reads them
# Vectors float32 (n, d), a row of zeros for null; and for each row why it is null, None where it is not or was null.
Encoded = tuple[Array, list[str | None]]

EMPTY, UNDECODABLE, TOO_LARGE, TOO_SHORT = "empty", "cannot be decoded", "too large", "too short"
NOT_UTF8, NOT_FINITE = "not UTF-8", "vector not finite"

FETCHES = 8  # files opened at a time: a remote store is slow to answer


class Unreadable(Exception):
    """A cell without a vector; the message is one of the fixed reasons above, so that a query can GROUP BY it."""


def reason(noun: str, why: str) -> str:
    """The reason as written to rejected_events: `item image: cannot be decoded`."""
    return f"item {noun}: {why}"


def encode_cells(
    cells: Sequence[Cell],
    read: Callable[[bytes], Input],
    forward: Callable[[list[Input]], Array],
    dim: int,
    per_chunk: int,
    noun: str,
) -> Encoded:
    """Vectors in the order of `cells`, and reasons; a thread reads the next chunk while the model works on this one.

    A cell is a file: its bytes, or a function that returns them.

    Raises: ConfigError that such a function raises, as where the library of a store is not installed.
    """
    vectors = np.zeros((len(cells), dim), dtype=np.float32)
    reasons: list[str | None] = [None] * len(cells)
    given = [(row, cell) for row, cell in enumerate(cells) if cell is not None]
    chunks = [given[low : low + per_chunk] for low in range(0, len(given), per_chunk)]

    def read_chunk(chunk: list[tuple[int, bytes | Callable[[], bytes]]]) -> list[Input | Unreadable]:
        files = [cell for _, cell in chunk]
        if all(isinstance(cell, bytes) for cell in files):
            return [_read(read, cell) for cell in files]
        with ThreadPoolExecutor(FETCHES) as threads:
            return list(threads.map(partial(_read, read), files))

    for chunk, inputs in zip(chunks, prefetch(read_chunk, chunks), strict=True):
        good: dict[int, Input] = {}
        for (row, _), found in zip(chunk, inputs, strict=True):
            if isinstance(found, Unreadable):
                reasons[row] = reason(noun, str(found))
            else:
                good[row] = found
        if good:
            vectors[list(good)] = forward(list(good.values()))
    return drop_not_finite(vectors, reasons, noun)


def _read(read: Callable[[bytes], Input], cell: bytes | Callable[[], bytes]) -> Input | Unreadable:
    try:
        content = cell if isinstance(cell, bytes) else cell()
        return read(content) if len(content) else Unreadable(EMPTY)
    except ConfigError:
        raise
    except Unreadable as error:
        return error
    except Exception:  # decoders raise errors of any type, and one bad file must not end the job
        return Unreadable(UNDECODABLE)


def drop_not_finite(vectors: Array, reasons: list[str | None], noun: str) -> Encoded:
    """Set rows with NaN or infinity to zeros, in place, with the reason: they would spread through a top-K."""
    for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
        vectors[row], reasons[row] = 0.0, reason(noun, NOT_FINITE)
    return vectors, reasons


def prefetch(work: Callable[[Chunk], Done], chunks: Sequence[Chunk]) -> Iterator[Done]:
    """work(chunk) of every chunk in order; a thread computes the next one while the caller uses this one."""
    if len(chunks) < 2:  # no next one
        yield from map(work, chunks)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        running = thread.submit(work, chunks[0])
        for chunk in chunks[1:]:
            done, running = running, thread.submit(work, chunk)
            yield done.result()
        yield running.result()
