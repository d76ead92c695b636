"""README and docs are true: every command is run by a test, every YAML block is a configuration, every link leads
somewhere, and the tutorial works as it is written."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from recspark.config.load import load
from tests.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TUTORIAL = ROOT / "docs" / "tutorial.md"
HISTORY = "decisions"  # dated records: their commands were true at the time
# A part of a command line -> the test that runs it, or what stands for it.
RUN_BY = {
    "jobs/nightly.py --config conf/online_retail.yaml": "tests/jobs/test_nightly.py",
    "uv run pytest": ".ci/run",
    "spark-submit --master": "tests/jobs/test_cluster.py",
    "recspark run --config /etc": "tests/jobs/test_nightly.py",
    "recspark maintain --config /etc": "tests/stages/test_maintenance.py",
    "recspark erase --config /etc": "tests/stages/test_erase.py",
    "recspark unpublish --config /etc": "tests/jobs/test_holds.py",
    "recspark status --config /etc": "tests/stages/test_status.py",
    "recspark diff 2011-12-09": "tests/stages/test_diff.py",
    "recspark init films": "tests/test_docs.py",
    "recspark check --config films": "tests/test_docs.py",
    "recspark run --config films": "tests/test_docs.py",
    "benchmarks night_quality": "tests/benchmarks/night/test_night_quality.py",
    "benchmarks.night.same_tables": "tests/benchmarks/night/test_same_tables.py",
    "uv sync": ".ci/run",
    "uvx pre-commit install": ".pre-commit-config.yaml",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every bash block; lines that end in a backslash are joined."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.split("  #")[0].strip()) for line in lines if line.strip()]
    return found


def test_every_command_is_run_by_a_test() -> None:
    unknown = [(page, line) for page, line in commands() if not any(part in line for part in RUN_BY)]
    assert not unknown
    assert not [test for test in RUN_BY.values() if not (ROOT / test).exists()]
    lines = [line for _, line in commands()]
    assert not [part for part in RUN_BY if not any(part in line for line in lines)]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in (ROOT / "docs").iterdir()} - {"README.md"}
    assert {link.split("/")[0] for link in re.findall(r"\]\(([^)]+)\)", index)} == there


MINIMAL = ROOT / "conf" / "minimal.yaml"


def merged(base: Any, more: Any) -> Any:
    """A YAML tree with another one laid over it."""
    if not (isinstance(base, Mapping) and isinstance(more, Mapping)):
        return more
    return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}


YAML_BLOCKS = [(page, n) for page in PAGES for n in range(len(blocks(page, "yaml")))]


@pytest.mark.parametrize("page,n", YAML_BLOCKS, ids=lambda x: str(getattr(x, "name", x)))
def test_every_yaml_block_is_a_configuration(tmp_path: Path, page: Path, n: int) -> None:
    """Laid over conf/minimal.yaml; the tutorial shows lines of `source.interactions` alone."""
    block = yaml.safe_load(blocks(page, "yaml")[n])
    if page == TUTORIAL:
        block = {"source": {"interactions": block}}
    tree = merged(yaml.safe_load(MINIMAL.read_text(encoding="utf-8")), block)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert load(str(tmp_path / "all.yaml")).warehouse


def test_every_sql_statement_parses(spark: Any) -> None:
    parser = spark._jsparkSession.sessionState().sqlParser()
    code = (re.sub(r"--.*", "", block) for page in PAGES for block in blocks(page, "sql"))
    statements = [part for block in code for part in block.split(";") if part.strip()]
    assert len(statements) >= 6
    for statement in statements:
        parser.parsePlan(statement)


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = text.split("## Three walks")[1].split("## The rules")[0]
    files = set(re.findall(r"`([a-z_/]+/[a-z_/]+[.]py)`", walks))
    assert len(files) > 15 and not [name for name in files if not (ROOT / "recspark" / name).exists()]
    for file, name in re.findall(r"`([a-z_/]+[.]py)`,? `?(\w+)`", walks):
        assert f"def {name}" in (ROOT / "recspark" / file).read_text(encoding="utf-8"), (file, name)


def run(folder: Path, *command: str) -> str:
    """A command of the tutorial, with the programs of this environment; its standard output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tutorial's data and configuration were made."""
    folder = tmp_path_factory.mktemp("tutorial")
    run(folder, sys.executable, "-c", blocks(TUTORIAL, "python")[0])
    run(folder, "bash", "-c", blocks(TUTORIAL, "bash")[0])
    return folder


def test_the_tutorials_configuration_is_as_it_says(films: Path) -> None:
    written = (films / "films.yaml").read_text(encoding="utf-8")
    for line in blocks(TUTORIAL, "yaml")[0].splitlines():
        assert line.split("such as")[0] in written
    out = run(films, "bash", "-c", blocks(TUTORIAL, "bash")[1])
    assert "of the first 1,000 rows 1,000 usable" in out and out.splitlines()[-1].startswith("ok: a night of")


@pytest.mark.slow
def test_the_tutorials_night_and_what_it_shows(films: Path) -> None:
    run(films, "bash", "-c", blocks(TUTORIAL, "bash")[2])
    shown = run(films, sys.executable, "-c", blocks(TUTORIAL, "python")[1])
    assert shown.count("Love story") >= 8  # user 7 likes what is odd: love stories
    assert "publish" not in shown and "ndcg" not in shown and "popular" in shown
