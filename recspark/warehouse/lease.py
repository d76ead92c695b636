"""One run at a time on a warehouse: a lease that its holder renews and that expires when the holder is gone.

The lease with the highest number is the current one. A run takes over an ended or expired lease by creating the next
number (see lease_files.py), so nothing has to be deleted first. (Renaming the old file instead could remove the lease
that a faster run has just created from it.) A catalog that the tables are in has a lease of its own, in the folder of
its schema: runs with other warehouses may write to it, too.

Whether a holder lives is not judged by its clock, which may be wrong, but by whether its lease changes.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from recspark.errors import BusyError, DataError
from recspark.warehouse.lease_files import LeaseFolder, open_folder

log = logging.getLogger(__name__)

FOLDER = "_lease"
EXPIRES_S = 60.0
HEARTBEAT_S = 15.0
LOOK_S = 2.0  # between looks at a lease that may be expired
KEPT = 3  # the newest numbers whose files are not deleted: enough for a run that listed the folder just before
HUNG_AFTER_S = 6 * 3600.0
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Lease:
    """The run that holds the warehouse; times are seconds since the epoch, by the holder's clock."""

    run_id: str
    machine: str
    pid: int
    since: float
    alive: float  # the last heartbeat
    ended: bool = False
    nonce: str = ""  # of this acquisition
    beat: int = 0  # heartbeats so far: a lease changes even if its clock stands still
    stage: str = ""
    idle_s: float = 0.0  # at the last heartbeat, since the last progress, by the holder's steady clock

    def is_free(self) -> bool:
        """Ended, or held by a process of this machine that no longer runs."""
        return self.ended or (self.machine == machine() and not _runs(self.pid))

    def may_be_gone(self, now: float) -> bool:
        """By the clocks, which may differ between machines: no heartbeat for EXPIRES_S, or one from the future."""
        return not 0 <= now - self.alive <= EXPIRES_S

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return json.dumps(asdict(self)).encode()


class Held:
    """A lease that this run holds: `start` begins the heartbeat, `check` verifies the lease, `end` gives it back.

    `taken_over`: the run before has not given it back, and its process may still be writing.
    """

    def __init__(self, folder: LeaseFolder, number: int, path: str, lease: Lease, taken_over: bool = False) -> None:
        self.number, self.taken_over = number, taken_over
        self.hung_after_s = HUNG_AFTER_S
        self._folder, self._path, self._lease = folder, path, lease
        self._moved = time.monotonic()
        self._stop, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._with: list[Held] = []

    def check(self) -> None:
        """Verify that the lease is still this run's.

        Raises: BusyError when another run has taken it over, for example after this machine was suspended.
        """
        for held in (self, *self._with):
            found = held._folder.files()
            if (held.number, held._path) not in found or found[-1][0] != held.number:
                raise BusyError(
                    f"run {self._lease.run_id} lost the lease of {held._folder.path} to another run, since it sent no "
                    f"heartbeat for {EXPIRES_S:.0f} s; start it again when the other run has ended"
                )

    def join(self, other: "Held") -> None:
        """Treat another lease of this run, that of the catalog, like this one in `check`, `at` and `moved`."""
        self._with.append(other)
        self.taken_over |= other.taken_over

    def at(self, stage: str) -> None:
        """Say in the lease which stage begins."""
        for held in (self, *self._with):
            held.moved()
            held._lease = replace(held._lease, stage=stage)
            held._try_to_write(ended=False)

    def moved(self) -> None:
        """Say that there is progress: without any for `hung_after_s`, the heartbeat stops and the lease expires."""
        for held in (self, *self._with):
            held._moved = time.monotonic()

    def start(self) -> None:
        """Begin the heartbeat, in a thread."""
        self._thread.start()

    def end(self) -> None:
        """Give the lease back; its file stays, marked as ended, so that no number is used twice.

        A storage that fails here changes nothing of the run: the lease expires.
        """
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT_S)
        self._try_to_write(ended=True)

    def _beat(self) -> None:
        was_hung = False
        while not self._stop.wait(HEARTBEAT_S):
            idle, hung = time.monotonic() - self._moved, self.is_hung()
            if not hung:
                self._try_to_write(ended=False)
            elif not was_hung:
                log.error(
                    "lease: no progress in %s for %.0f s: this run counts as hung, another may take the lease over",
                    self._lease.stage or "the run",
                    idle,
                )
            was_hung = hung

    def is_hung(self) -> bool:
        """Has there been no progress for `hung_after_s`?"""
        return time.monotonic() - self._moved > self.hung_after_s

    def _try_to_write(self, ended: bool) -> None:
        try:
            with self._writing:
                now, idle = time.time(), time.monotonic() - self._moved
                lease = replace(self._lease, alive=now, ended=ended, idle_s=idle, beat=self._lease.beat + 1)
                self._lease = lease
                self._folder.overwrite(self._path, lease.to_bytes())
        except Exception as error:  # any, of any storage's client: the next one may succeed
            log.warning("lease: heartbeat failed: %s", error)


