"""pydantic's errors as one line a person can act on."""

import difflib
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel


def explain(error: Any, root: type[BaseModel]) -> str:
    """One pydantic error as `dotted.key: found, expected`."""
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        known = sorted(_model_at(loc[:-1], root).model_fields)
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        return f"unknown key `{key}`" + (
            f", did you mean `{near[0]}`?" if near else f"; known here: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return f"required key `{key}` is missing"
    if error["type"] == "value_error" and not key:  # about several sections, which the message names
        return str(error["ctx"]["error"])
    return f"`{key}`: found {error['input']!r:.80}, {error['msg'][:1].lower()}{error['msg'][1:]}"


def _model_at(loc: list[str], root: type[BaseModel]) -> type[BaseModel]:
    """The section type at a location; list positions and dictionary keys step into their element type."""
    current: Any = root
    for part in loc:
        if _is_section(current):
            current = _without_none(current.model_fields[part].annotation)
        else:  # dict[str, X] or tuple[X, ...]
            current = next(arg for arg in get_args(current) if _is_section(arg))
    return current if _is_section(current) else root


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _without_none(annotation: Any) -> Any:
    """`ItemSource | None` -> `ItemSource`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation
