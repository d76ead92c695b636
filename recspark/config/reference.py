"""docs/configuration.md from the types of the configuration: every key with type, default and meaning."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recspark.config.schema import Config

HEAD = """# Configuration

Every key of the YAML file. Written by `recspark describe configuration`; do not edit by hand.

A value may be given on the command line too: `--set dotted.key=value`. Expressions are Spark SQL. What is
*experimental* is off by default, and not shown to make published lists better; the gate decides what is published.
"""
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def configuration() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for place, section, is_list in sections(Config, ""):
        title = f"## `{place}`" if place else "## Top level"
        rows = [row(name, field) for name, field in section.model_fields.items()]
        table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
        about = f"{'A list; of each: ' if is_list else ''}{words(section.__doc__)}"
        parts.append("\n".join((title, "", about, "", *table, "")))
    return "\n".join(parts)


def sections(
    section: type[BaseModel], place: str, is_list: bool = False
) -> Iterator[tuple[str, type[BaseModel], bool]]:
    """(dotted place, section, is it a list's element) of a section and all sections below it."""
    yield place, section, is_list
    for name, field in section.model_fields.items():
        below = inner(field.annotation)
        if below is not None:
            kind, listed, keyed = below
            yield from sections(kind, f"{place}.{name}".lstrip(".") + (".<name>" if keyed else ""), listed)


def inner(annotation: Any) -> tuple[type[BaseModel], bool, bool] | None:
    """The section in an annotation, and whether it is the element of a list, or of a dictionary; None for a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False, False
    origin = get_origin(annotation)
    for argument in get_args(annotation):
        found = inner(argument)
        if found is not None:
            return found[0], found[1] or origin is tuple, found[2] or origin is dict
    return None


def row(name: str, field: FieldInfo) -> str:
    """A key's row of the table."""
    below = inner(field.annotation)
    about = field.description or (words(below[0].__doc__) if below else "")
    default = "required" if field.is_required() else shown(field.default)
    return f"| `{name}` | {type_name(field)} | {default} | {words(about)} |".replace("  ", " ")


def type_name(field: FieldInfo) -> str:
    """A type in words, with its bounds."""
    bounds = [f"{SIGNS[b]} {getattr(m, b):g}" for m in field.metadata for b in SIGNS if hasattr(m, b)]
    return ", ".join((named(field.annotation), *bounds))


def named(annotation: Any) -> str:
    """`text or null`, `list of text` and so on, of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else named(one) for one in arguments)
    if origin in (tuple, dict, Annotated):
        return {tuple: "list of ", dict: "name: ", Annotated: ""}[origin] + named(arguments[1 if origin is dict else 0])
    if inner(annotation) is not None:
        return "section"
    return NAMES.get(annotation, str(annotation.__name__))


def shown(value: Any) -> str:
    """A default as YAML shows it."""
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return "see below"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, float):
        return f"`{value:g}`" if value != float("inf") else "`.inf`"
    return f"`{value}`"


def words(text: str | None) -> str:
    """One line that a Markdown table can hold."""
    return " ".join((text or "").split()).replace("|", "\\|")
