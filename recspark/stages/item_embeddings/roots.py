"""Where files that the catalogue's rows name may lie: the source's own folder, and `source.items.media_roots`."""

import hashlib

import fsspec
from pyspark.sql import SparkSession

from recspark.config.schema import Config
from recspark.encoders import media
from recspark.errors import ConfigError
from recspark.sources import paths

KEY = "source.items.media_roots"


def roots_of(spark: SparkSession, config: Config) -> tuple[str, ...]:
    """The roots of a night, as URLs or absolute paths; none without a catalogue.

    Raises: ConfigError for a root that names no one place, all of a machine, or a store without its library.
    """
    source = config.source.items
    if source is None:
        return ()
    for root in source.media_roots:
        _check(root)
    return tuple(sorted({*paths.folders(spark, source), *source.media_roots}))


def digest_of(roots: tuple[str, ...]) -> str:
    """A short name of some roots, which may hold what is not for everybody's eyes."""
    return hashlib.sha256("\n".join(roots).encode()).hexdigest()[:16]


def _check(root: str) -> None:
    try:
        place = media.parse(root)
    except ValueError as error:
        raise ConfigError(f"{KEY}: found {root} ({error}), expected a folder, or an URL of a folder") from None
    if not (place.host or place.parts):
        raise ConfigError(f"{KEY}: found {root}, which is every file of a machine; name a folder")
    if place.scheme in ("", *media.PORTS):
        return
    try:
        fsspec.get_filesystem_class(place.scheme)
    except ImportError as error:
        raise ConfigError(f"{KEY}: {root}: {error}") from None
    except ValueError:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise ConfigError(f"{KEY}: found {root}, whose kind fsspec does not know; expected one of {known}") from None
