"""Is anything lost or half when a night is killed? SIGKILL at every commit and every renamed file, and at random times.

    python -m benchmarks kills [--keep FOLDER] [--seeds N] [--quick]

A small planted shop (60 users, 24 items, two scenarios) has a night already; the next one, a week later, builds every
stage again. For each kill: a copy of that warehouse, the night, killed; then the same command again. Good is: that ends
with 0, every table equals that of a calm night, every id has one number, and a reader that looked four times a second
all the while saw the lists of the night before or whole ones of this night, of one run.

A killed run is killed with all its processes, right after the n-th commit of a table or rename of a file that its
driver makes (`point`), or after a random time of a calm night (`time`): --seeds times RANDOM of those.
Finished kills are kept in `--keep FOLDER` (default warehouse/kills), kills.jsonl, and not made again.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recspark
from benchmarks.night import delta_files
from benchmarks.night.same_tables import KEYS, OF_A_RUN, TOLERANCE
from recspark.errors import ConfigError

OPTIONS = ("keep",)
RANDOM = 50
LOOK_S = 0.25
NIGHT_S = 900  # a night that takes longer hangs
FIRST, TONIGHT = "2024-02-26", "2024-03-04"  # Mondays
INDICES = {"item_index": 0, "user_index": 0, "scenario_index": 1}  # index -> its first number
YAML = """
warehouse: {warehouse}
source:
  interactions: {{format: csv, paths: [{events}], options: {{header: "true"}}, scenario: shop, user_id: who,
    item_id: what, event_time: at, value: price}}
  items: {{format: csv, paths: [{events}], options: {{header: "true"}}, item_id: what, text: title}}
scenarios: {{min_users: 10}}
candidates: {{depth: 12}}
recommendations: {{k: 5}}
retriever: {{popular: {{half_life_days: 14}}}}
training_examples: {{num_windows: 2, label_days: 14}}
ranker: {{max_epochs: 1}}
gbdt: {{max_rounds: 5}}
model_metrics: {{num_windows: 1, bootstrap: 20}}
spark:  # few rows and many plans: compiling them costs more than it saves
  spark.sql.adaptive.enabled: "false"
  spark.sql.codegen.wholeStage: "false"
  spark.sql.codegen.factoryMode: NO_CODEGEN
  spark.driver.extraJavaOptions: "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""
# `recspark`, which writes the names of the points, and after the n-th kills itself with all its processes or, where a
# third argument names a file, fills its disk with that file
KILLED = """
import os, signal, sys, time
from contextlib import contextmanager
last, points, filler = int(sys.argv.pop(1)), open(sys.argv.pop(1), "w"), sys.argv.pop(1)
count = 0
def fill():
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
def point(name):
    global count
    count += 1
    print(time.time(), name, file=points, flush=True)
    if count == last and filler:
        fill()
    elif count == last:
        os.killpg(0, signal.SIGKILL)
from recspark import model_folder
write = model_folder._write
def writing(fs, path, content):
    made = write(fs, path, content)
    point("file " + path)
    return made
model_folder._write = writing
from recspark.warehouse import store
stamped = store.Store._stamped
@contextmanager
def stamping(self, metadata):
    with stamped(self, metadata):
        yield
        point("commit")
store.Store._stamped = stamping
from recspark.__main__ import main
main()
"""


def run(data: str, seeds: int, quick: bool, keep: str = "warehouse/kills") -> dict[str, Any]:
    """Every point and `seeds` times RANDOM times; `quick`: three of each. `data` is not used."""
    del data
    folder = Path(keep).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    points = [line.split(maxsplit=1) for line in (folder / "points.txt").read_text().splitlines()]
    todo = list(kills(len(points), seeds, quick))
    log = folder / "kills.jsonl"
    done = {row["kill"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    for name, place, seconds in todo:
        if name not in done:
            done[name] = {"kill": name, **killed(folder, place, seconds)}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name]), flush=True)
    found = [done[name] for name, *_ in todo]
    bad = [row["kill"] for row in found if row["bad"]]
    return {
        "points": len(points),
        "kills": sum(row["killed"] for row in found),
        "bad": bad,
        "looks": sum(row["looks"] for row in found),
        "seconds_a_night": json.loads((folder / "calm.json").read_text())["seconds"],
    }


