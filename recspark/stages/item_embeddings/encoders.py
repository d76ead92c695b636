"""The encoders of a night: the configured ones, the night's text adapter and the model of facts."""

from dataclasses import dataclass
from datetime import date

from recspark.config.content import Encoder
from recspark.config.schema import Config
from recspark.encoders.weights import versions
from recspark.errors import ConfigError, DataError
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

ADAPTER, FACT_MODEL = "text_adapter", "fact_model"  # artefacts; the first is an encoder's name in the YAML too
FACTS = "facts@"  # prefix of the version of vectors made from item_facts; the model folder's name follows


@dataclass(frozen=True)
class NightEncoder:
    """`version`: its value of `encoder` in item_embeddings. `settings`: how its vectors are computed and stored."""

    version: str
    settings: Encoder


def encoders_of(store: Store, config: Config, run_date: date) -> tuple[NightEncoder, ...]:
    """All encoders of a night, in the configuration's order, the model of facts last.

    Raises: ConfigError if one is missing or named twice, DataError if one is not trained yet.
    """
    settings = content_encoders(store, config, run_date)
    found = [NightEncoder(*pair) for pair in zip(versions(settings), settings, strict=True)]
    if encodes_facts(config):
        path = artifacts.find(store, config, FACT_MODEL, run_date)
        if path is None:
            raise DataError("item_facts.embedding: no model is trained yet; run jobs/item_embeddings.py first")
        found.append(NightEncoder(FACTS + artifacts.name_of(path), Encoder()))
    return tuple(found)


def content_encoders(store: Store, config: Config, run_date: date) -> tuple[Encoder, ...]:
    """The encoders of texts and media, with the night's adapter folder for the one called `text_adapter`.

    Raises: ConfigError if the section text_adapter is missing, DataError if its stage has not run.
    """
    encoders = config.item_embeddings.all
    if not uses_adapter(config):
        return encoders
    path = artifacts.require(store, config, ADAPTER, run_date, ADAPTER)
    return tuple(one.model_copy(update={"encoder": path}) if one.encoder == ADAPTER else one for one in encoders)


def uses_adapter(config: Config) -> bool:
    """Is the night's text adapter one of the encoders?

    Raises: ConfigError if it is, and the section text_adapter is missing.
    """
    named = any(one.encoder == ADAPTER for one in config.item_embeddings.all)
    if named and config.text_adapter is None:
        raise ConfigError(
            f"item_embeddings: found the encoder {ADAPTER}, expected a section of that name; add `{ADAPTER}: {{}}`"
        )
    return named


def encodes_facts(config: Config) -> bool:
    """Does the configuration have vectors made from item_facts?"""
    return config.item_facts is not None and config.item_facts.embedding is not None
