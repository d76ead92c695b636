"""One run at a time on a warehouse: a lease that its holder renews and that expires when the holder is gone.

A lease is a file `<warehouse>/_lease/<number>.json`; the highest number is the current lease. A run takes over an ended
or expired lease by creating the next number. The file system lets exactly one run create it, so nothing has to be
deleted first. (Renaming the old file instead could remove the lease that a faster run has just created from it.)
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import fsspec

from recspark.errors import DataError

log = logging.getLogger(__name__)

FOLDER = "_lease"
EXPIRES_S = 60.0
HEARTBEAT_S = 15.0
LOOK_S = 2.0  # between looks at a lease that may be expired
KEPT = 3  # the newest lease files that are not deleted: enough for a run that listed the folder just before


@dataclass(frozen=True)
class Lease:
    """The run that holds the warehouse; times are seconds since the epoch, by the holder's clock."""

    run_id: str
    machine: str
    pid: int
    since: float
    alive: float  # the last heartbeat
    ended: bool = False

    def is_gone(self) -> bool:
        """Ended, or held by a process of this machine that no longer runs."""
        return self.ended or (self.machine == machine() and not _runs(self.pid))

    def is_free(self, now: float) -> bool:
        """Gone, or held by a process of this machine that has sent no heartbeat for EXPIRES_S."""
        return self.is_gone() or (self.machine == machine() and now - self.alive > EXPIRES_S)

    def may_be_gone(self, now: float) -> bool:
        """By the clocks, which may differ between machines: no heartbeat for EXPIRES_S, or one from the future."""
        return not 0 <= now - self.alive <= EXPIRES_S


class Held:
    """A lease that this run holds: `start` begins the heartbeat, `check` verifies the lease, `end` gives it back.

    `taken_over`: the run before has not given it back and its process may still be writing.
    """

    def __init__(
        self, fs: fsspec.AbstractFileSystem, folder: str, number: int, lease: Lease, taken_over: bool = False
    ) -> None:
        self._fs, self._folder, self.number, self._lease = fs, folder, number, lease
        self.taken_over = taken_over
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def check(self) -> None:
        """Verify that the lease is still this run's.

        Raises: DataError when another run has taken it over, for example after this machine was suspended.
        """
        if newest(self._fs, self._folder) != self.number:
            raise DataError(
                f"run {self._lease.run_id} lost the lease of {self._folder} to another run, since it sent no heartbeat "
                f"for {EXPIRES_S:.0f} s; start it again when the other run has ended"
            )

    def start(self) -> None:
        """Begin the heartbeat, in a thread."""
        self._thread.start()

    def end(self) -> None:
        """Give the lease back; its file stays, marked as ended, so that no number is used twice."""
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT_S)
        self._write(ended=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._write(ended=False)
            except Exception as error:  # any, of any storage's client: the next one may succeed
                log.warning("lease: heartbeat failed: %s", error)

    def _write(self, ended: bool) -> None:
        self._lease = replace(self._lease, alive=time.time(), ended=ended)
        _overwrite(self._fs, _path(self._folder, self.number), self._lease)


@contextmanager
def hold(warehouse: str, run_id: str, wait_s: float = 0.0) -> Iterator[Held]:
    """Hold the warehouse while the block runs; waits up to `wait_s` for another run to end.

    Raises: DataError naming the holder when the warehouse is in use.
    """
    deadline = time.monotonic() + wait_s
    held = acquire(warehouse, run_id)
    while isinstance(held, Lease):
        if time.monotonic() >= deadline:
            raise DataError(_taken(warehouse, held))
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))
        held = acquire(warehouse, run_id)
    held.start()
    try:
        yield held
    finally:
        held.end()


