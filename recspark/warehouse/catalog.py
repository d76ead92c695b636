"""Where a catalog's schema keeps its tables: two configurations of one catalog meet there."""

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import fsspec

from recspark.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)


def place(spark: "SparkSession", catalog: str) -> str | None:
    """The folder of the schema, for its lease; None, with a warning, if recspark cannot write there.

    Raises: ConfigError if the schema does not exist.
    """
    from pyspark.errors import AnalysisException

    try:
        rows = spark.sql(f"DESCRIBE SCHEMA EXTENDED {catalog}").collect()
    except AnalysisException as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"catalog: {catalog} is not a schema of Spark ({first:.200}); CREATE SCHEMA {catalog}"
        ) from None
    location = next((row[1] for row in rows if row[0] == "Location"), "")
    folder = path_of(location)
    if folder and _is_writable(folder):
        return folder
    log.warning(
        "catalog %s: its folder (%s) cannot be written from here, so only runs of one warehouse are kept apart; give "
        "all configurations of this catalog the same warehouse",
        catalog,
        location or "not known",
    )
    return None


def path_of(location: str) -> str:
    """Spark's URI of a folder as fsspec opens it (Databricks mounts dbfs:/ at /dbfs)."""
    found = re.match(r"(file|dbfs):/*(/.*)", location)
    if not found:
        return location
    return ("/dbfs" if found[1] == "dbfs" else "") + unquote(found[2])


def _is_writable(folder: str) -> bool:
    try:
        fs, root = fsspec.core.url_to_fs(folder)
        probe = f"{root.rstrip('/')}/_lease/writable.txt"
        fs.makedirs(probe.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(probe, b"")
    except Exception as error:  # of any storage's client
        log.debug("%s cannot be written: %s", folder, error)
        return False
    return True
