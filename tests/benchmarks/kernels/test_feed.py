"""Every loader that is timed reads all rows, each row once in all ranks together."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.kernels import feed

ROWS = 6000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    table = pa.table(
        {name: rng.integers(0, top, ROWS).astype(np.int32) for name, top in feed.INTS.items()}
        | {name: rng.normal(size=ROWS).astype(np.float32) for name in feed.FLOATS}
    )
    for number, low in enumerate(range(0, ROWS, ROWS // 4)):
        pq.write_table(table.slice(low, ROWS // 4), folder / f"{number}.parquet")
    return sorted(str(path) for path in Path(folder).iterdir())


@pytest.mark.parametrize("name", [*feed.PEERS, *feed.FEEDS])
def test_all_ranks_together_see_every_row_in_every_epoch(
    files: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[Any] = []

    def opened(*args: Any) -> Any:
        readers.append(petastorm(*args))
        return readers[-1]

    petastorm = feed.petastorm
    monkeypatch.setattr(feed, "petastorm", opened)
    make = {**feed.PEERS, **feed.FEEDS}[name]
    ranks = [make(files, rank, 2000) for rank in range(feed.RANKS)]
    for number in range(2):
        assert sum(epoch(number) for epoch in ranks) == ROWS
    for reader in readers:  # their threads would go on and slow later tests
        reader.stop()
        reader.join()


@pytest.mark.slow
def test_a_rate_is_of_all_ranks(files: list[str]) -> None:
    first, later = feed.rates(feed.FEEDS["feed arrow"], files, 2000, ROWS)
    assert 0 < first < 100 and 0 < later < 100
    with pytest.raises(AssertionError, match="of 6001 rows"):
        feed.rates(feed.FEEDS["feed arrow"], files, 2000, ROWS + 1)
