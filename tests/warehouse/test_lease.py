"""The lease under the faults that it is for: two runs at once, a dead or slow holder, a storage that is not local."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from recspark.errors import BusyError, DataError
from recspark.warehouse import lease, lease_files
from recspark.warehouse.lease_files import LeaseFolder


def expired(warehouse: Path, number: int = 1, **changes: Any) -> lease.Lease:
    """Write the lease of a run on another machine whose last heartbeat was two minutes ago."""
    then = time.time() - 2 * lease.EXPIRES_S
    left = replace(lease.Lease("gone", "elsewhere", 1, then, then), **changes)
    folder = warehouse / lease.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:08d}.json").write_text(json.dumps(asdict(left)))
    return left


def refused(warehouse: str) -> None:
    with lease.hold(warehouse, "refused"):
        pass


def test_a_second_run_is_told_who_holds_it(tmp_path: Path) -> None:
    taken = pytest.raises(BusyError, match=r"in use by run first .*expires 60 s")
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
    real = LeaseFolder.newest
    monkeypatch.setattr(LeaseFolder, "newest", lambda folder: next(listed, None) or real(folder))
    monkeypatch.setattr(lease, "leases", lambda folder, number: ())
    found = lease.acquire(str(tmp_path), "late")
    assert isinstance(found, lease.Lease)
    assert found.run_id == "holder"
    assert sorted(p.name for p in (tmp_path / lease.FOLDER).glob("*.json"))[-1] == "00000004.json"
    assert not (tmp_path / lease.FOLDER / "00000002.json").exists()


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


class Clocks:
    """Stands for the module `time` of this machine, whose clock shows `wrong` seconds too much. Sleeping takes no time.

    `meanwhile` is called with the steady clock after every sleep.
    """

    def __init__(self, wrong: float = 0.0, meanwhile: Callable[[float], None] = lambda now: None) -> None:
        self.now, self.wrong, self.meanwhile = 1000.0, wrong, meanwhile

    def time(self) -> float:
        return 1.7e9 + self.now + self.wrong

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


SKEWS = pytest.mark.parametrize("skew", (-3600.0, -30.0, 30.0, 3600.0))


@SKEWS
@pytest.mark.parametrize("is_here", (False, True), ids=("elsewhere", "on this machine"))
def test_a_holder_is_known_by_its_heartbeats_not_by_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, is_here: bool
) -> None:
    """As long as its file changes it holds, whatever time stands in it; 60 s after the last change it is free.

    Also on this machine, whose clock may have been set, or which may have slept.
    """
    clocks = Clocks()
    monkeypatch.setattr(lease, "time", clocks)
    who = {"machine": lease.machine(), "pid": os.getpid()} if is_here else {"machine": "elsewhere", "pid": 1}
    beats = 0

    def beat(now: float, until: float = 1e9) -> None:
        nonlocal beats
        if now < until and now // 15 > beats:
            beats = int(now // 15)
            expired(tmp_path, alive=clocks.time() + skew, beat=beats, **who)

    clocks.meanwhile = beat
    beat(clocks.now)
    for _ in range(5):
        assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)
        clocks.sleep(40)
    died = clocks.now + 20
    clocks.meanwhile = lambda now: beat(now, died)
    while isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease):
        clocks.sleep(1)
        assert clocks.now < died + 3 * lease.EXPIRES_S
    assert clocks.now >= died - 15 + lease.EXPIRES_S  # the last heartbeat came up to 15 s before


def test_a_watcher_that_was_paused_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for ten minutes between two looks, together with the holder, which needs 15 s to beat again."""
    clocks = Clocks()
    monkeypatch.setattr(lease, "time", clocks)
    expired(tmp_path, alive=clocks.time() - 100)
    woke: list[float] = []

    def meanwhile(now: float) -> None:
        if not woke:
            clocks.now += 600
            woke.append(clocks.now)
        elif clocks.now > woke[0] + 15:
            expired(tmp_path, alive=clocks.time(), beat=1)

    clocks.meanwhile = meanwhile
    assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)


def test_a_machine_that_slept_finds_its_lease_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder's machine sleeps for an hour: another takes over after a minute; the holder is told at its check."""
    clocks = Clocks(wrong=3600.0)
    sleeper = lease.acquire(str(tmp_path), "sleeper")
    assert isinstance(sleeper, lease.Held)
    sleeper.start()
    sleeper.check()
    monkeypatch.setattr(lease, "time", clocks)
    monkeypatch.setattr(lease, "machine", lambda: "elsewhere")
    other = lease.acquire(str(tmp_path), "other")
    assert isinstance(other, lease.Held)
    assert 1000 + 60 <= clocks.now <= 1000 + 70
    with pytest.raises(BusyError, match="sleeper lost the lease"):
        sleeper.check()
    sleeper.end()  # writes its own file, which is no longer the current one
    other.check()


