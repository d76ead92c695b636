"""Remove old versions of a table: data files by VACUUM, and log entries, whose statistics hold the smallest and largest
ids of the files that are gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import fsspec

from recspark.warehouse.catalog import path_of

if TYPE_CHECKING:
    from recspark.warehouse.store import Store, Table

CHECKED_HOURS = 168  # Delta refuses a shorter retention unless its check is off; the configuration may ask for one
EACH_VERSION = "'delta.checkpointInterval' = '1'"


def vacuum(store: "Store", table: "Table", hours: float) -> None:
    """Delete files that no version of the last `hours` uses."""
    checked = str(hours >= CHECKED_HOURS).lower()
    with setting(store, "spark.databricks.delta.retentionDurationCheck.enabled", checked):
        store.delta(table).vacuum(hours)


def forget_log(store: "Store", table: "Table") -> None:
    """Remove the log's entries before a new checkpoint of the table, which so has no history. No row changes."""
    name = store.sql_name(table)
    store.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ({EACH_VERSION})")  # writes a checkpoint of its own version
    version, location = store.delta(table).history(1).select("version").first()[0], store.location(table)
    store.spark.sql(f"ALTER TABLE {name} UNSET TBLPROPERTIES ('delta.checkpointInterval')")
    fs, root = fsspec.core.url_to_fs(path_of(location))
    log = f"{root.rstrip('/')}/_delta_log"
    fs.invalidate_cache(log)
    files = {path.rsplit("/", 1)[-1]: path for path in fs.ls(log, detail=False)}
    if not any(name.startswith(f"{version:020}.checkpoint") for name in files):
        return  # without it the older entries are needed
    store.look(table)  # what is made from it stays fresh, also after a crash: its commits are remembered first
    store.save_states()
    for name, path in sorted(files.items()):
        number = name.lstrip(".").split(".")[0]
        if number.isdigit() and int(number) < version:
            fs.rm_file(path)


@contextmanager
def setting(store: "Store", key: str, value: str) -> Iterator[None]:
    """A setting of the session, inside the `with` only."""
    before = store.spark.conf.get(key, None)
    store.spark.conf.set(key, value)
    try:
        yield
    finally:
        if before is None:
            store.spark.conf.unset(key)
        else:
            store.spark.conf.set(key, before)
