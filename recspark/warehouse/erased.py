"""What erasing users has left behind in a warehouse: `<warehouse>/_state/erased.json`. No id of a user is in it.

Days that lost a user count as unchanged, so that nothing is built again that was made from them; and old versions of
tables are remembered until they are removed, since files and log entries of them still hold the rows.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from recspark import model_folder

DAYS, PENDING = "days", "pending"


def as_before(warehouse: str, noun: str, days: Mapping[str, str]) -> dict[str, str]:
    """`day_digests` of a table, with those days as they were that have changed by erasing alone."""
    found = dict(days)
    for day, (old, new) in _read(warehouse).get(DAYS, {}).get(noun, {}).items():
        if found.get(day) == new:  # None: without any row
            found[day] = old
    return found


def changed(warehouse: str, noun: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Remember that days with the digests `old` have the digests `new` by erasing alone; a day that is not in `new` has
    no row any more."""
    state = _read(warehouse)
    known = state.setdefault(DAYS, {}).setdefault(noun, {})
    first = as_before(warehouse, noun, old)  # a day may lose one user after another
    known.update({day: (first[day], new.get(day)) for day, digest in old.items() if digest != new.get(day)})
    _write(warehouse, state)


def keep_in_mind(warehouse: str, nouns: Collection[str], now: datetime | None = None) -> None:
    """Remember that versions of these tables before now hold erased rows."""
    state, at = _read(warehouse), (now or datetime.now(timezone.utc)).isoformat()
    state[PENDING] = {**state.get(PENDING, {}), **dict.fromkeys(nouns, at)}
    _write(warehouse, state)


def due(warehouse: str, hours: float, now: datetime | None = None) -> list[str]:
    """The tables whose old versions may be removed: nothing was erased there in the last `hours`."""
    last = (now or datetime.now(timezone.utc)) - timedelta(hours=hours)
    pending = _read(warehouse).get(PENDING, {})
    return sorted(noun for noun, at in pending.items() if datetime.fromisoformat(at) <= last)


def done(warehouse: str, noun: str) -> None:
    """Forget a table whose old versions are gone."""
    state = _read(warehouse)
    state[PENDING] = {name: at for name, at in state.get(PENDING, {}).items() if name != noun}
    _write(warehouse, state)


def _read(warehouse: str) -> dict[str, Any]:
    return dict(json.loads(model_folder.read_file(_path(warehouse)) or "{}"))


def _write(warehouse: str, state: Mapping[str, Any]) -> None:
    model_folder.write_file(_path(warehouse), json.dumps(state, sort_keys=True))


def _path(warehouse: str) -> str:
    return f"{warehouse.rstrip('/')}/_state/erased.json"
