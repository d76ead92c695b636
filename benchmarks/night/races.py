"""Several runs at once on one warehouse: one has it at any time, the others are told so, and nothing is doubled.

First the lease alone (lease_races.py), then rounds of 2 to 5 processes of `recspark stage interactions` at once, of
which some are stopped for a while, have a clock that is wrong by an hour, or a storage that fails every third
heartbeat. A round is good if at least one process ended with 0, every other one with 4 and one line that names the
holder, the numbers of ids are dense and unique, and the tables are those of a calm run.

Finished rounds are kept in `--keep FOLDER` (default warehouse/races), races.jsonl, and not run again.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.night import lease_races, same_tables
from recspark.errors import BUSY
from recspark.session import get_session

OPTIONS = ("keep",)
LEASE_SECONDS, LEASE_ROUNDS, NIGHT_ROUNDS = 60.0, 5, 10
FEW = "Country IN ('Belgium', 'Norway', 'Portugal')"
INDICES = {"item": 0, "user": 0, "scenario": 1}  # index -> its first number
CONFIG = "conf/online_retail.yaml"
REFUSED = re.compile(r"^error: warehouse \S+ is in use by run \S+ \(process \d+ on ", re.MULTILINE)
LOST = re.compile(r"^error: run \S+ lost the lease of ", re.MULTILINE)
# `recspark` with a wrong clock and failing heartbeats in the lease, and nowhere else
FAULTY = """
import sys, time
from types import SimpleNamespace
from recspark.warehouse import lease, lease_files
skew, fails = float(sys.argv.pop(1)), int(sys.argv.pop(1))
lease.time = SimpleNamespace(time=lambda: time.time() + skew, monotonic=time.monotonic, sleep=time.sleep)
real, beats = lease_files.LeaseFolder.overwrite, [0]
def overwrite(*given):
    beats[0] += 1
    if fails and beats[0] % fails == 0:
        raise ConnectionError("planted")
    real(*given)
lease_files.LeaseFolder.overwrite = overwrite
from recspark.__main__ import main
main()
"""


def run(data: str, seeds: int, quick: bool, keep: str = "warehouse/races") -> dict[str, Any]:
    """Rounds of every kind, `seeds` times; `quick`: one short round of each storage, and one with Spark."""
    Path(keep).mkdir(parents=True, exist_ok=True)
    kept = Path(keep) / "races.jsonl"
    done = {row["round"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    seconds, lease_rounds, night_rounds = (10.0, 1, 1) if quick else (LEASE_SECONDS, LEASE_ROUNDS, NIGHT_ROUNDS)
    todo: list[tuple[str, Any]] = []
    for seed in range(seeds * lease_rounds):
        for storage in lease_races.STORAGES:
            given = (storage, 2 + seed % 4, seconds, seed)
            todo.append((f"lease {storage} {seconds:.0f} s {seed}", lambda given=given: lease_races.race(*given)))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds * night_rounds):
            todo.append((f"interactions {seed}", lambda seed=seed: night(data, seed, calm_run(data, folder))))
        for name, call in todo:
            if name not in done:
                done[name] = {"round": name, **call()}
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[name]) + "\n")
            print(json.dumps(done[name]), flush=True)
    return totals([done[name] for name, _ in todo])


def calm_run(data: str, folder: str) -> str:
    """The warehouse of one run without faults, made once."""
    warehouse, log = f"{folder}/calm", Path(folder) / "calm.log"
    if not log.exists() and start(data, warehouse, log, 0.0, 0).wait():
        raise RuntimeError(f"the calm run failed: {log.read_text()[-2000:]}")
    return warehouse


def totals(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the rounds of the lease by storage, and over those with Spark."""
    found: dict[str, Any] = {}
    for storage in lease_races.STORAGES:
        own = [row for row in rounds if row["round"].startswith(f"lease {storage} ")]
        names = ("held", "refused", "lost", "failed", "stops", "faults")
        found[storage] = {name: sum(row[name] for row in own) for name in names}
    nights = [row for row in rounds if row["round"].startswith("interactions ")]
    found["runs"] = sum(len(row["codes"]) for row in nights)
    found["rounds"], found["bad_rounds"] = len(nights), sum(bool(row["bad"]) for row in nights)
    return found


def night(data: str, seed: int, calm: str) -> dict[str, Any]:
    """One round with Spark; `bad` says what was not as it must be."""
    chance = random.Random(seed)
    processes = 2 + seed % 4
    with tempfile.TemporaryDirectory() as folder:
        raced = f"{folder}/raced"
        logs = [Path(folder) / f"{n}.log" for n in range(processes)]
        running = [
            start(data, raced, log, chance.choice((-3600.0, 0.0, 3600.0)), chance.choice((0, 3))) for log in logs
        ]
        stops = 0
        while any(one.poll() is None for one in running):
            time.sleep(chance.uniform(0.5, 3))
            one = chance.choice(running)
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGSTOP)
                time.sleep(chance.choice((0.5, 2.0, 8.0)))
                os.killpg(one.pid, signal.SIGCONT)
                stops += 1
        codes = [one.wait() for one in running]
        bad = told_wrongly(codes, [log.read_text() for log in logs])
        bad += differing(calm, raced)
    return {"codes": codes, "stops": stops, "bad": bad}


def start(data: str, warehouse: str, log: Path, skew: float, fails: int) -> "subprocess.Popen[bytes]":
    """`recspark stage interactions` as the leader of a process group."""
    overrides = (
        f"warehouse={warehouse}",
        f"source.interactions.paths=[{data}/transactions.parquet]",
        f"source.interactions.where={json.dumps(FEW)}",
        "spark={spark.master: 'local[1]', spark.driver.memory: 1g}",
    )
    command = [sys.executable, "-c", FAULTY, str(skew), str(fails), "stage", "interactions", "--config", CONFIG]
    command += [part for override in overrides for part in ("--set", override)]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def told_wrongly(codes: Sequence[int], logs: Sequence[str]) -> list[str]:
    """What is wrong with the exit codes and last lines."""
    found = [] if 0 in codes else ["no run was done"]
    for code, log in zip(codes, logs, strict=True):
        last = log.rstrip().splitlines()[-1] if log.strip() else ""
        if code not in (0, BUSY):
            found.append(f"exit code {code}: {last:.300}")
        if code == BUSY and not (REFUSED.match(last) or LOST.match(last)):
            found.append(f"exit code {BUSY} with: {last:.300}")
    return found


def differing(calm: str, raced: str) -> list[str]:
    """Tables that are not those of the calm run, and indices whose numbers are not dense."""
    found = [f"{noun}: {columns}" for noun, columns in same_tables.compare(calm, raced).items() if columns]
    spark, owned = get_session({}, app_name="races")
    for noun, first in INDICES.items():
        path = f"{raced}/{noun}_index"
        if Path(path).exists():
            numbers = sorted(row[f"{noun}_idx"] for row in spark.read.format("delta").load(path).collect())
            if numbers != list(range(first, first + len(numbers))):
                found.append(f"{noun}_index: numbers are not dense")
    if owned:
        spark.stop()
    return found
