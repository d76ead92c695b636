"""The house's rules as tests: who may import whom, and how long a file or function may get."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "recspark").rglob("*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_contracts_hold() -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout[-3000:]


def test_ruff_is_clean() -> None:
    done = run(sys.executable, "-m", "ruff", "check", ".")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_sizes(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            limit = 80 if node.name == "train" else 60  # one training loop may be longer
            assert node.end_lineno - node.lineno + 1 <= limit, f"{node.name} is too long"


def test_every_artefact_has_its_job() -> None:
    from recspark import pipeline

    assert {f.stem for f in JOBS} == {*pipeline.STAGES, *pipeline.MAINTENANCE, "nightly"}
    for file in JOBS:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 25
        assert text.startswith(f'"""uv run python jobs/{file.name} --config')


def test_torch_side_imports_no_spark() -> None:
    """A GPU box has no Java and no pyspark: the imports must work with pyspark hidden."""
    code = (
        "import sys; sys.modules['pyspark'] = None; sys.modules['delta'] = None\n"
        "import recspark.training.ranking.loop, recspark.training.feed.feed, recspark.models.rankers.network\n"
        "import recspark.encoders.text, recspark.encoders.video, recspark.encoders.audio, recspark.encoders.context\n"
        "import recspark.encoders.graph, recspark.training.content.facts, recspark.training.content.text_adapter\n"
        "import recspark.features, recspark.metrics, recspark.gate"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
