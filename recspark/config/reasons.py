"""The wording of lists' reasons: a template for each source, with places that are filled in."""

import difflib
import re
from collections.abc import Mapping

PLACES = re.compile(r"[{](item|scenario)[}]")
WITHOUT_ITEM = "without_item"
# source -> its reason. {item} is the item of the history that explains the listed one.
TEMPLATES = {
    "linear": "often with {item}",
    "co_occurrence": "often with {item}",
    "matrix_factorization": "goes with {item}",
    "sequence": "comes after {item}",
    "content_towers": "similar to {item}",
    "content_map": "similar to {item}",
    "content": "similar to {item}",
    "popular": "popular in {scenario}",
    "repeat": "chosen before",
    "given": "given candidate",
    WITHOUT_ITEM: "suits earlier choices",  # where {item} would be one that was returned since
}
UNEXPLAINED = ("popular", "repeat", "given", WITHOUT_ITEM)  # no item explains these


def checked(reasons: Mapping[str, str]) -> None:
    """Raises ValueError for a source or a place that does not exist."""
    for source, template in reasons.items():
        if source not in TEMPLATES:
            near = difflib.get_close_matches(source, TEMPLATES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(TEMPLATES)}"
            raise ValueError(f"no source `{source}`; {hint}")
        places = ("scenario",) if source in UNEXPLAINED else ("item", "scenario")
        rest = template
        for place in places:
            rest = rest.replace(f"{{{place}}}", "")
        if not template.strip() or "{" in rest or "}" in rest:
            named = " or ".join(f"{{{place}}}" for place in places)
            raise ValueError(f"{source}: found {template!r}, expected a text with {named}, or without")
