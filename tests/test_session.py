"""Starting Spark where several processes start at once, and where its jars cannot be had."""

import subprocess
import sys
from collections.abc import Iterator

import psutil

from recspark.session import fetching

SCRIPT = """
import logging
logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
from recspark.errors import ConfigError
from recspark.session import get_session
try:
    get_session({"spark.master": "local[1]", "spark.jars.packages": "no.such:jars:1", "spark.jars.repositories": ""})
except ConfigError as error:
    print(error)
"""


def test_jars_are_fetched_by_one_process_at_a_time_and_missing_ones_are_one_line() -> None:
    with fetching(jars=True):
        starting = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert starting.stderr is not None
        assert is_waiting(iter(starting.stderr.readline, ""))
        children = psutil.Process(starting.pid).children(recursive=True)
    found, _ = starting.communicate(timeout=120)
    assert children == []  # a JVM would fetch jars
    assert starting.returncode == 0
    assert "Java ended before Spark could start" in found
    assert "no.such:jars:1" in found


def is_waiting(log: Iterator[str]) -> bool:
    """Reads the log up to the line with which a process begins to wait for the lock; False when the log ends first."""
    return any("recspark-jars" in line and "not acquired" in line for line in log)
