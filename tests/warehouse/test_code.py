"""The hash of the code that computes an artefact: what moves it, and what must not."""

import shutil
from pathlib import Path

import pytest

from recspark.warehouse import code
from recspark.warehouse.artifacts import ARTIFACTS
from recspark.warehouse.code import ROOT, closure, code_hash, read

HELPER = '''"""Says something."""
import scipy

def helper(x):
    """Doubles."""
    return 2 * x  # a comment
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package: main imports helper inside a function; other imports nothing; config is left out of hashes."""
    package = tmp_path / "recspark"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text(HELPER)
    (package / "main.py").write_text(
        "from recspark.config import schema\n\n"
        "def run():\n    from recspark import helper\n    return helper.helper(1)\n"
    )
    (package / "other.py").write_text("X = 1\n")
    (package / "config" / "schema.py").write_text("KEY = 1\n")
    return tmp_path


def hash_of(tree: Path) -> str:
    read.cache_clear()
    return code_hash(["recspark.main"], tree)


def rewrite(tree: Path, name: str, old: str, new: str) -> None:
    file = tree / "recspark" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("helper.py", "a comment", "another comment"),
        ("helper.py", "Says something.", "Says something else."),
        ("helper.py", '    """Doubles."""\n', ""),
        ("helper.py", "def helper(x):", "\n\ndef helper(\n    x,\n):"),
        ("config/schema.py", "KEY = 1", "KEY = 1\nNEW = None"),
        ("other.py", "X = 1", "X = 2"),
    ],
)
def test_what_computes_nothing_leaves_the_hash(tree: Path, name: str, old: str, new: str) -> None:
    before = hash_of(tree)
    rewrite(tree, name, old, new)
    assert hash_of(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("helper.py", "2 * x", "3 * x"),
        ("main.py", "helper(1)", "helper(2)"),
        ("helper.py", "import scipy", "import numpy"),
    ],
)
def test_what_computes_moves_the_hash(tree: Path, name: str, old: str, new: str) -> None:
    before = hash_of(tree)
    rewrite(tree, name, old, new)
    assert hash_of(tree) != before


def test_another_version_of_a_library_moves_the_hash(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(tree)
    monkeypatch.setattr(code, "library_version", lambda name: "another" if name == "scipy" else "same")
    assert hash_of(tree) != before


def test_imports_for_type_checkers_are_not_followed(tree: Path) -> None:
    rewrite(
        tree, "main.py", "def run", "if TYPE_CHECKING:\n    from recspark import other\nelse:\n    X = 1\n\n\ndef run"
    )
    read.cache_clear()
    assert set(closure(["recspark.main"], tree)) == {"recspark.main", "recspark.helper"}


# -- of the package itself ---------------------------------------------------------------------------------------------


def hashes(root: Path) -> dict[str, str]:
    read.cache_clear()
    return {name: code_hash(artifact.modules, root) for name, artifact in ARTIFACTS.items()}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "recspark", tmp_path / "recspark", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def computed_by(module: str) -> set[str]:
    """The artefacts that a module of recspark helps to compute."""
    return {name for name, artifact in ARTIFACTS.items() if f"recspark.{module}" in closure(artifact.modules)}


def test_a_comment_anywhere_moves_nothing_and_code_moves_what_it_computes(package: Path) -> None:
    before = hashes(package)
    for file in (package / "recspark").rglob("*.py"):
        file.write_text(file.read_text() + "\n# a typo, corrected\n")
    assert hashes(package) == before
    text = package / "recspark" / "encoders" / "text.py"
    text.write_text(text.read_text() + "\nNEW = 1\n")
    after = hashes(package)
    assert {name for name in before if before[name] != after[name]} == {"text_adapter"} == computed_by("encoders.text")


def test_who_depends_on_what() -> None:
    assert computed_by("models.rankers.gbdt") == {"gbdt", "model_metrics", "recommendations"}
    assert computed_by("sources.events") == {"interactions", "item_features", "user_features"}
    ranking = computed_by("training.ranking.loop")
    assert "ranker" in ranking and not ranking & {"gbdt", "retriever", "candidates", "interactions", "items"}
    for module in ("config.schema", "columns", "errors", "warehouse.lease", "warehouse.store", "pipeline", "cli"):
        assert not computed_by(module), module


def test_a_library_belongs_to_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another LightGBM changes gbdt and the artefacts that are computed with it; nothing else."""
    old = {name: code_hash(artifact.modules) for name, artifact in ARTIFACTS.items()}
    real = code.library_version
    monkeypatch.setattr(code, "library_version", lambda name: "4.99" if name == "lightgbm" else real(name))
    new = {name: code_hash(artifact.modules) for name, artifact in ARTIFACTS.items()}
    assert {name for name in old if old[name] != new[name]} == {"gbdt", "model_metrics", "recommendations"}


def test_retrievers_without_torch_do_not_depend_on_it() -> None:
    for name in ("interactions", "items", "item_facts", "training_examples", "retriever", "candidates", "gbdt"):
        libraries = {library for source in closure(ARTIFACTS[name].modules).values() for library in source.libraries}
        assert not libraries & {"torch", "transformers"}, name
