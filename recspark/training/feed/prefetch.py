"""Make the next item in a thread while one is in use."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """The same items, the next one being made in a thread while one is in use; never more than these two.

    An error of `items` is raised here. A consumer that stops early closes this generator, which ends the thread and
    closes `items`.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue()
    free = threading.Semaphore(1)
    stopped = threading.Event()

    def produce() -> None:
        try:
            while free.acquire() and not stopped.is_set():
                item = next(items, None)
                ready.put(item)
                if item is None:
                    return
        except BaseException as error:  # the consumer raises it
            ready.put(error)

    thread = threading.Thread(target=produce, name="feed", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            free.release()
            yield item
    finally:
        stopped.set()
        free.release()
        thread.join()
        items.close()
