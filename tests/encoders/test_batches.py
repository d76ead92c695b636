"""Cells in chunks: reasons for what cannot be read, and the next chunk read in advance, no more than that."""

import threading

import numpy as np
import pytest

from recspark.encoders.batches import EMPTY, Unreadable, encode_cells, prefetch
from recspark.errors import ConfigError


def read(cell: bytes) -> int:
    if cell == b"huge":
        raise Unreadable("too large")
    return int(cell)


def forward(numbers: list[int]) -> np.ndarray:
    """(number, how many came together)."""
    return np.array([[number, len(numbers)] for number in numbers], dtype=np.float32)


@pytest.mark.parametrize(
    ("per_chunk", "together"),
    # given are 3, x, 5, huge, empty, 7: in chunks of two one of each can be read
    [(2, [1, 1, 1]), (3, [2, 2, 1]), (100, [3, 3, 3])],
)
def test_each_row_has_its_own_vector_or_reason(per_chunk, together):
    cells = [None, b"3", b"x", b"5", b"huge", None, b"", b"7"]
    vectors, reasons = encode_cells(cells, read, forward, 2, per_chunk, "number")
    np.testing.assert_array_equal(vectors[:, 0], [0, 3, 0, 5, 0, 0, 0, 7])
    np.testing.assert_array_equal(vectors[[1, 3, 7], 1], together)
    why = {2: "cannot be decoded", 4: "too large", 6: EMPTY}
    assert reasons == [f"item number: {why[row]}" if row in why else None for row in range(8)]


def test_the_model_never_sees_an_empty_batch():
    def never(numbers: list[int]) -> np.ndarray:
        raise AssertionError

    vectors, reasons = encode_cells([b"x", None, b""], read, never, 2, 2, "number")
    assert vectors.shape == (3, 2) and not vectors.any()
    assert reasons == ["item number: cannot be decoded", None, "item number: empty"]


def test_an_error_of_the_model_is_not_hidden():
    def broken(numbers: list[int]) -> np.ndarray:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        encode_cells([b"1"], read, broken, 2, 2, "number")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_null(bad):
    def forward(numbers: list[int]) -> np.ndarray:
        return np.array([[1.0, bad if number == 0 else number] for number in numbers])

    vectors, reasons = encode_cells([b"0", b"2"], read, forward, 2, 2, "number")
    np.testing.assert_array_equal(vectors, [[0, 0], [1, 2]])
    assert reasons == ["item number: vector not finite", None]


def test_the_next_chunk_is_computed_while_one_is_used():
    done = [threading.Event() for _ in range(3)]

    def work(chunk: int) -> tuple[int, int]:
        done[chunk].set()
        return chunk, threading.get_ident()

    for turn, (chunk, thread) in enumerate(prefetch(work, range(3))):
        assert chunk == turn and thread != threading.get_ident()
        if turn < 2:
            assert done[turn + 1].wait(10)  # without asking for it
        assert not any(event.is_set() for event in done[turn + 2 :])  # one ahead, not more


def test_one_chunk_needs_no_thread_and_errors_arrive():
    assert list(prefetch(lambda _: threading.get_ident(), [0])) == [threading.get_ident()]
    assert list(prefetch(str, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda chunk: 1 // chunk, [1, 0, 1]))


def test_a_cell_may_be_a_function_that_reads_the_file():
    def missing() -> bytes:
        raise Unreadable("cannot be opened")

    def no_library() -> bytes:
        raise ConfigError("items.media: s3: Install s3fs")

    vectors, reasons = encode_cells([lambda: b"3", missing, None, lambda: b"", b"5"], read, forward, 2, 100, "number")
    assert vectors[:, 0].tolist() == [3, 0, 0, 0, 5]
    assert reasons == [None, "item number: cannot be opened", None, "item number: empty", None]
    with pytest.raises(ConfigError, match="Install s3fs"):
        encode_cells([no_library], read, forward, 2, 100, "number")