@contextmanager
def hold(
    warehouse: str,
    run_id: str,
    wait_s: float = 0.0,
    catalog: str | None = None,
    hung_after_s: float = HUNG_AFTER_S,
) -> Iterator[Held]:
    """Hold the warehouse while the block runs; waits up to `wait_s` for another run to end.

    `catalog`: the folder of the catalog's schema, which is held too.

    Raises: BusyError naming the holder when one of the two is in use.
    """
    deadline = time.monotonic() + wait_s
    with ExitStack() as stack:
        held = stack.enter_context(_hold_one(f"warehouse {warehouse}", warehouse, run_id, deadline, hung_after_s))
        # always the warehouse first: two runs that wait for each other's second lease cannot be
        if catalog is not None and open_folder(catalog, FOLDER).path != held._folder.path:
            held.join(stack.enter_context(_hold_one(f"catalog at {catalog}", catalog, run_id, deadline, hung_after_s)))
        yield held


@contextmanager
def _hold_one(name: str, place: str, run_id: str, deadline: float, hung_after_s: float) -> Iterator[Held]:
    held = acquire(place, run_id)
    waited_for = ""
    while isinstance(held, Lease):
        if time.monotonic() >= deadline:
            raise BusyError(_taken(name, held))
        if held.run_id != waited_for:
            log.info("lease: waiting for run %s (%s) to end", held.run_id, held.stage or "starting")
            waited_for = held.run_id
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))
        held = acquire(place, run_id)
    held.hung_after_s = hung_after_s
    held.start()
    try:
        yield held
    finally:
        held.end()


def acquire(place: str, run_id: str) -> Held | Lease:
    """This run's lease, or that of the run that holds the warehouse or catalog.

    Raises: DataError if nothing can be written there.
    """
    folder = open_folder(place, FOLDER)
    last = folder.newest()
    holders = leases(folder, last)
    if taken_over := not _all_free(holders):
        may_be_gone = all(one.is_free() or one.may_be_gone(time.time()) for one in holders)
        if not may_be_gone or not _is_unchanged(folder, last):
            return _holder(folder, folder.newest())
    now, nonce = time.time(), uuid.uuid4().hex
    mine = Lease(run_id, machine(), os.getpid(), since=now, alive=now, nonce=nonce)
    number = last + 1
    path = folder.path_of(number, nonce)
    try:
        is_mine = folder.create(path, mine.to_bytes())
    except PermissionError as error:
        raise DataError(f"{place} cannot be written: {error}; give this user the right to write there") from error
    if not is_mine:
        return _read(folder, path)
    # a higher number: the listing was so old that this one had been used and deleted
    before = folder.rival(number, path)
    if before is not None:
        return _read(folder, before)
    folder.clear(number - KEPT)
    return Held(folder, number, path, mine, taken_over)


def leases(folder: LeaseFolder, number: int) -> tuple[Lease, ...]:
    """The leases with a number: one, or several while two runs that created it at once settle which one has it."""
    return tuple(_read(folder, path) for found, path in folder.files() if found == number)


def _all_free(holders: tuple[Lease, ...]) -> bool:
    return all(one.is_free() for one in holders)


def _holder(folder: LeaseFolder, number: int) -> Lease:
    found = leases(folder, number)
    return next(
        (one for one in found if not one.is_free()), found[0] if found else Lease(UNKNOWN, UNKNOWN, 0, 0.0, 0.0)
    )


def _is_unchanged(folder: LeaseFolder, number: int) -> bool:
    """Does a lease stay as it is for EXPIRES_S, by this machine's own steady clock?

    A pause of this process between two looks counts as two looks at most: if the holder was suspended together with
    it, its heartbeat needs time to come back.
    """
    before = leases(folder, number)
    if not before:
        return False
    last_look, watched = time.monotonic(), 0.0
    log.warning("lease: watching that of run %s for %.0f s, whether it is still alive", before[0].run_id, EXPIRES_S)
    pause = min(LOOK_S, EXPIRES_S / 4)
    while watched < EXPIRES_S:
        time.sleep(pause)
        began = time.monotonic()
        now = leases(folder, number)
        if folder.newest() != number:
            return False
        if _all_free(now):
            return True
        if now != before:
            return False
        watched += min(began - last_look, 2 * pause)
        last_look = began
    return True


def machine() -> str:
    """Where a process id is unique: the host, its boot, and the process namespace, which exists twice in two boots."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()}/{uuid.getnode()}"


def _read(folder: LeaseFolder, path: str) -> Lease:
    """A file that cannot be read counts as held since it was written; keys of other versions are left out."""
    content = folder.read(path)
    if content is None:  # the run that created it has given way and removed it
        return Lease(UNKNOWN, "", 0, 0.0, 0.0, ended=True)
    try:
        known = {field.name for field in fields(Lease)}
        return Lease(**{key: value for key, value in json.loads(content).items() if key in known})
    except (ValueError, TypeError, AttributeError):
        written = folder.written(path)
        return Lease(UNKNOWN, UNKNOWN, 0, written, written)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


def _taken(name: str, lease: Lease) -> str:
    since = max(0.0, time.time() - lease.alive)  # by two clocks, so it is given apart from what one clock measured
    stage = f"at stage {lease.stage}" if lease.stage else "starting"
    return (
        f"{name} is in use by run {lease.run_id} (process {lease.pid} on {lease.machine.split('/')[0]}, {stage}, last "
        f"progress {lease.idle_s:.0f} s before its last heartbeat, which was {since:.0f} s ago); wait until it ends "
        f"(--wait SECONDS). If it has died, its lease expires {EXPIRES_S:.0f} s after that heartbeat"
    )
