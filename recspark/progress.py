"""Does a run still move? Watches Spark's finished tasks and what trainings print, for the lease."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

LOOK_S = 15.0


class CountedLines:
    """A text stream that passes everything on and counts what it passes on: a training's processes print there."""

    def __init__(self, to: TextIO) -> None:
        self._to, self.writes = to, 0

    def write(self, text: str) -> int:
        self.writes += 1
        return self._to.write(text)

    def flush(self) -> None:
        self._to.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._to, name)


@contextmanager
def watch(spark: "SparkSession", moved: Callable[[], None]) -> Iterator[None]:
    """While the block runs, call `moved` whenever there are more finished tasks or printed lines than before.

    In a thread of its own: an answer of Spark may take long, and the heartbeat must not wait for it.
    """
    lines, over = CountedLines(sys.stdout), threading.Event()

    def look() -> None:
        before = (0, 0)
        while not over.wait(LOOK_S):
            found = (finished_tasks(spark), lines.writes)
            if found != before:
                moved()
            before = found

    thread = threading.Thread(target=look, name="progress", daemon=True)
    with redirect_stdout(lines):
        thread.start()
        try:
            yield
        finally:
            over.set()


def finished_tasks(spark: "SparkSession") -> int:
    """Tasks that this session's executors have finished; 0 where Spark does not say."""
    try:
        executors = spark.sparkContext._jsc.sc().statusStore().executorList(True)
        return sum(int(executors.apply(i).completedTasks()) for i in range(executors.size()))
    except Exception as error:  # no JVM of its own, or one that is ending
        log.debug("no number of finished tasks: %s", error)
        return 0
