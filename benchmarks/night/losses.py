"""Is anything lost or half when a night loses an executor, or its disk is full?

    python -m benchmarks losses [--keep FOLDER] [--quick]

The small shop of `kills`, whose warehouse before tonight and after a calm night are the measure.
`executor STAGE`: the night runs with two executors of their own, one of which is killed (SIGKILL) soon after the stage
began; good is that the night ends with 0 by itself. Every stage of a night that uses Spark.
`full POINT`: the warehouse lies in a small tmpfs, which is filled right after the n-th commit or renamed file; good is
that the night ends, with one line of why if it failed, and with 0 when the filler is removed and it is run again.
Every EVERY-th point. Needs the right to mount; without it these are left out, with a line.
In both, every table must equal that of the calm night, every id have one number, and a reader see whole nights only.
Finished ones are kept in `--keep FOLDER` (default warehouse/kills, as of `kills`), losses.jsonl, and not made again.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.night import kills

OPTIONS = ("keep",)
STAGES = (
    "interactions", "items", "night_statistics", "item_embeddings", "retriever", "candidates", "training_examples",
    "ranker", "model_metrics", "recommendations",
)  # fmt: skip
EVERY = 4  # of the points
LATEST_S = 4.0  # after a stage began
DISK_MIB = 96  # the warehouse has about 5 MiB
EXECUTORS = "  spark.master: local-cluster[2,1,1024]\n  spark.executor.memory: 1g\n"
EXECUTOR = "CoarseGrainedExecutorBackend"  # in the command line of an executor


def run(data: str, seeds: int, quick: bool, keep: str = "warehouse/kills") -> dict[str, Any]:
    """Every stage and every EVERY-th point once; `quick`: two of each. `data` and `seeds` are not used."""
    del data, seeds
    folder = Path(keep).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kills.prepare(folder)
    points = len((folder / "points.txt").read_text().splitlines())
    todo = [*(f"executor {stage}" for stage in STAGES), *(f"full {n}" for n in range(1, points + 1, EVERY))]
    if quick:
        todo = [todo[1], todo[4], todo[-1], todo[-4]]
    log = folder / "losses.jsonl"
    done = {row["loss"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    found = []
    for name in todo:
        if name not in done:
            kind, _, what = name.partition(" ")
            made = without_executor(folder, what) if kind == "executor" else with_full_disk(folder, int(what))
            if made is None:
                continue
            done[name] = {"loss": name, **made}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name]), flush=True)
        found.append(done[name])
    by_kind = {kind: sum(row["loss"].startswith(kind) for row in found) for kind in ("executor", "full")}
    return {**by_kind, "bad": [row["loss"] for row in found if row["bad"]]}


def without_executor(folder: Path, stage: str) -> dict[str, Any]:
    """A night that loses one of two executors soon after a stage began."""
    lost = folder / "lost"
    shutil.rmtree(lost, ignore_errors=True)
    (folder / "lost.log").unlink(missing_ok=True)
    shutil.copytree(folder / "before", lost)
    with kills.watched(folder, "lost") as reader:
        night = kills.start(folder, "lost", kills.TONIGHT, more=EXECUTORS)
        killed = False
        began = re.compile(rf"\] {stage}\n")
        while night.poll() is None and not killed:
            time.sleep(0.1)
            if began.search((folder / "lost.log").read_text()):
                time.sleep(random.Random(stage).uniform(0.0, LATEST_S))
                killed = kill_executor(night.pid)
        code = night.wait(kills.NIGHT_S)
    bad = [*reader.bad, *kills.differing(folder / "calm", lost)]
    if code:
        bad.append(f"the night ended with {code}: {last_line(folder / 'lost.log')}")
    return {"killed": killed, "looks": reader.looks, "bad": bad}


def kill_executor(pid: int) -> bool:
    """SIGKILL the first executor among the processes that a night has started; is there one?"""
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(EXECUTOR in word for word in process.cmdline()):
                process.send_signal(signal.SIGKILL)
                return True
    return False


def with_full_disk(folder: Path, point: int) -> dict[str, Any] | None:
    """A night whose disk is full from a point on, and the same again with room; None where nothing can be mounted."""
    full = folder / "full"
    full.mkdir(exist_ok=True)
    (folder / "full.log").unlink(missing_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "recspark-losses", str(full)]
    if subprocess.run(mount, check=False).returncode:
        print(f"full {point}: left out, a tmpfs cannot be mounted here", flush=True)
        return None
    try:
        shutil.copytree(folder / "before", full, dirs_exist_ok=True)
        with kills.watched(folder, "full") as reader:
            code = kills.start(folder, "full", kills.TONIGHT, point, str(full / "filler")).wait(kills.NIGHT_S)
            why = last_line(folder / "full.log")
            (full / "filler").unlink()
            again = kills.start(folder, "full", kills.TONIGHT).wait(kills.NIGHT_S)
        bad = [*reader.bad, *kills.differing(folder / "calm", full)]
    finally:
        subprocess.run(["umount", str(full)], check=True)
    if again:
        bad.append(f"the night again ended with {again}: {last_line(folder / 'full.log')}")
    if code and "space" not in why:
        bad.append(f"the night failed without saying why: {why}")
    return {"code": code, "why": why if code else "", "looks": reader.looks, "bad": bad}


def last_line(log: Path) -> str:
    """The last line of a log that is not the line of JSON."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip() and line[0] != "{"]
    return lines[-1][:300] if lines else ""
