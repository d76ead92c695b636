"""A warehouse in an object store: two runs at once, one killed, the night after it, the same again.

The server is on this machine, and in it are all objects; Spark and Python reach it by the same s3:// and with
credentials from the environment alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.night import same_tables
from tests.encoders import tiny
from tests.nights import RunNight, only_countries
from tests.object_store import SECRETS, ObjectStore
from tests.paths import CONF, ROOT

FEW = "Country IN ('Belgium', 'Norway', 'Portugal')"
SPARK = {
    "spark.master": "local[2]",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
pytestmark = (
    pytest.mark.slow
)  # four nights of a minute or two; the lease on S3 is in tests/warehouse/test_lease_files.py


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with ObjectStore() as found:
        yield found


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    encoder = tiny.build("bert", tmp_path_factory.mktemp("encoder") / "tiny")
    return (*only_countries(FEW), f"item_embeddings.encoder={encoder}")


def start(server: ObjectStore, log: Path, warehouse: str, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    """`recspark run` in a process of its own, which leads a group: with it end the JVM and what trains."""
    overrides = (f"warehouse={warehouse}", f"spark={json.dumps(SPARK)}", *settings)
    command = [sys.executable, "-m", "recspark", "run", "--config", CONF]
    command += [part for override in overrides for part in ("--set", override)]
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for(process: subprocess.Popen[bytes], log: Path, line: str) -> None:
    deadline = time.monotonic() + 600
    while line not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def result(log: Path) -> dict[str, Any]:
    """The JSON line of a run."""
    return dict(json.loads(next(line for line in log.read_text().splitlines() if line.startswith('{"run_id"'))))


def test_two_runs_one_killed_and_again(
    server: ObjectStore, settings: tuple[str, ...], spark: Any, run_night: RunNight, tmp_path: Path
) -> None:
    """What is in the store in the end are the tables of a calm night on a local disk; each id has one number."""
    place = f"{server.bucket(f'shop-{uuid.uuid4().hex}')}/recs"  # a machine keeps its copies of models by their URL
    logs = [tmp_path / f"{name}.log" for name in ("one", "two", "after", "again")]
    runs = [start(server, log, f"s3://{place}", settings) for log in logs[:2]]
    while all(run.poll() is None for run in runs):
        time.sleep(0.2)
    loser = 0 if runs[0].poll() is not None else 1
    assert runs[loser].returncode == 4, logs[loser].read_text()[-3000:]
    told = logs[loser].read_text().splitlines()[-1]
    assert re.match(rf"error: warehouse s3://{place} is in use by run 2011-12-10-\S+ \(process \d+ on ", told), told

    winner, log = runs[1 - loser], logs[1 - loser]
    wait_for(winner, log, "] candidates")
    time.sleep(3)  # in the middle of it
    os.killpg(winner.pid, signal.SIGKILL)
    winner.wait()

    assert start(server, logs[2], f"s3a://{place}", settings).wait() == 0, logs[2].read_text()[-3000:]
    stages = result(logs[2])["stages"]
    assert stages["interactions"]["skipped"] and stages["items"]["skipped"] and stages["retriever"]["skipped"]
    assert start(server, logs[3], f"s3://{place}", settings).wait() == 0, logs[3].read_text()[-3000:]
    assert all(stage["skipped"] for stage in result(logs[3])["stages"].values())

    for log in logs:
        text = log.read_text()
        assert not [name for name, secret in SECRETS.items() if secret in text], f"{log} shows a credential"
    calm, copy = tmp_path / "calm", tmp_path / "copy"
    server.files().get(f"{place}/", f"{copy}/", recursive=True)
    assert not list(copy.rglob("*.tmp"))
    night = run_night(calm, *settings)
    assert night.code == 0, night.stderr[-3000:]
    found = same_tables.compare(str(calm), str(copy))
    assert len(found) >= 10 and not any(found.values()), found
    for noun, first in (("item", 0), ("user", 0), ("scenario", 1)):
        rows = spark.read.format("delta").load(f"{copy}/{noun}_index").collect()
        assert sorted(row[f"{noun}_idx"] for row in rows) == list(range(first, len(rows) + first)), noun
