"""The trained modes, which can order a list: the torch ranker and its transfers, LightGBM, and their blend."""

from recspark.config.schema import Config

EVALUATED, PUBLISHED = "evaluated", "published"  # the two copies of every model: see stage.py
RANKER, GBDT = "ranker", "gbdt"
BLEND = "blend"  # of these two; not trained itself
JOINT, ALONE, AUGMENT = "joint", "alone", "augment"  # entries of ranker.transfer; the last two transfer nothing


def mode_of(transfer: str) -> str:
    """The mode that an entry of `ranker.transfer` adds."""
    return RANKER if transfer == JOINT else f"{RANKER}_{transfer}"


def trained_modes(config: Config) -> tuple[str, ...]:
    """All modes except the retrievers."""
    return (*(mode_of(transfer) for transfer in config.ranker.transfer), GBDT, BLEND)


def transferring_modes(config: Config) -> tuple[str, ...]:
    """The torch modes that also learn from other scenarios' rows."""
    return tuple(mode_of(transfer) for transfer in config.ranker.transfer if transfer not in (ALONE, AUGMENT))
