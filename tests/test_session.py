"""Starting Spark where several processes start at once, and where its jars cannot be had."""

import subprocess
import sys
import time

import psutil

from recspark.session import fetching

SCRIPT = """
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
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        time.sleep(6)
        waiting = psutil.Process(starting.pid).children(recursive=True)
    found, _ = starting.communicate(timeout=120)
    assert waiting == []  # else a JVM would have been at the repository already
    assert starting.returncode == 0
    assert "Java ended before Spark could start" in found
    assert "no.such:jars:1" in found
