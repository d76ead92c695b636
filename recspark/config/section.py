"""What all sections of the configuration are made of."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and strict: an unknown key is an error. The text below a field is its description in
    docs/configuration.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
