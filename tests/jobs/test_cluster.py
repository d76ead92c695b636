"""The same file under spark-submit: a standalone master, two workers, and an environment that has only the wheel."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pyspark
import pytest

from recspark.session import DELTA_CLASS, delta_package
from tests.encoders import tiny
from tests.nights import only_countries
from tests.paths import ROOT

QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # three of them start on two cores, and run for a minute
K = 10
SPARK_HOME = Path(pyspark.__file__).parent


def without(*names: str) -> dict[str, str]:
    """The environment less the variables that begin so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(names)}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second environment with the wheel and, of this one, the libraries but not the checkout; returns its python."""
    home = tmp_path_factory.mktemp("cluster")
    uv = shutil.which("uv")
    assert uv
    environment = without("VIRTUAL_ENV")

    def call(*command: str) -> None:
        done = subprocess.run([uv, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    call("build", "--wheel", "--out-dir", str(home / "dist"))
    call("venv", "--python", sys.executable, str(home / "env"))
    python = home / "env" / "bin" / "python"
    # found last and without the .pth files in it, of which one would name the checkout
    own = next((home / "env").glob("lib/python*/site-packages"))
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    call("pip", "install", "--python", str(python), "--no-deps", str(next((home / "dist").glob("*.whl"))))
    return python


@pytest.fixture(scope="module")
def cluster(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A standalone master with two workers of one core each; returns its URL."""
    home = tmp_path_factory.mktemp("spark")
    port, web = free_port(), free_port()
    environment = {
        **without("PYTHONDONTWRITEBYTECODE"),
        "SPARK_HOME": str(SPARK_HOME),
        "PYSPARK_PYTHON": str(installed),
        "PATH": f"{installed.parent}:{os.environ['PATH']}",
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_DAEMON_JAVA_OPTS": QUICK_JVM,
    }
    start = [str(SPARK_HOME / "bin" / "spark-class")]
    names = ("--host", "127.0.0.1")
    log = (home / "cluster.log").open("w")
    options = {"cwd": home, "env": environment, "stdout": log, "stderr": log}
    url = f"spark://127.0.0.1:{port}"
    running = [
        subprocess.Popen(
            [*start, "org.apache.spark.deploy.master.Master", *names, "--port", str(port), "--webui-port", str(web)],
            **options,
        )
    ]
    worker = [
        *start,
        "org.apache.spark.deploy.worker.Worker",
        *names,
        "--cores",
        "1",
        "--memory",
        "3g",
        "--webui-port",
        "0",
    ]
    running += [subprocess.Popen([*worker, "--work-dir", str(home / f"w{i}"), url], **options) for i in (1, 2)]
    try:
        deadline = time.monotonic() + 60
        while alive(web) < 2:
            assert time.monotonic() < deadline, (home / "cluster.log").read_text()[-2000:]
            time.sleep(0.5)
        yield url
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=20)
        log.close()


def alive(web_port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/json/", timeout=2) as answer:
            return int(json.load(answer)["aliveworkers"])
    except (OSError, KeyError, ValueError):
        return 0


def live_rows(table: Path) -> list[dict[str, Any]]:
    """The rows of a Delta table without Spark: the files that its commits add and do not remove again."""
    files: dict[str, None] = {}
    for commit in sorted((table / "_delta_log").glob("*.json")):
        for line in commit.read_text(encoding="utf-8").splitlines():
            action = json.loads(line)
            if "add" in action:
                files[action["add"]["path"]] = None
            elif "remove" in action:
                files.pop(action["remove"]["path"], None)
    return [row for file in files for row in pq.ParquetFile(table / file).read().to_pylist()]


def test_nightly_under_spark_submit(installed: Path, cluster: str, tmp_path: Path) -> None:
    """Away from the checkout, on catalog tables; training runs in TorchDistributor's cluster mode, one process on each
    worker. What the night is worth is measured elsewhere, so the encoder and the data are tiny here."""
    shutil.copy(ROOT / "jobs" / "nightly.py", tmp_path)
    shutil.copytree(ROOT / "data" / "online-retail", tmp_path / "data" / "online-retail")
    settings = {
        "spark.sql.extensions": DELTA_CLASS,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.pyspark.python": str(installed),
        "spark.pyspark.driver.python": str(installed),
        "spark.executor.memory": "2g",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": str(tmp_path / "tables"),
        "spark.driver.extraJavaOptions": QUICK_JVM,
        "spark.executor.extraJavaOptions": QUICK_JVM,
    }
    few = "Country IN ('Belgium', 'Norway', 'Portugal')"
    overrides = (f"warehouse={tmp_path / 'models-only'}", "catalog=spark_catalog.default", *only_countries(few))
    overrides += (f"item_embeddings.encoder={tiny.build('bert', tmp_path / 'tiny')}",)
    sequence = "{dim: 8, layers: 1, heads: 1, negatives: 16, max_epochs: 1}"
    overrides += (f"retriever={{co_occurrence: {{}}, sequence: {sequence}}}",)
    command = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", cluster, "--packages", delta_package()]
    command += [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    command += ["nightly.py", "--config", str(ROOT / "conf" / "online_retail.yaml")]
    command += [part for override in overrides for part in ("--set", override)]
    environment = without("PYSPARK", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment |= {"SPARK_HOME": str(SPARK_HOME), "PATH": f"{installed.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]  # spark-submit joins Python's stderr to it
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "done"
    # logged by the trainer, so that a fall back would show; spark-submit joins Python's stderr to stdout
    assert "ranker: training with 2 processes, cluster mode" in done.stdout
    assert "retriever: training with 1 processes, cluster mode" in done.stdout
    lists = [row for row in live_rows(tmp_path / "tables" / "recommendations") if row["user_id"] != "__default__"]
    users = {(row["scenario"], row["user_id"]) for row in live_rows(tmp_path / "tables" / "interactions")}
    assert len(lists) == K * len(users) > 0
    assert {(row["scenario"], row["user_id"]) for row in lists} == users
    assert not (tmp_path / "models-only" / "interactions").exists()
