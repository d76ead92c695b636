"""Is anything lost or half when a night is killed? SIGKILL after every commit and written file, and at random times.

    python -m benchmarks kills [--keep FOLDER] [--seeds N] [--quick]

A small planted shop (60 users, 24 items, two scenarios) has a night already; the next one, a week later, builds every
stage again. That night is killed, started again by the same command, killed again, until it ends: a chain of kills.
`points`: every run is killed with all its processes right after its first commit of a table or written file of a model,
so the chain goes through all of them; where a run comes to one that was there before, as a stage that was not done
begins again, the next run is killed one later than the last new one.
`times N`: every run is killed after a random time; chains until --seeds times RANDOM such kills are made.
Good is: the last run ends with 0, every table equals that of a calm night, every id has one number, and a reader that
looked four times a second all the while saw the lists of the night before or whole ones of this night, of one run.
Kills are kept in `--keep FOLDER` (default warehouse/kills), kills.jsonl; the same command goes on after the last one.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recspark
from benchmarks.night import delta_files
from benchmarks.night.same_tables import KEYS, OF_A_RUN, TOLERANCE
from recspark.errors import ConfigError

OPTIONS = ("keep",)
RANDOM = 120
MOST = 500  # kills of one chain: a night that does not get on ends there
LOOK_S = 0.25
NIGHT_S = 900  # a night that takes longer hangs
SHARES = (0.2, 0.7)  # of a calm night's time, between which a run is killed: before, Spark starts
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
    if not path.endswith("_state/stages.json"):  # two for each stage: each point would need them all again
        point("file " + path)
    return made
model_folder._write = writing
from recspark.warehouse import store
stamped = store.Store._stamped
@contextmanager
def stamping(self, metadata):
    with stamped(self, metadata):
        yield
        frame = sys._getframe()
        while frame and not hasattr(frame.f_locals.get("table"), "noun"):
            frame = frame.f_back
        point("commit " + (frame.f_locals["table"].noun if frame else ""))
store.Store._stamped = stamping
from recspark.__main__ import main
main()
"""


def run(data: str, seeds: int, quick: bool, keep: str = "warehouse/kills") -> dict[str, Any]:
    """The chain of points, and chains of `seeds` times RANDOM random times; `quick`: three kills of each. `data` is not
    used."""
    del data
    folder = Path(keep).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    log = folder / "kills.jsonl"
    rows = list(map(json.loads, log.read_text().splitlines())) if log.exists() else []
    times = 3 if quick else seeds * RANDOM
    most = 3 if quick else MOST
    while (name := next_chain(rows, times)) is not None:
        before = [row for row in rows if row["chain"] == name]
        for row in chain(folder, name, before, most if name == "points" else min(most, times - of_times(rows))):
            rows.append({"chain": name, **row})
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    points = {row["last"] for row in rows if "last" in row and row["chain"] == "points"}
    return {
        "kills": sum("last" in row for row in rows),
        "after_different_points": len(points),
        "at_random_times": of_times(rows),
        "chains": sum("bad" in row for row in rows),
        "bad": [f"{row['chain']}: {what}" for row in rows for what in row.get("bad", ())],
        "looks": sum(row.get("looks", 0) for row in rows),
        "seconds_a_night": json.loads((folder / "calm.json").read_text())["seconds"],
    }


def of_times(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many kills at a random time there are."""
    return sum("last" in row and row["chain"] != "points" for row in rows)


def next_chain(rows: Sequence[Mapping[str, Any]], times: int) -> str | None:
    """The name of the chain to begin or to go on with: the one not ended, the points, more times; None: all done."""
    ended = {row["chain"] for row in rows if "bad" in row}
    begun = {row["chain"] for row in rows} - ended
    if begun:
        return str(begun.pop())
    if "points" not in ended:
        return "points"
    return f"times {len(ended)}" if of_times(rows) < times else None


def chain(folder: Path, name: str, before: Sequence[Mapping[str, Any]], most: int) -> Iterator[dict[str, Any]]:
    """Kills of one night until it ends or `most` are made, then what is wrong with it. `before`: what was done of it.

    A row of a kill has the `last` point that its run came to; that of the end has `bad` and the reader's `looks`."""
    calm_s = json.loads((folder / "calm.json").read_text())["seconds"]
    if not before:
        shutil.rmtree(folder / "raced", ignore_errors=True)
        shutil.copytree(folder / "before", folder / "raced")
    (folder / "raced.log").unlink(missing_ok=True)
    chance = random.Random(f"{name} {len(before)}")
    seen = {row["last"] for row in before}
    point, reach, longer = 1, 1, 1.0  # reach: of the kill that came to the newest point
    with watched(folder, "raced") as reader:
        for n in range(len(before), most + 1):
            limit_s = longer * calm_s * chance.uniform(*SHARES)
            whole = n == most
            points = name == "points" and not whole
            code, made = killed(folder, point if points else 0, NIGHT_S if points or whole else limit_s)
            if code != -signal.SIGKILL:
                break
            last = made[-1] if made else ""
            if last in seen:
                point, longer = max(point, reach) + 1, longer * 1.5
            else:
                point, reach, longer = 1, point, 1.0
            seen.add(last)
            yield {"last": last}
    bad = [*reader.bad, *differing(folder / "calm", folder / "raced")]
    if code:
        bad.append(f"the night ended with {code}: {(folder / 'raced.log').read_text()[-300:]}")
    yield {"bad": bad, "looks": reader.looks}


def killed(folder: Path, point: int, limit_s: float) -> tuple[int, list[str]]:
    """The night on `raced`, killed after `point` if there is one, or after `limit_s`: its code and the names of the
    points that it came to."""
    points = folder / "raced.points"
    points.unlink(missing_ok=True)
    night = start(folder, "raced", TONIGHT, point)
    try:
        code = night.wait(limit_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(night.pid, signal.SIGKILL)
        code = night.wait()
    return code, [line.split(maxsplit=1)[1] for line in points.read_text().splitlines()] if points.exists() else []


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
                rows.drop_duplicates("run_date", keep="last", ignore_index=True).drop(columns="reason")
                for rows in (left, right)
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
