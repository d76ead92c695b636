"""What all sections of the configuration are made of."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and strict: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
