"""Starting Spark where several processes start at once, and where its jars cannot be had."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest

from recspark.errors import ConfigError
from recspark.session import fetching, get_session, s3_packages

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


def test_the_jars_of_s3_fit_spark() -> None:
    """Hadoop's client in the version of Spark's own Hadoop, and of the AWS SDK single modules of one version."""
    hadoop, *modules = s3_packages()
    assert (Path(pyspark.__file__).parent / "jars" / f"hadoop-client-api-{hadoop.split(':')[-1]}.jar").exists()
    assert {module.rsplit(":", 1)[0] for module in modules} == {
        f"software.amazon.awssdk:{name}" for name in ("s3", "s3-transfer-manager", "sts", "apache-client")
    }
    assert len({module.rsplit(":", 1)[1] for module in modules}) == 1


def test_a_session_without_s3_is_one_line(spark: Any) -> None:
    with pytest.raises(ConfigError, match=r"this Spark session cannot read s3://; start it with .*hadoop-aws:3"):
        get_session(s3=True)
    assert get_session()[0] is spark
