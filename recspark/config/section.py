"""What all sections of the configuration are made of."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and strict: an unknown key is an error. The text below a field is its description in
    docs/configuration.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def expanded(place: str) -> str:
    """`~` at the start and `${VARIABLE}` anywhere, replaced as a shell does.

    Raises: ValueError for a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"the variable {match[1]} is not set")
        return os.environ[match[1]]

    return os.path.expanduser(re.sub(r"[$][{](\w+)[}]", value, place))


Place = Annotated[str, AfterValidator(expanded)]  # a file, a folder or an URL
