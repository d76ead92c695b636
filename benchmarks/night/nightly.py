"""Seconds of the whole nightly command on Online Retail: a first night, the same again, and one night later.

Each runs in a process of its own, so the start of Java and Python is counted. The second run must leave every table
as it was.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NIGHTS = (("first", "2011-12-09"), ("again", "2011-12-09"), ("next", "2011-12-10"))


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """Nights at the last full day of the data and the day after; `quick` leaves out the largest country; `seeds` is
    not used."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as warehouse:
        for name, run_date in NIGHTS:
            before = _files(warehouse)
            seconds, result = nightly(data, warehouse, run_date, quick)
            found[f"{name}_seconds"] = round(seconds, 1)
            found[f"{name}_new_files"] = len(_files(warehouse) - before)
            stages = {stage: s["seconds"] for stage, s in result["stages"].items()}
            print(f"{name:6s} {seconds:7.1f} s, {found[f'{name}_new_files']:4d} new data files, {stages}", flush=True)
    found["next_over_first"] = round(found["next_seconds"] / found["first_seconds"], 3)
    return found


def nightly(data: str, warehouse: str, run_date: str, quick: bool, *overrides: str) -> tuple[float, dict[str, Any]]:
    """Run one command line.

    Returns: its seconds and its line of JSON.
    Raises: CalledProcessError if the command fails."""
    paths = f"[{Path(data) / 'transactions.parquet'}]"
    sets = [f"warehouse={warehouse}", f"source.interactions.paths={paths}", f"source.items.paths={paths}", *overrides]
    sets += ["source.interactions.where=\"Country <> 'United Kingdom'\""] if quick else []
    command = [sys.executable, "jobs/nightly.py", "--config", "conf/online_retail.yaml", "--run-date", run_date]
    command += [part for override in sets for part in ("--set", override)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return time.monotonic() - began, json.loads(done.stdout.splitlines()[-1])


def _files(warehouse: str) -> set[str]:
    return {str(f) for f in Path(warehouse).rglob("*.parquet") if "_delta_log" not in f.parts}