def kills(num_points: int, seeds: int, quick: bool) -> Iterator[tuple[str, int, float]]:
    """(name, the point or 0, the share of a calm night's time or 0) of every kill, the two kinds in turn."""
    chance = random.Random(0)
    points = list(range(1, num_points + 1))
    chance.shuffle(points)
    times = [chance.random() for _ in range(seeds * RANDOM)]
    if quick:
        points, times = points[:3], times[:3]
    for n in range(max(len(points), len(times))):
        if n < len(points):
            yield f"point {points[n]}", points[n], 0.0
        if n < len(times):
            yield f"time {n}", 0, times[n]


def prepare(folder: Path) -> None:
    """Make once: the events, the warehouse `before` with a night, and `calm` with the next one too.

    Raises: ConfigError if other code has made them: what it makes differs without any kill."""
    made = folder / "calm.json"
    if made.exists():
        if json.loads(made.read_text()).get("code") != code_now():
            raise ConfigError(
                f"{folder}: found nights of another version, expected those of this one; give a new --keep"
            )
        return
    for name in ("before", "calm"):
        shutil.rmtree(folder / name, ignore_errors=True)
    write_events(folder / "events.csv")
    if start(folder, "before", FIRST).wait():
        raise RuntimeError(f"the first night failed: {(folder / 'before.log').read_text()[-2000:]}")
    shutil.copytree(folder / "before", folder / "calm")
    began = time.monotonic()
    if start(folder, "calm", TONIGHT).wait():
        raise RuntimeError(f"the calm night failed: {(folder / 'calm.log').read_text()[-2000:]}")
    (folder / "calm.points").rename(folder / "points.txt")
    made.write_text(json.dumps({"seconds": round(time.monotonic() - began, 1), "code": code_now()}))


