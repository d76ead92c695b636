"""One item is made while another is in use, and no third."""

import threading
import time
from collections.abc import Iterator

import pytest

from recspark.training.feed.prefetch import ahead


def test_the_same_items_and_never_more_than_two() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    for number in ahead(items()):  # type: ignore[arg-type]
        time.sleep(0.02)
        assert made == list(range(min(number + 2, 5)))


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no second one")

    found = ahead(items())  # type: ignore[arg-type]
    assert next(found) == 1
    with pytest.raises(ValueError, match="no second one"):
        next(found)


def test_closing_ends_the_thread_and_what_it_read() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    found = ahead(items())  # type: ignore[arg-type]
    next(found)
    found.close()
    assert closed == [True] and not [thread for thread in threading.enumerate() if thread.name == "feed"]
