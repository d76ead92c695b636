"""Starting Spark where several processes start at once, and where its jars cannot be had."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest

from recspark import session
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


def test_jars_of_an_earlier_start_are_found_unless_one_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert session._fetched("a:b:1") == ""
    jars = [tmp_path / "one.jar", tmp_path / "two.jar"]
    for jar in jars:
        jar.touch()
    files = ",".join(f"file://{jar}" for jar in jars)
    session._remember("a:b:1", files)
    assert session._fetched("a:b:1") == files and session._fetched("a:b:2") == ""
    jars[1].unlink()
    assert session._fetched("a:b:1") == ""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made there
    session._remember("a:b:1", files)


def test_the_second_start_asks_no_repository(spark: Any) -> None:
    """The session of the tests was started by the first rule or by the second; its list is there either way."""
    packages = session.delta_package()
    assert "delta-spark" in session._fetched(packages)
    assert spark.sparkContext.getConf().get("spark.jars") == session._fetched(packages)


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
