"""recspark unpublish --config F --run-date D: take the lists of a night back, in one commit.

Readers of the newest lists then see the night before. published_runs says `withdrawn`; the same night can be run again.
"""

from datetime import date

from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.summary import Summary
from recspark.tables import published_runs
from recspark.tables.night_statistics import LISTS
from recspark.tables.night_statistics import TABLE as STATISTICS
from recspark.tables.recommendation_facts import TABLE as LINKS
from recspark.tables.recommendations import TABLE
from recspark.warehouse.state import slice_of
from recspark.warehouse.store import Store

SHOWN = 5  # nights that the message names


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Delete the lists of `run_date`, then mark their runs.

    Raises: DataError if there are none, naming the newest nights.
    """
    del config, force
    nights = store.read(TABLE).groupBy(c.RUN_DATE).agg(F.collect_set(c.RUN_ID), F.count("*"))
    found = {row[0]: (sorted(row[1]), row[2]) for row in nights.collect()}  # one row a night
    if run_date not in found:
        newest = ", ".join(map(str, sorted(found)[-SHOWN:])) or "none"
        raise DataError(
            f"no lists of {run_date} in {store.name(TABLE.noun)}; the newest nights there: {newest}; "
            "name the night to take back with --run-date"
        )
    runs, num_rows = found[run_date]
    of_night = F.col(c.RUN_DATE) == F.lit(run_date)
    withdrawn = {published_runs.WITHDRAWN: runs}
    store.delete(TABLE, of_night, [slice_of({c.RUN_DATE: run_date})], withdrawn)
    if store.exists(LINKS):
        store.delete(LINKS, of_night)
    if store.exists(STATISTICS):  # later nights are not compared with these lists
        of_lists = (F.col("kind") == LISTS) & (F.col("day") == F.lit(run_date))
        store.delete(STATISTICS, of_lists, [slice_of({c.RUN_DATE: run_date})])
    published_runs.withdraw(store, runs)
    now = f"readers of the newest lists see {max(found.keys() - {run_date})}" if len(found) > 1 else "no list is left"
    note = f"lists of {run_date} taken back, of {', '.join(runs)}; {now}"
    return Summary("unpublish", rows_in=num_rows, note=note)
