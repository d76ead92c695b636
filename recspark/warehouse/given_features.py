"""Where the features that the configuration names lie, as of a date: for the stages that read them.

recspark/given_features.py opens the folder; recspark/stages/given_features.py writes it.
"""

from datetime import date

from recspark.config.schema import Config
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

NOUN = "given_features"


def folder_of(store: Store, config: Config, as_of: date) -> str | None:
    """The folder of a date; None if the configuration has no feature.

    Raises: DataError if it has some and the folder was not written.
    """
    return artifacts.require(store, config, NOUN, as_of, NOUN) if config.source.has_features else None
