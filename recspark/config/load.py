"""YAML to `Config`: one file, the overrides of the command line, and errors with the key and the most similar name."""

import difflib
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from recspark.config.schema import Config
from recspark.errors import ConfigError


class StrictLoader(yaml.SafeLoader):
    """YAML without its two traps: a key that stands twice (the first one would be lost), and one that is not read as
    the text that it looks like (NO is false)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.YAMLError(
                    f"line {line}: the key {key_node.value} is read as {str(key).lower()}, not as a text; "
                    f'write "{key_node.value}" in quotes'
                )
            if key in lines:
                raise yaml.YAMLError(
                    f"line {line}: the key {key} stands in line {lines[key]} already; put the two together"
                )
            lines[key] = line
        return super().construct_mapping(node, deep)


def load(path: str, overrides: tuple[str, ...] = ()) -> Config:
    """Read one YAML file and apply `dotted.key=value` overrides (values are YAML).

    Raises: ConfigError naming the dotted key, what was found and what was expected.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"config file {path} does not exist; give --config conf/<name>.yaml")
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=StrictLoader)  # safe: a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}, expected sections such as `warehouse:` and `source:`")
    for override in overrides:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(map(_explain, _most_useful(error.errors())[:5]))) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: found no `=` after a key, expected dotted.key=value")
    *parents, last = key.strip().split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: `{parent}` is a value, not a section; set `{parent}` itself")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not YAML, found {value!r}; quote it") from None


def _most_useful(errors: list[Any]) -> list[Any]:
    """Unknown keys first; without the missing keys of a section in which a key is misspelt, which may be the same."""
    misspelt = {error["loc"][:-1] for error in errors if error["type"] == "extra_forbidden"}
    told = [e for e in errors if e["type"] != "missing" or e["loc"][:-1] not in misspelt]
    return sorted(told, key=lambda error: error["type"] != "extra_forbidden")


# pydantic's words for these are those of Python
EXPECTED = {
    "tuple_type": "expected a list, such as [a, b]",
    "model_type": "expected a section: keys and values",
    "dict_type": "expected keys and values, such as {a: b}",
}


def _explain(error: Any) -> str:
    """One pydantic error as `dotted.key: found, expected`."""
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        known = sorted(_model_at(loc[:-1]).model_fields)
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        return f"unknown key `{key}`" + (
            f", did you mean `{near[0]}`?" if near else f"; known here: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return f"required key `{key}` is missing; add it to the file or give --set {key}=..."
    if error["type"] == "value_error" and not key:  # about several sections, which the message names
        return str(error["ctx"]["error"])
    hint = ""
    if isinstance(error["input"], bool) and error["type"] == "string_type":
        hint = "; YAML reads yes, no, on and off as true and false: put the word in quotes"
    message = error["msg"].removeprefix("Value error, ")
    expected = EXPECTED.get(error["type"], f"{message[:1].lower()}{message[1:]}")
    return f"`{key}`: found {error['input']!r:.80}, {expected}{hint}"


def _model_at(loc: list[str]) -> type[BaseModel]:
    """The section type at a location; list positions and dictionary keys step into their element type."""
    current: Any = Config
    for part in loc:
        if _is_section(current):
            current = _without_none(current.model_fields[part].annotation)
        else:  # dict[str, X] or tuple[X, ...]
            current = next(arg for arg in get_args(current) if _is_section(arg))
    return current if _is_section(current) else Config


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _without_none(annotation: Any) -> Any:
    """`ItemSource | None` -> `ItemSource`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation
