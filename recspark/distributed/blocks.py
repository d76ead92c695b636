"""Arrow batches cut at user boundaries: Spark's batches end anywhere, a list must not."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recspark import columns as c


def whole_users(batches: Iterator[pa.RecordBatch], min_rows: int = 20_000) -> Iterator[pa.Table]:
    """Tables of at least `min_rows` rows in which no user is cut. The rows must arrive sorted by user_idx.

    Memory: min_rows plus one batch plus the rows of one user.
    """
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        rows += batch.num_rows
        if rows < min_rows:
            continue
        table = pa.Table.from_batches(held)
        users = table.column(c.USER_IDX).to_numpy()
        cut = int(np.searchsorted(users, users[-1], side="left"))  # where the last, perhaps unfinished user begins
        if cut:
            yield table.slice(0, cut).combine_chunks()
        held = table.slice(cut).to_batches()
        rows = table.num_rows - cut
    if held:
        yield pa.Table.from_batches(held).combine_chunks()
