"""One item is made while another is in use, and no third."""

import threading
import time
from collections.abc import Generator

import pytest

from recspark.training.feed.prefetch import prefetch


def test_the_same_items_and_never_more_than_two() -> None:
    made: list[int] = []

    def items() -> Generator[int, None, None]:
        for number in range(5):
            made.append(number)
            yield number

    for number in prefetch(items()):
        time.sleep(0.02)  # a third one would be there by now
        deadline = time.monotonic() + 5  # the second one comes late on a busy machine
        while len(made) < min(number + 2, 5) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert made == list(range(min(number + 2, 5)))


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no second one")

    found = prefetch(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="no second one"):
        next(found)


def test_closing_ends_the_thread_and_what_it_read() -> None:
    closed = []

    def items() -> Generator[int, None, None]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    found = prefetch(items())
    next(found)
    found.close()
    assert closed == [True] and not [thread for thread in threading.enumerate() if thread.name == "feed"]
