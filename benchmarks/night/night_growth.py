"""How time, memory and disk of a whole night grow with its users, items and scenarios.

    python -m benchmarks night_growth [--keep FOLDER] [--set AXIS=SIZE] [--quick]

A generated shop: popularity after Zipf, twenty tastes, ten events a user over half a year. Each axis has three sizes,
tenfold apart, the other two stay as in BASE. Every night is the command that a user runs, on an empty warehouse; what
has been measured is kept in FOLDER (default warehouse/growth), growth.jsonl, and not run again.

Prints for each night its seconds, most memory and bytes, and for each axis and stage the exponent between the two
largest sizes: 1 is linear. `--set users=1000000` (several times for several axes) runs that one night alone.
"""

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.night.night import watched
from recspark.errors import ConfigError

OPTIONS = ("keep", "set")
BASE = {"users": 20_000, "items": 2_000, "scenarios": 20}
SIZES = {
    "users": (2_000, 20_000, 200_000),
    "items": (2_000, 20_000, 200_000),
    "scenarios": (20, 200, 2_000),
}
EVENTS_A_USER, DAYS, TASTES = 10, 180, 20
ELSEWHERE = 0.1  # of a user's events, in another scenario than his own
LOOKS = 0.01  # seconds below which an exponent says nothing
FIRST_DAY, RUN_DATE = "2024-01-01", "2024-06-29"
YAML = """
warehouse: {warehouse}
source:
  interactions: {{format: parquet, paths: [{events}], scenario: shop, user_id: who, item_id: what, event_time: at}}
scenarios: {{min_users: 10}}
training_examples: {{num_windows: 3, label_days: 28}}
model_metrics: {{num_windows: 1}}
retriever: {{popular: {{half_life_days: 14}}}}
"""


def run(data: str, seeds: int, quick: bool, keep: str = "warehouse/growth", set: Sequence[str] = ()) -> dict[str, Any]:
    """Every size of every axis once; `quick`: the smallest night alone. `data` and `seeds` are not used."""
    del data, seeds
    folder = Path(keep).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "growth.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    asked = dict(map(axis_and_size, set))
    nights = [{**BASE, **asked}] if asked or quick else all_nights()
    found = []
    for sizes in nights:
        known = next((one for one in done if one["sizes"] == sizes), None)
        if known is None:
            known = {"sizes": sizes, **measure(folder, sizes)}
            done.append(known)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known) + "\n")
        print(json.dumps(known), flush=True)
        found.append(known)
    return {"nights": len(found), "exponents": {axis: exponents(found, axis) for axis in SIZES}}


def axis_and_size(given: str) -> tuple[str, int]:
    """`users=1000` as its two parts.

    Raises: ConfigError for another axis, or a size that is no number above 0."""
    axis, _, size = given.partition("=")
    if axis not in BASE or not size.isdecimal() or int(size) < 1:
        raise ConfigError(f"--set {given}: expected AXIS=SIZE, one of {', '.join(BASE)}, such as users=100000")
    return axis, int(size)


def all_nights() -> list[dict[str, int]]:
    """The sizes of every night, without doubles."""
    nights = [{**BASE, axis: size} for axis, sizes in SIZES.items() for size in sizes]
    return [one for n, one in enumerate(nights) if one not in nights[:n]]


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """One night on an empty warehouse."""
    name = "-".join(map(str, sizes.values()))
    warehouse, events, yaml = folder / name, folder / f"{name}.parquet", folder / f"{name}.yaml"
    shutil.rmtree(warehouse, ignore_errors=True)
    write_events(events, **sizes)
    yaml.write_text(YAML.format(warehouse=warehouse, events=events), encoding="utf-8")
    command = [sys.executable, "-m", "recspark", "run", "--config", str(yaml), "--run-date", RUN_DATE]
    began = time.monotonic()
    with watched() as peak, (folder / f"{name}.log").open("w") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=True)
    seconds = time.monotonic() - began
    stages = json.loads(done.stdout)["stages"]
    size = sum(path.stat().st_size for path in warehouse.rglob("*") if path.is_file())
    shutil.rmtree(warehouse)
    events.unlink()
    return {
        "seconds": round(seconds, 1),
        "peak_gib": peak,
        "mib_on_disk": round(size / (1 << 20), 1),
        "rows": stages["recommendations"]["rows_out"],
        "stages": {stage: one["seconds"] for stage, one in stages.items()},
    }


def write_events(path: Path, users: int, items: int, scenarios: int) -> None:
    """EVENTS_A_USER events of each user on average. Half of a taste's events go to its own favourites."""
    rng = np.random.default_rng(0)
    count = users * EVENTS_A_USER
    user = rng.integers(users, size=count)
    rank = np.minimum(np.floor(items ** rng.random(count)) - 1, items - 1).astype(np.int64)  # Zipf: log-uniform ranks
    own = rng.random(count) < 0.5
    item = np.where(own, (rank + user % TASTES * (items // TASTES)) % items, rank)
    scenario = np.where(rng.random(count) < ELSEWHERE, rng.integers(scenarios, size=count), user % scenarios)
    seconds = rng.integers(DAYS * 86_400, size=count)
    at = np.datetime64(FIRST_DAY, "s") + seconds
    columns = {"shop": labels("s", scenario), "who": labels("u", user), "what": labels("i", item), "at": pa.array(at)}
    pq.write_table(pa.table(columns), path)


def labels(letter: str, numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(letter, numbers.astype(str)))


def exponents(found: Sequence[dict[str, Any]], axis: str) -> dict[str, float]:
    """Stage -> how its seconds grow with an axis between the two largest sizes that were run; so `seconds`, all."""
    others = {name: size for name, size in BASE.items() if name != axis}
    fitting = [one for one in found if all(one["sizes"][name] == size for name, size in others.items())]
    by_size = sorted(fitting, key=lambda one: one["sizes"][axis])[-2:]
    if len(by_size) < 2:
        return {}
    small, large = by_size
    factor = math.log(large["sizes"][axis] / small["sizes"][axis])
    pairs = {stage: (small["stages"][stage], seconds) for stage, seconds in large["stages"].items()}
    pairs["seconds"] = (small["seconds"], large["seconds"])
    return {
        name: round(math.log(after / before) / factor, 2)
        for name, (before, after) in pairs.items()
        if min(before, after) > LOOKS
    }
