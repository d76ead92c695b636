"""source.users: who gets a list although they may have no event."""

from functools import reduce
from operator import and_, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.sources import raw
from recspark.warehouse.store import Store

SECTION = "source.users"


def eligible_users(store: Store, config: Config) -> DataFrame:
    """(scenario, user_id), distinct, of source.users. Left out are rows without either, with reserved ids or ids that
    are not UTF-8, and those with another number of values than the header."""
    return _given(store, config).where(~is_reserved()).distinct()


def ids_of_rows(store: Store, config: Config) -> DataFrame:
    """(user_id) of every row of source.users, whether or not the user gets a list."""
    source = config.source.users
    assert source is not None
    rows = raw.read(store.spark, source, SECTION)
    place = raw.place(source)
    return rows.select(expressions.column(rows, source.user_id, "id", f"{SECTION}.{c.USER_ID}", place).alias(c.USER_ID))


def num_reserved(store: Store, config: Config) -> int:
    """The number of rows that `eligible_users` leaves out for their ids."""
    return _given(store, config).where(is_reserved()).count()


def _given(store: Store, config: Config) -> DataFrame:
    source = config.source.users_with_lists
    assert source is not None
    rows = raw.read(store.spark, source, SECTION)
    place = raw.place(source)
    ids = [
        expressions.column(rows, getattr(source, name), "id", f"{SECTION}.{name}", place).alias(name)
        for name in (c.SCENARIO, c.USER_ID)
    ]
    found = rows.where(~raw.malformed(rows)).select(*ids)
    return found.where(
        reduce(and_, ((F.col(name) != "") & expressions.is_decoded(F.col(name)) for name in found.columns))
    )


def is_reserved() -> Column:
    """The ids of the lists and metrics of all users together, which no row of a source may have."""
    return reduce(or_, (F.col(name) == reserved for name, reserved in c.RESERVED.items()))
