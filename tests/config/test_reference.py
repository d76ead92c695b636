"""docs/configuration.md says what the types say."""

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from recspark.config import reference
from recspark.config.schema import Config
from recspark.config.section import Section

ROOT = Path(__file__).resolve().parents[2]


class Inner(Section):
    """Below."""

    many: tuple[int, ...] = (1, 2)
    """How many."""


class Outer(Section):
    """Above."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A | share."""
    kind: Literal["a", "b"] | None = None
    """Which."""
    needed: str
    """Must be there."""
    inner: Inner = Inner()
    named: dict[str, Inner] = {}  # noqa: RUF012
    """By name."""


def test_a_key_is_a_row_with_type_bounds_default_and_meaning() -> None:
    rows = {name: reference.row(name, field) for name, field in Outer.model_fields.items()}
    assert rows == {
        "share": "| `share` | number, > 0, <= 1 | `0.5` | A \\| share. |",
        "kind": "| `kind` | `a`, `b` or null | null | Which. |",
        "needed": "| `needed` | text | required | Must be there. |",
        "inner": "| `inner` | section | see below | Below. |",
        "named": "| `named` | name: section | `{}` | By name. |",
    }
    assert (
        reference.row("many", Inner.model_fields["many"]) == "| `many` | list of whole number | `[1, 2]` | How many. |"
    )
    found = [(place, section.__name__) for place, section, _ in reference.sections(Outer, "")]
    assert found == [("", "Outer"), ("inner", "Inner"), ("named.<name>", "Inner")]


def test_the_page_is_not_stale() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.configuration(), "run: recspark describe configuration > docs/configuration.md"


@pytest.mark.parametrize("place,section", [(p, s) for p, s, _ in reference.sections(Config, "")], ids=str)
def test_every_key_says_what_it_means(place: str, section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        row = reference.row(name, field)
        assert re.search(r"\\| [^|]{8,} \\|$", row), f"{place}.{name}: no description: {row}"
