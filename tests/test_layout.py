"""The rules of docs/architecture.md as tests: who may import whom, what is used, how long files and functions get."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from recspark import pipeline
from recspark.config.content import Encoder
from recspark.config.retrievers import RETRIEVERS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "recspark").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))

# Retrievers whose scores are made from the bundle's own arrays: no module is imported by their name.
NOT_IMPORTED_BY_NAME = {"linear", "content", "popular"}
# Modules that import others by a name made at run time, and all names that this can give.
IMPORTED_BY_NAME = {
    "recspark.pipeline": {*pipeline.STAGES.values(), *pipeline.OTHERS.values()},
    "recspark.stages.item_embeddings.embed": {
        f"recspark.encoders.{modality}" for modality in get_args(Encoder.model_fields["modality"].annotation)
    },
    "recspark.stages.retriever.trained": {
        f"recspark.models.retrievers.{name}" for name in RETRIEVERS if name not in NOT_IMPORTED_BY_NAME
    },
    "recspark.training.retrieval.fit": {
        f"recspark.models.retrievers.{name}"
        for name in RETRIEVERS
        if name not in {*NOT_IMPORTED_BY_NAME, "co_occurrence"}
    },
    "recspark.training.entry": set(),  # calls what a launch names as "module:function", see FUNCTION
}
FUNCTION = re.compile(r"(recspark(?:\.\w+)+):(\w+)")
# Modules that no command reaches yet, and the issue that will use them.
WAITING = {
    "recspark.encoders.context": "Signals",
    "recspark.models.topk_torch": "a GPU",
}
# Modules without a test file of the same place and name, and the file that tests them.
TESTED_BY = {
    "__main__.py": "tests/test_main.py",
    "arrays.py": "tests/test_layout.py",  # a type's name, which mypy checks
    "cli.py": "tests/jobs/test_nightly.py",
    "commands.py": "tests/test_main.py",
    "columns.py": "tests/tables/test_index.py",
    "config/content.py": "tests/config/test_schema.py",
    "config/load.py": "tests/config/test_schema.py",
    "config/rankers.py": "tests/config/test_schema.py",
    "config/retrievers.py": "tests/config/test_schema.py",
    "config/section.py": "tests/config/test_schema.py",
    "config/sources.py": "tests/config/test_schema.py",
    "encoders/containers.py": "tests/encoders/test_video.py",
    "encoders/dense.py": "tests/encoders/test_packed.py",
    "encoders/load.py": "tests/encoders/test_contract.py",
    "expressions.py": "tests/sources/test_raw.py",
    "model_folder.py": "tests/training/test_checkpoint.py",
    "models/normaliser.py": "tests/models/test_layers.py",
    "models/rankers/catalogue.py": "tests/models/rankers/test_contract.py",
    "models/rankers/mmoe.py": "tests/models/rankers/test_contract.py",
    "models/rankers/pepnet.py": "tests/models/rankers/test_contract.py",
    "models/rankers/ple.py": "tests/models/rankers/test_contract.py",
    "models/rankers/single.py": "tests/models/rankers/test_contract.py",
    "models/rankers/star.py": "tests/models/rankers/test_contract.py",
    "models/rankers/spec.py": "tests/models/rankers/test_network.py",
    "models/retrievers/catalogue.py": "tests/models/retrievers/test_contract.py",
    "models/retrievers/sequence_network.py": "tests/models/retrievers/test_sequence.py",
    "sources/catalogue.py": "tests/tables/test_items.py",
    "sources/events.py": "tests/stages/test_interactions.py",
    "sources/users.py": "tests/stages/test_interactions.py",
    "warehouse/digests.py": "tests/warehouse/test_store.py",
    "stages/unpublish.py": "tests/stages/test_recommendations.py",
    "stages/candidates/scores.py": "tests/stages/candidates/test_stage.py",
    "stages/item_embeddings/compact.py": "tests/stages/item_embeddings/test_stage.py",
    "stages/item_embeddings/embed.py": "tests/stages/item_embeddings/test_stage.py",
    "stages/item_embeddings/encoders.py": "tests/stages/test_text_adapter.py",
    "stages/items.py": "tests/tables/test_items.py",
    "stages/launch.py": "tests/stages/ranker/test_stage.py",
    "stages/ranker/boosted.py": "tests/stages/ranker/test_stage.py",
    "stages/ranker/modes.py": "tests/stages/ranker/test_stage.py",
    "stages/retriever/bundle.py": "tests/stages/retriever/test_stage.py",
    "summary.py": "tests/jobs/test_nightly.py",
    "tables/candidates.py": "tests/stages/candidates/test_stage.py",
    "tables/interaction_days.py": "tests/stages/test_interactions.py",
    "tables/item_embeddings.py": "tests/stages/item_embeddings/test_stage.py",
    "tables/item_facts.py": "tests/stages/test_item_facts.py",
    "tables/rejected_events.py": "tests/stages/test_interactions.py",
    "tables/scenario_rules.py": "tests/tables/test_recommendations.py",
    "training/content/facts.py": "tests/stages/item_embeddings/test_facts.py",
    "training/ranking/job.py": "tests/training/ranking/test_loop.py",
    "training/ranking/saved.py": "tests/training/ranking/test_scoring.py",
    "training/retrieval/job.py": "tests/training/retrieval/test_fit.py",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def syntax_tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> frozenset[str]:
    """The names in a file's import statements, those inside functions too: `from a import b` gives a and a.b.

    A text "module:function" counts as an import of the module.
    """
    found = set()
    for node in ast.walk(syntax_tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import in line {node.lineno}"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and (named := FUNCTION.fullmatch(str(node.value))):
            found.add(named[1])
    return frozenset(found)


def reached(start: list[Path]) -> set[str]:
    """Modules of recspark/ that these files import, directly or through others."""
    files = {module_name(file): file for file in SOURCES}
    todo = {name for file in start for name in imports(file)} & files.keys()
    found: set[str] = set()
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= ({*imports(files[name]), *IMPORTED_BY_NAME.get(name, ())} & files.keys()) - found
    return found


def test_import_contracts_hold() -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_module_is_reached_from_the_command_line() -> None:
    """A module that nothing reaches belongs in benchmarks/research/, or into WAITING with the issue that needs it."""
    files = (file for file in SOURCES if file.name not in ("__init__.py", "__main__.py"))
    unreached = {module_name(file) for file in files} - reached([*JOBS, ROOT / "recspark/__main__.py"])
    assert unreached == set(WAITING)


def test_names_imported_at_run_time_are_modules() -> None:
    importers = {"import_module", "__import__", "resolve_name"}
    callers = {
        module_name(file)
        for file in SOURCES
        for node in ast.walk(syntax_tree(file))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in importers
    }
    assert callers == set(IMPORTED_BY_NAME)
    missing = [name for names in IMPORTED_BY_NAME.values() for name in names if find_spec(name) is None]
    assert not missing


def test_functions_named_by_text_exist() -> None:
    named = [
        match.groups()
        for file in SOURCES
        for node in ast.walk(syntax_tree(file))
        if isinstance(node, ast.Constant) and (match := FUNCTION.fullmatch(str(node.value)))
    ]
    functions = {
        (module_name(file), node.name)
        for file in SOURCES
        for node in syntax_tree(file).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named and set(named) <= functions


def test_the_package_imports_nothing_around_it() -> None:
    """benchmarks, tests, jobs and notebooks use recspark, never the other way round: the wheel has none of them."""
    around = {"benchmarks", "tests", "jobs", "notebooks"}
    wrong = {module_name(file) for file in SOURCES if {name.split(".")[0] for name in imports(file)} & around}
    assert not wrong


def test_types_are_strict() -> None:
    """Every parameter is typed: mypy --strict, as pyproject.toml configures it. 25 s the first time, then a cache."""
    done = run(sys.executable, "-m", "mypy", "--cache-dir", ".mypy_cache")
    assert done.returncode == 0, done.stdout[-3000:]


def test_ruff_is_clean() -> None:
    done = run(sys.executable, "-m", "ruff", "check", ".")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_sizes(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(syntax_tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            limit = 80 if node.name == "train" else 60  # one training loop may be longer
            assert node.end_lineno - node.lineno + 1 <= limit, f"{node.name} is too long"


def test_there_is_no_utils_module() -> None:
    """Such a module collects what belongs nowhere; a function belongs to the thing that it is about."""
    names = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert not [file for file in (*SOURCES, *TESTS) if names & {file.stem, file.parent.name}]


def test_type_checks_are_seldom_switched_off() -> None:
    comment = re.compile(r"#\s*type:\s*ignore(?P<code>\[[a-z-]+(?:,\s*[a-z-]+)*\])?(?P<reason>\s+#\s*\S.*)?")
    found = {
        f"{file.relative_to(ROOT)}:{number}": match
        for folder in ("recspark", "jobs", "tests", "benchmarks", "notebooks")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file != Path(__file__)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := comment.search(line))
    }
    in_package = {at: match for at, match in found.items() if at.startswith("recspark/")}
    assert not [at for at, match in in_package.items() if not (match["code"] and match["reason"])]
    assert len(in_package) <= 5, sorted(in_package)
    assert len(found) <= 25, sorted(found)


def test_test_files_import_from_no_test_file() -> None:
    """What several tests share is a module of its own, as tests/world.py: else one file's fixtures run in another."""
    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in TESTS
        for name in imports(file)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    }
    assert not wrong


def test_every_module_has_its_test_file() -> None:
    """tests/ is the same tree as recspark/; TESTED_BY names the exceptions, and only those."""
    modules = [file.relative_to(ROOT / "recspark") for file in SOURCES if file.name != "__init__.py"]
    without = {str(at) for at in modules if not (ROOT / "tests" / at.parent / f"test_{at.name}").exists()}
    assert without == set(TESTED_BY)
    assert not [test for test in TESTED_BY.values() if not (ROOT / test).exists()]


def test_every_artefact_has_its_job() -> None:
    assert {file.stem for file in JOBS} == {*pipeline.STAGES, *pipeline.OTHERS, "nightly"}
    for file in JOBS:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 25
        assert text.startswith(f'"""uv run python jobs/{file.name} --config')


def test_torch_side_imports_no_spark() -> None:
    """A GPU machine has no Java and no pyspark: the imports must work with pyspark hidden."""
    names = [
        module_name(file)
        for file in SOURCES
        if file.relative_to(ROOT / "recspark").parts[0] in ("training", "models", "encoders")
    ]
    names += ["recspark.features", "recspark.histories", "recspark.metrics", "recspark.gate"]
    code = "import sys; sys.modules['pyspark'] = None; sys.modules['delta'] = None\n" + "\n".join(
        f"import {name}" for name in names
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