def acquire(warehouse: str, run_id: str) -> Held | Lease:
    """This run's lease, or that of the run that holds the warehouse."""
    fs, folder = _folder(warehouse)
    last, taken_over = newest(fs, folder), False
    if last:
        holder = _read(fs, _path(folder, last))
        if not holder.is_free(time.time()) and not (
            holder.may_be_gone(time.time()) and _is_unchanged(fs, folder, last)
        ):
            return _read(fs, _path(folder, newest(fs, folder)))
        taken_over = not holder.is_gone()
    now = time.time()
    mine = Lease(run_id, machine(), os.getpid(), since=now, alive=now)
    try:
        _create(fs, _path(folder, last + 1), mine)
    except FileExistsError:
        return _read(fs, _path(folder, last + 1))
    found = newest(fs, folder)
    if found != last + 1:  # the listing was so old that this number had been used and deleted
        fs.rm_file(_path(folder, last + 1))
        return _read(fs, _path(folder, found))
    _clear(fs, folder, last + 1 - KEPT)
    return Held(fs, folder, last + 1, mine, taken_over)


def _folder(warehouse: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system and the folder of the leases, which is made.

    Raises: DataError if the warehouse cannot be written.
    """
    try:
        fs, root = fsspec.core.url_to_fs(warehouse)
        folder = f"{root.rstrip('/')}/{FOLDER}"
        fs.makedirs(folder, exist_ok=True)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"warehouse {warehouse} cannot be written: {error}; give a folder or an URL that can"
        ) from error
    return fs, folder


def _is_unchanged(fs: fsspec.AbstractFileSystem, folder: str, number: int) -> bool:
    """Does a lease of another machine stay as it is for EXPIRES_S, by this machine's own steady clock?"""
    before, until = _read(fs, _path(folder, number)), time.monotonic() + EXPIRES_S
    log.warning("lease: watching that of run %s for %.0f s, whether it is still alive", before.run_id, EXPIRES_S)
    while time.monotonic() < until:
        time.sleep(min(LOOK_S, EXPIRES_S / 4))
        now = _read(fs, _path(folder, number))
        if now.ended:
            return True
        if now != before or newest(fs, folder) != number:
            return False
    return True


def machine() -> str:
    """Where a process id is unique: the host and, if there is one, the process namespace."""
    try:
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def newest(fs: fsspec.AbstractFileSystem, folder: str) -> int:
    """The highest number, 0 if there is none."""
    fs.invalidate_cache(folder)
    return max(_numbers(fs, folder), default=0)


def _numbers(fs: fsspec.AbstractFileSystem, folder: str) -> list[int]:
    names = (path.rsplit("/", 1)[-1] for path in fs.ls(folder, detail=False))
    return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()]


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"


def _clear(fs: fsspec.AbstractFileSystem, folder: str, up_to: int) -> None:
    for number in _numbers(fs, folder):
        if number <= up_to:
            fs.rm_file(_path(folder, number))


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _create(fs: fsspec.AbstractFileSystem, path: str, lease: Lease) -> None:
    """Write a file that must not exist, as one step of the storage. Raises FileExistsError."""
    data = json.dumps(asdict(lease)).encode()
    if not _is_local(fs):
        fs.pipe_file(path, data, mode="create")  # a conditional PUT on S3, GCS and Azure
        return
    with open(path, "xb") as file:  # for a run that reads it while still empty it counts as held: see _read
        file.write(data)


def _overwrite(fs: fsspec.AbstractFileSystem, path: str, lease: Lease) -> None:
    data = json.dumps(asdict(lease)).encode()
    if not _is_local(fs):
        fs.pipe_file(path, data)  # object stores replace as a whole
        return
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def _read(fs: fsspec.AbstractFileSystem, path: str) -> Lease:
    """A file that cannot be read counts as held since it was written."""
    try:
        content: dict[str, Any] = json.loads(fs.cat_file(path))
        return Lease(**content)
    except FileNotFoundError:  # the run that created it has removed it: see acquire
        return Lease("unknown", "", 0, 0.0, 0.0, ended=True)
    except (ValueError, TypeError):
        written = fs.modified(path).timestamp()
        return Lease("unknown", "unknown", 0, written, written)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


def _taken(warehouse: str, lease: Lease) -> str:
    age = time.time() - lease.alive
    return (
        f"warehouse {warehouse} is in use by run {lease.run_id} (process {lease.pid} on {lease.machine.split('/')[0]}, "
        f"last heartbeat {age:.0f} s ago); wait until it ends. If it has died, its lease expires {EXPIRES_S:.0f} s "
        "after that heartbeat"
    )