def test_two_machines_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of one virtual machine: host and process namespace have equal names, and the other's pid is not here."""
    clocks = Clocks()
    monkeypatch.setattr(lease, "time", clocks)
    host, boot, namespace = lease.machine().split("/")
    expired(tmp_path, alive=clocks.time(), machine=f"{host}/{boot[::-1]}/{namespace}", pid=2**22 + 1)
    assert isinstance(lease.acquire(str(tmp_path), "next"), lease.Lease)


def test_a_heartbeat_survives_any_error_of_a_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of an object store has exceptions of its own."""
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    real, failures = LeaseFolder.overwrite, iter([RuntimeError("throttled"), KeyError("etag"), ValueError("no answer")])

    def overwrite(*given: Any) -> None:
        for error in failures:
            raise error
        real(*given)

    monkeypatch.setattr(LeaseFolder, "overwrite", overwrite)
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
        with pytest.raises(BusyError, match="sleeper lost the lease"):
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


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A warehouse on a storage whose create is no single step; what is written is seen at once."""
    monkeypatch.setattr(lease_files, "SETTLE_S", 0.01)
    yield "memory://warehouse"
    fsspec.filesystem("memory").rm("/warehouse", recursive=True)


def test_through_fsspec_on_a_storage_that_is_not_local(memory: str) -> None:
    with lease.hold(memory, "first"):
        assert isinstance(lease.acquire(memory, "second"), lease.Lease)
    with lease.hold(memory, "third") as held:
        assert held.number == 2  # that of the second is not used up
        held.check()


# -- a hung holder, and two leases ------------------------------------------------------------------------------------


def test_who_waits_is_told_the_stage_and_its_last_progress(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "first") as held:
        with pytest.raises(BusyError, match=r"run first \(process \d+ on .*, starting, last progress 0 s before"):
            refused(str(tmp_path))
        held.at("ranker")
        held._moved -= 340  # seconds pass
        held._try_to_write(ended=False)
        with pytest.raises(BusyError, match=r"at stage ranker, last progress 340 s before its last heartbeat"):
            refused(str(tmp_path))


def test_a_hung_run_loses_the_lease_and_one_that_moves_again_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.01)
    path = tmp_path / lease.FOLDER / "00000001.json"

    def is_beating() -> bool:
        before = path.read_text()
        time.sleep(0.1)
        return path.read_text() != before

    with lease.hold(str(tmp_path), "slow", hung_after_s=60) as held:
        assert is_beating()
        held._moved -= 61
        time.sleep(0.05)
        assert not is_beating()
        held.moved()
        assert is_beating()
        held._moved -= 61
        monkeypatch.setattr(lease, "EXPIRES_S", 0.2)
        time.sleep(0.3)
        with lease.hold(str(tmp_path), "next"), pytest.raises(BusyError, match="slow lost the lease"):
            held.check()


def test_two_warehouses_of_one_catalog(tmp_path: Path) -> None:
    one, two, schema = (str(tmp_path / name) for name in ("one", "two", "recs.db"))
    with lease.hold(one, "first", catalog=schema) as held:
        taken = pytest.raises(BusyError, match=r"^catalog at .*recs.db is in use by run first .*at stage items")
        held.at("items")
        with taken, lease.hold(two, "second", catalog=schema):
            pass
        with lease.hold(two, "third"):  # the second has given its own warehouse back
            pass
    with lease.hold(two, "fourth", catalog=schema) as held:
        expired(tmp_path / "recs.db", 3)
        with pytest.raises(BusyError, match=r"lost the lease of .*recs.db"):
            held.check()


def test_a_run_waits_for_both(tmp_path: Path) -> None:
    one, two, schema = (str(tmp_path / name) for name in ("one", "two", "recs.db"))
    holders = [lease.acquire(place, "first") for place in (one, schema)]
    for holder, after in zip(holders, (0.2, 1.2), strict=True):
        assert isinstance(holder, lease.Held)
        holder.start()
        threading.Timer(after, holder.end).start()
    with pytest.raises(BusyError, match="in use"), lease.hold(one, "hasty", catalog=schema):
        pass
    with lease.hold(one, "patient", wait_s=30, catalog=schema):
        pass
    with lease.hold(two, "next", catalog=schema):
        pass


def test_a_catalog_in_the_warehouse_itself_is_one_lease(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "first", catalog=f"{tmp_path}/") as held:
        assert [number for number, _ in held._folder.files()] == [1]


def test_a_full_disk_at_the_end_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with lease.hold(str(tmp_path), "run"):
        monkeypatch.setattr(LeaseFolder, "overwrite", full)