def code_now() -> str:
    """A hash of recspark's source files."""
    files = sorted(Path(recspark.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def write_events(path: Path) -> None:
    chance = random.Random(0)
    rows = ["shop,who,what,at,price,title"]
    times = pd.date_range("2024-01-01", "2024-03-06", periods=1500).strftime("%Y-%m-%d %H:%M:%S")
    for n, at in enumerate(times):
        item = min(chance.randrange(24), chance.randrange(24))
        rows.append(f"{'de' if n % 2 else 'fr'},u{chance.randrange(60)},i{item},{at},{n % 7}.5,Lamp {item}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def start(
    folder: Path, name: str, run_date: str, point: int = 0, filler: str = "", more: str = ""
) -> "subprocess.Popen[bytes]":
    """Begin a night on the warehouse `name`, in a process group of its own; killed after `point`, if there is one, or
    its disk filled by the file `filler`. `more`: further lines of the YAML's section `spark`."""
    yaml = folder / f"{name}.yaml"
    yaml.write_text(YAML.format(warehouse=folder / name, events=folder / "events.csv") + more, encoding="utf-8")
    command = [sys.executable, "-c", KILLED, str(point), str(folder / f"{name}.points"), filler]
    command += ["run", "--config", str(yaml), "--run-date", run_date]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def killed(folder: Path, point: int, share: float) -> dict[str, Any]:
    """One kill and the night again; `bad` says what was not as it must be."""
    calm = json.loads((folder / "calm.json").read_text())
    shutil.rmtree(folder / "raced", ignore_errors=True)
    (folder / "raced.log").unlink(missing_ok=True)
    shutil.copytree(folder / "before", folder / "raced")
    with watched(folder, "raced") as reader:
        first = start(folder, "raced", TONIGHT, point)
        try:
            code = first.wait(share * calm["seconds"] if share else NIGHT_S)
        except subprocess.TimeoutExpired:
            os.killpg(first.pid, signal.SIGKILL)
            code = first.wait()
        was_at = len((folder / "raced.points").read_text().splitlines()) if (folder / "raced.points").exists() else 0
        began = time.monotonic()
        again = start(folder, "raced", TONIGHT).wait(NIGHT_S)
    bad = [*reader.bad, *differing(folder / "calm", folder / "raced")]
    if again:
        bad.append(f"the night again ended with {again}: {(folder / 'raced.log').read_text()[-300:]}")
    return {
        "killed": code == -signal.SIGKILL,
        "after": was_at,
        "again_seconds": round(time.monotonic() - began, 1),
        "looks": reader.looks,
        "bad": bad,
    }


class Reader:
    """Looks at the newest lists until told to stop, as an analyst's query would."""

    def __init__(self, table: Path, calm: Path) -> None:
        self.table, self.looks, self.bad, self.stop = table, 0, list[str](), threading.Event()
        self.expected = {day: len(rows) for day, rows in delta_files.read(calm).groupby("run_date")}
        self.thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self.stop.wait(LOOK_S):
            lists = delta_files.read(self.table, ["run_date", "run_id"])
            found = {day: (len(rows), rows["run_id"].nunique()) for day, rows in lists.groupby("run_date")}
            wrong = {day: seen for day, seen in found.items() if seen != (self.expected[day], 1)}
            if wrong or FIRST not in found:
                self.bad.append(f"a reader saw {found or 'nothing'}")
            self.looks += 1


@contextmanager
def watched(folder: Path, name: str) -> Iterator[Reader]:
    """A reader that looks at the lists of a warehouse as long as this lasts."""
    reader = Reader(folder / name / "recommendations", folder / "calm" / "recommendations")
    reader.thread.start()
    try:
        yield reader
    finally:
        reader.stop.set()
        reader.thread.join()


def differing(calm: Path, raced: Path) -> list[str]:
    """What differs between the tables of two warehouses, and what is wrong with the numbers of ids."""
    bad = []
    for noun, key in KEYS.items():
        there = [(warehouse / noun / "_delta_log").exists() for warehouse in (calm, raced)]
        if not any(there):
            continue
        if not all(there):
            bad.append(f"{noun} is missing")
            continue
        left, right = (ordered(delta_files.read(warehouse / noun), key) for warehouse in (calm, raced))
        if noun == "published_runs":  # a killed run may have held or published before: the last one counts
            left, right = (
                rows.drop_duplicates("run_date", keep="last").drop(columns="reason") for rows in (left, right)
            )
        bad += [f"{noun}: {what}" for what in differences(left, right)]
    for noun, first in INDICES.items():
        rows = delta_files.read(raced / noun)
        ids, numbers = (rows[name] for name in sorted(rows.columns))
        if ids.dtype != object:
            ids, numbers = numbers, ids
        if ids.duplicated().any() or sorted(numbers) != list(range(first, first + len(rows))):
            bad.append(f"{noun}: the numbers are not dense")
    return bad


def ordered(rows: pd.DataFrame, key: tuple[str, ...]) -> pd.DataFrame:
    """Rows in the order of their key, then of all they say; without what differs from run to run."""
    kept = rows[[name for name in rows.columns if name not in OF_A_RUN]]
    texts = kept.map(_sortable)
    by = [name for name in key if name in texts.columns]
    others = [name for name in texts.columns if name not in by]
    return texts.sort_values([*by, *others], key=lambda column: column.astype(str), ignore_index=True)


def _sortable(cell: object) -> object:
    if isinstance(cell, bytes):
        return cell.hex()
    return str(sorted(cell)) if isinstance(cell, list) else cell


def differences(left: pd.DataFrame, right: pd.DataFrame) -> list[str]:
    """What differs between rows in the same order; numbers may by TOLERANCE of their size."""
    if len(left) != len(right):
        return [f"{len(left)} rows, {len(right)} after the kill"]
    bad = []
    for name in left.columns:
        one, other = left[name], right[name]
        if one.dtype.kind == "f":
            same = np.isclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        else:
            same = ((one == other) | (one.isna() & other.isna())).to_numpy()
        if not same.all():
            bad.append(f"{name} differs in {int((~same).sum())} rows")
    return bad
