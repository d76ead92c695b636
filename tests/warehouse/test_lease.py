"""The lease under the faults that it is for: two runs at once, a dead or slow holder, a storage that is not local."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from recspark.errors import DataError
from recspark.warehouse import lease


def expired(warehouse: Path, number: int = 1, **changes: Any) -> lease.Lease:
    """Write the lease of a run on another machine whose last heartbeat was two minutes ago."""
    then = time.time() - 2 * lease.EXPIRES_S
    left = replace(lease.Lease("gone", "elsewhere", 1, then, then), **changes)
    folder = warehouse / lease.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:08d}.json").write_text(json.dumps(asdict(left)))
    return left


def test_a_second_run_is_told_who_holds_it(tmp_path: Path) -> None:
    taken = pytest.raises(DataError, match=r"in use by run first .*expires 60 s")
    with lease.hold(str(tmp_path), "first"), taken, lease.hold(str(tmp_path), "second"):
        pass
    with lease.hold(str(tmp_path), "third") as held:  # the first has ended
        held.check()


def test_a_run_can_wait_for_the_other(tmp_path: Path) -> None:
    first = lease.acquire(str(tmp_path), "first")
    assert isinstance(first, lease.Held)
    first.start()
    threading.Timer(0.3, first.end).start()
    with lease.hold(str(tmp_path), "second", wait_s=30):
        pass


def test_a_failed_run_gives_its_lease_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), lease.hold(str(tmp_path), "first"):
        raise ValueError("broken")
    with lease.hold(str(tmp_path), "second"):
        pass


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases expire after a fifth of a second."""
    monkeypatch.setattr(lease, "EXPIRES_S", 0.2)


@pytest.mark.usefixtures("soon")
def test_exactly_one_of_many_takes_an_expired_lease_over(tmp_path: Path) -> None:
    for attempt in range(20):
        warehouse = tmp_path / str(attempt)
        expired(warehouse)
        gate = threading.Barrier(8)
        found: list[object] = []

        def contend(name: str, where: Path = warehouse, start: threading.Barrier = gate, to: list = found) -> None:
            start.wait()
            to.append(lease.acquire(str(where), name))

        threads = [threading.Thread(target=contend, args=(f"run{i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(one, lease.Held) for one in found) == 1
        assert all(one.run_id != "gone" for one in found if isinstance(one, lease.Lease))


def test_a_run_with_an_old_listing_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # it saw number 1; meanwhile 2, 3 and 4 came, and 2 was cleared away so that creating it succeeds
    expired(tmp_path, 1)
    for number in (3, 4):
        expired(tmp_path, number, run_id="holder", alive=time.time(), since=time.time())
    listed = iter([1])
    real = lease.newest
    monkeypatch.setattr(lease, "newest", lambda fs, folder: next(listed, None) or real(fs, folder))
    found = lease.acquire(str(tmp_path), "late")
    assert isinstance(found, lease.Lease)
    assert found.run_id == "holder"
    assert sorted(p.name for p in (tmp_path / lease.FOLDER).glob("*.json"))[-1] == "00000004.json"


def test_a_killed_holder_on_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    code = (
        "import os; from recspark.warehouse import lease; "
        f"holding = lease.hold({str(tmp_path)!r}, 'killed'); holding.__enter__(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    left = json.loads((tmp_path / lease.FOLDER / "00000001.json").read_text())
    assert not left["ended"]
    with lease.hold(str(tmp_path), "next"):
        pass


def test_a_holder_elsewhere_with_a_recent_heartbeat_keeps_it(tmp_path: Path) -> None:
    expired(tmp_path, alive=time.time() - lease.EXPIRES_S + 10)
    assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("skew", (-3600.0, 3600.0), ids=("an hour behind", "an hour ahead"))
def test_a_holder_elsewhere_is_known_by_its_heartbeats_not_by_its_clock(tmp_path: Path, skew: float) -> None:
    """As long as the file changes it is held, whatever time stands in it; when it has stayed the same it is free."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.03):
            expired(tmp_path, alive=time.time() + skew)

    expired(tmp_path, alive=time.time() + skew)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)
    finally:
        over.set()
        thread.join()
    assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Held)


def test_a_heartbeat_survives_any_error_of_a_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of an object store has exceptions of its own."""
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    real, failures = lease._overwrite, iter([RuntimeError("throttled"), KeyError("etag"), ValueError("no answer")])

    def overwrite(*given: Any) -> None:
        for error in failures:
            raise error
        real(*given)

    monkeypatch.setattr(lease, "_overwrite", overwrite)
    with lease.hold(str(tmp_path), "long") as held:
        path = tmp_path / lease.FOLDER / f"{held.number:08d}.json"
        since = json.loads(path.read_text())["alive"]
        deadline = time.monotonic() + 10
        while json.loads(path.read_text())["alive"] == since and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(path.read_text())["alive"] > since


@pytest.mark.parametrize("place", ("{folder}/file/recs", "nothing://bucket/recs"))
def test_a_warehouse_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"warehouse .*recs cannot be written: .*; give a folder or an URL that can"):
        lease.acquire(place.format(folder=tmp_path), "run")


def test_heartbeats_keep_a_long_run_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(lease, "EXPIRES_S", 0.5)
    monkeypatch.setattr(lease, "_runs", lambda pid: True)
    with lease.hold(str(tmp_path), "long"):
        time.sleep(0.8)
        assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)


@pytest.mark.usefixtures("soon")
def test_a_run_that_slept_too_long_is_told(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "sleeper") as held:
        expired(tmp_path, held.number, run_id="sleeper")
        other = lease.acquire(str(tmp_path), "other")
        assert isinstance(other, lease.Held)
        with pytest.raises(DataError, match="sleeper lost the lease"):
            held.check()


@pytest.mark.usefixtures("soon")
def test_a_partial_file_counts_as_held_since_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / lease.FOLDER
    folder.mkdir()
    partial = folder / "00000001.json"
    partial.write_bytes(b'{"run_id": "x"')
    assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)
    long_ago = time.time() - 2 * lease.EXPIRES_S
    os.utime(partial, (long_ago, long_ago))
    assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Held)


def test_old_numbers_are_cleared_and_never_start_again(tmp_path: Path) -> None:
    for i in range(6):
        with lease.hold(str(tmp_path), f"run{i}") as held:
            assert held.number == i + 1
    left = sorted(int(p.stem) for p in (tmp_path / lease.FOLDER).iterdir())
    assert left == [4, 5, 6]


def test_through_fsspec_on_a_storage_that_is_not_local() -> None:
    fs = fsspec.filesystem("memory")
    with lease.hold("memory://warehouse", "first"):
        assert isinstance(lease.acquire("memory://warehouse", "second"), lease.Lease)
    with lease.hold("memory://warehouse", "third"):
        pass
    fs.rm("/warehouse", recursive=True)
