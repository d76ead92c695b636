"""Races for the lease alone: processes that take it and give it back, thousands of times, under planted faults.

Storages are folders of this machine: `local` (creating is one step), `conditional` (a PUT with a condition, as S3 has)
and `plain` (fsspec's default: look, then write). Before and after each of their requests a process may pause, be
stopped by SIGSTOP for longer than a lease lasts, or have its request fail, before it is done or after. Clocks differ by
up to an hour.

What must hold, by the one steady clock of the machine: every number has one holder; and a check that a holder passed
began before a holder of a later number had its lease. A broken rule is counted as a fault.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from recspark.errors import BusyError
from recspark.warehouse import lease, lease_files

STORAGES = ("local", "conditional", "plain")
EXPIRES_S, HEARTBEAT_S = 0.4, 0.1
PAUSES_S = (0.0, 0.0, 0.0, 0.002, 0.02)
WORK_S = 0.1  # at most, between two checks
LONG_S = 2.5  # a stop that outlasts a lease
SKEW_S = 3600.0
GO = "go"
FAILS = 0.01  # of the requests


class Plain(LocalFileSystem):
    """A file system that is not local to the lease, and whose create is no single step."""

    protocol = "plain"
    cachable = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        pause()
        super().pipe_file(path, value)


class Conditional(Plain):
    """Creating a file that exists fails in one step: a hard link to a file that is written before."""

    protocol = "s3"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        temporary = f"{path}.{os.getpid()}.{time.monotonic_ns()}.part"
        LocalFileSystem.pipe_file(self, temporary, value)
        try:
            (os.link if mode == "create" else os.replace)(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)


def pause() -> None:
    time.sleep(random.choice(PAUSES_S))


def with_faults(folder: lease_files.LeaseFolder) -> lease_files.LeaseFolder:
    """The folder with pauses around its requests, of which some fail: before they are done, or after."""

    def faulty(request: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            pause()
            if random.random() < FAILS / 2:
                raise ConnectionError("planted: not sent")
            found = request(*given, **named)
            pause()
            if random.random() < FAILS / 2:
                raise TimeoutError("planted: done, but no answer")
            return found

        return call

    lease_files.open = faulty(open)  # type: ignore[attr-defined]
    fs = folder.fs
    for name in ("ls", "pipe_file", "cat_file", "rm_file"):
        setattr(fs, name, faulty(getattr(fs, name)))
    return folder


def work(storage: str, place: str, seconds: float, seed: int, log: str) -> None:
    """One process: take the lease, check it a few times, give it back; write what happened to the log.

    It waits for the file `go`, so that all begin at once.
    """
    random.seed(seed)
    lease.EXPIRES_S, lease.HEARTBEAT_S, lease.LOOK_S = EXPIRES_S, HEARTBEAT_S, 0.05
    lease.KEPT = 30  # with few, a stopped holder misses its own file, whether it looks for later ones or not
    lease_files.SETTLE_S = 0.02
    skew = random.uniform(-SKEW_S, SKEW_S)
    lease.time = SimpleNamespace(  # type: ignore[assignment]
        time=lambda: time.time() + skew, monotonic=time.monotonic, sleep=time.sleep
    )
    fs = {"local": LocalFileSystem, "plain": Plain, "conditional": Conditional}[storage](skip_instance_cache=True)
    fs.makedirs(f"{place}/_lease", exist_ok=True)
    folder = with_faults(lease_files.LeaseFolder(fs, f"{place}/_lease"))
    lease.open_folder = lambda *_: folder
    with open(log, "a", encoding="utf-8", buffering=1) as out:
        while not Path(log).with_name(GO).exists():
            time.sleep(0.01)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                for line in one_turn(place):
                    out.write(json.dumps(line) + "\n")
            except OSError as error:  # a planted one
                out.write(json.dumps({"what": "failed", "error": str(error)}) + "\n")
        out.write(json.dumps({"what": "over"}) + "\n")


def one_turn(place: str) -> Iterator[dict[str, Any]]:
    """Yield what happened, with the steady clock."""
    try:
        with lease.hold(place, f"run of {os.getpid()}") as held:
            yield {"what": "held", "number": held.number, "at": time.monotonic()}
            for _ in range(random.randrange(6)):
                time.sleep(random.uniform(0, WORK_S))
                began = time.monotonic()
                held.check()
                yield {"what": "checked", "number": held.number, "at": began}
    except BusyError as error:
        yield {"what": "lost" if "lost the lease" in str(error) else "refused"}


def race(storage: str, processes: int, seconds: float, seed: int) -> dict[str, Any]:
    """One round; returns its counts."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.night.lease_races", storage, f"{folder}/w", str(seconds)]
        logs = [Path(folder) / f"{n}.log" for n in range(processes)]
        running = [
            subprocess.Popen([*command, str(seed * 100 + n), str(log)], stderr=subprocess.DEVNULL)
            for n, log in enumerate(logs)
        ]
        while not all(log.exists() for log in logs) and all(one.poll() is None for one in running):
            time.sleep(0.01)
        (Path(folder) / GO).touch()
        stops, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.05, 0.3))
            one = chance.choice(running)
            if one.poll() is None:
                one.send_signal(signal.SIGSTOP)
                time.sleep(chance.choice((0.05, LONG_S)))
                one.send_signal(signal.SIGCONT)
                stops += 1
        codes = [one.wait(timeout=60) for one in running]
        lines = [json.loads(line) for log in logs if log.exists() for line in log.read_text().splitlines()]
    counts = {what: sum(line["what"] == what for line in lines) for what in ("held", "refused", "lost", "failed")}
    return {**counts, "stops": stops, "faults": faults(lines) + sum(code != 0 for code in codes)}


def faults(lines: list[dict[str, Any]]) -> int:
    """Numbers with two holders, and passed checks that began after a later number had its holder."""
    held = sorted((line["number"], line["at"]) for line in lines if line["what"] == "held")
    numbers = [number for number, _ in held]
    found = len(numbers) - len(set(numbers))
    later: dict[int, float] = {}  # number -> when the first holder of a higher number had its lease
    first = float("inf")
    for number, at in reversed(held):
        later[number] = min(first, later.get(number, first))
        first = min(first, at)
    checks = (line for line in lines if line["what"] == "checked")
    return found + sum(line["at"] >= later.get(line["number"], float("inf")) for line in checks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night.lease_races")
    for name, kind in (("storage", str), ("place", str), ("seconds", float), ("seed", int), ("log", str)):
        parser.add_argument(name, type=kind)
    given = parser.parse_args()
    fsspec.register_implementation("plain", Plain, clobber=True)
    work(given.storage, given.place, given.seconds, given.seed, given.log)


if __name__ == "__main__":
    main()
