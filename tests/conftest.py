"""One Spark for the whole run (two cores, two shuffle partitions), and real nights that several tests read."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Each JVM lives for minutes and mostly plans small queries: what its second compiler would gain, it does not earn back.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors here are tiny; threads of torch would wait for those of Spark

ROOT = Path(__file__).resolve().parents[1]
CONF = str(ROOT / "conf" / "online_retail.yaml")
PRODUCTS = yaml.safe_load(Path(CONF).read_text(encoding="utf-8"))["source"]["items"]["where"]


def only_countries(condition: str) -> tuple[str, ...]:
    """Overrides that leave a part of the embedded real data, and models small enough for a test."""
    return (
        f"source.interactions.where={json.dumps(condition)}",
        f"source.items.where={json.dumps(f'({PRODUCTS}) AND ({condition})')}",
        "scenarios.min_users=20",
        "candidates.depth=20",
        "ranker.max_epochs=2",
        "gbdt.max_rounds=40",
        "training.num_processes=2",
        "training_examples.num_windows=2",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files go to one of two processes, so the longest come first: the other process takes what is left."""
    reading = {item.path for item in items if "published" in getattr(item, "fixturenames", ())}
    first = ("test_cluster.py", "test_nightly.py")
    items.sort(key=lambda item: (item.path.name not in first, item.path not in reading))


@dataclass(frozen=True)
class Night:
    """What a finished command left: its exit code and the JSON line that it ended with."""

    code: int
    result: dict[str, Any]
    stderr: str


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from recspark.session import get_session

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
    yield session
    session.stop()


@pytest.fixture(scope="session")
def nightly(spark: Any) -> Callable[..., Night]:
    """Runs stages in this process, as the command line would, on the session of the tests."""
    from recspark import cli, pipeline

    def run(warehouse: Path, *overrides: str, run_date: str | None = None, **options: Any) -> Night:
        out, err = io.StringIO(), io.StringIO()
        before = os.getcwd()
        os.chdir(ROOT)  # conf/ names data/ relative to the checkout
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                chosen = (f"warehouse={warehouse}", *only_countries("Country <> 'United Kingdom'"), *overrides)
                code = cli.run(tuple(pipeline.STAGES), CONF, run_date, chosen, **options)
        finally:
            os.chdir(before)
        return Night(code, json.loads(out.getvalue().splitlines()[-1]), err.getvalue())

    return run


@pytest.fixture(scope="session")
def published(nightly: Callable[..., Night], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Night]:
    """One published night that other tests read; they must not change it. Whichever process needs it first makes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    warehouse, said = shared / "published", shared / "published.json"
    with FileLock(shared / "published.lock"):
        if not said.exists():
            night = nightly(warehouse)
            assert night.code == 0, night.stderr[-3000:]
            said.write_text(json.dumps(asdict(night)))
    return warehouse, Night(**json.loads(said.read_text()))
