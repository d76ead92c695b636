"""source.users: who gets a list although they may have no event."""

from pyspark.sql import DataFrame

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.sources import raw
from recspark.warehouse.store import Store

SECTION = "source.users"


def eligible_users(store: Store, config: Config) -> DataFrame:
    """(scenario, user_id), distinct, of source.users; rows without either are left out."""
    source = config.source.users
    assert source is not None
    rows = raw.read(store.spark, source, SECTION)
    place = raw.place(source)
    ids = [
        expressions.column(rows, getattr(source, name), "id", f"{SECTION}.{name}", place).alias(name)
        for name in (c.SCENARIO, c.USER_ID)
    ]
    return rows.select(*ids).where(" AND ".join(f"trim({n}) <> ''" for n in (c.SCENARIO, c.USER_ID))).distinct()
