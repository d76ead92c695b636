"""One Spark for the whole run, one real night that several tests read, and what runs in which process."""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Each JVM lives for minutes and mostly plans small queries: what its second compiler would gain, it does not earn back.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors here are tiny; threads of torch would wait for those of Spark

from tests.nights import Done, RunNight, run_command

LONG = ("test_interactions.py", "test_stage.py")  # early, so that both processes end together
COMMANDS = {"run_night", "published_night", "cluster"}  # fixtures of whole commands


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.from_both_ends import FromBothEnds

    return FromBothEnds(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks by what a test asks for, and the order that FromBothEnds takes files in: those that need Spark first, of
    them first those that read the published night; whole commands outside this process last."""
    asked = {item: set(getattr(item, "fixturenames", ())) for item in items}
    spark = {item.path for item in items if "spark" in asked[item]}
    published = {item.path for item in items if "published_night" in asked[item]}
    cluster = {item.path for item in items if "cluster" in asked[item]}
    for item in items:
        if "spark" in asked[item]:
            item.add_marker("spark")
        if asked[item] & COMMANDS:
            item.add_marker("e2e")
    place = {
        path: (path in cluster, path not in spark, path not in published, path.name not in LONG)
        for path in {item.path for item in items}
    }
    items.sort(key=lambda item: place[item.path])


def in_this_process(function: Any, job: object, *_: object) -> dict[str, Any]:
    """Stands for TorchDistributor: the same function on the same bytes, without the seconds of a start."""
    from recspark.training import entry

    return entry.run(*pickle.loads(pickle.dumps((function, job))))


@pytest.fixture(scope="session")
def distributed() -> Any:
    """A launch's start of its processes, as it is in a night."""
    from recspark.stages import launch

    return launch._distributed


@pytest.fixture(scope="session")
def spark(distributed: Any, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """The session of this process. Trainings run beside it, in this process, but in tests with `real_launches`."""
    from recspark.session import get_session
    from recspark.stages import launch

    settings = {
        "spark.master": "local[2]",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark-warehouse")),
        "spark.driver.memory": "3g",
        # Tests read few rows by many queries: compiling each of them costs more than it saves.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
    session, _ = get_session(settings, app_name="recspark-tests")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launch, "_distributed", in_this_process)
        yield session
    session.stop()


@pytest.fixture
def real_launches(spark: "SparkSession", distributed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings start their own processes, as in a night."""
    from recspark.stages import launch

    monkeypatch.setattr(launch, "_distributed", distributed)


@pytest.fixture(scope="session")
def run_night(spark: "SparkSession") -> RunNight:
    return run_command


@pytest.fixture(scope="session")
def published_night(run_night: RunNight, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """One published night that other tests read; they must not change it. Whichever process needs it first makes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    warehouse, said = shared / "published", shared / "published.json"
    with FileLock(shared / "published.lock"):
        if not said.exists():
            night = run_night(warehouse)
            assert night.code == 0, night.stderr[-3000:]
            said.write_text(json.dumps(asdict(night)))
    return warehouse, Done(**json.loads(said.read_text()))


@pytest.fixture
def own_night(published_night: tuple[Path, Done], tmp_path: Path) -> Path:
    """A copy of the published night's warehouse, to go on with."""
    return Path(shutil.copytree(published_night[0], tmp_path / "night"))
