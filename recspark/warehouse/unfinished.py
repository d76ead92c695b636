"""The night that was begun last: a restart shortly after midnight goes on with it, instead of beginning the next one.

A small file, `<warehouse>/_state/night.json`: the run date, when it was begun, and whether it has ended well.
"""

import json
from datetime import date, datetime, timedelta, timezone
from typing import Any

from recspark import model_folder

SOON = timedelta(hours=12)  # a schedule of one night a day comes again after 24


def begin(warehouse: str, run_date: date, now: datetime | None = None) -> None:
    """Remember that a night is begun. A restart keeps the time of its first beginning; one that has ended well and is
    run again stays so."""
    found = _read(warehouse)
    if found is not None and found["run_date"] == str(run_date):
        return
    started = (now or datetime.now(timezone.utc)).isoformat()
    _write(warehouse, {"run_date": str(run_date), "started": started, "done": False})


def end(warehouse: str, run_date: date) -> None:
    """Remember that a night has ended well."""
    found = _read(warehouse)
    if found is not None and (found["run_date"], found["done"]) == (str(run_date), False):
        _write(warehouse, {**found, "done": True})


def of(warehouse: str, now: datetime) -> date | None:
    """The run date of a night of yesterday that was begun within SOON and has not ended well; None without one."""
    found = _read(warehouse)
    if found is None or found["done"]:
        return None
    run_date, started = date.fromisoformat(found["run_date"]), datetime.fromisoformat(found["started"])
    is_yesterday = run_date == now.date() - timedelta(days=1)
    return run_date if is_yesterday and started.date() == run_date and now - started < SOON else None


def _read(warehouse: str) -> dict[str, Any] | None:
    try:
        found = json.loads(model_folder.read_file(_path(warehouse)) or "null")
    except (OSError, ValueError):  # a warehouse that cannot be read is told later
        return None
    return found if isinstance(found, dict) else None


def _write(warehouse: str, content: dict[str, Any]) -> None:
    model_folder.write_file(_path(warehouse), json.dumps(content))


def _path(warehouse: str) -> str:
    return f"{warehouse.rstrip('/')}/_state/night.json"
