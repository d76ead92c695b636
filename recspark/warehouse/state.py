"""What the runs of this warehouse know of a table's commits, in a small file: `<warehouse>/_state/<noun>.json`.

Delta's own log has the same, but it is cleaned after thirty days, and a table that is quiet for longer would look like
a new one. So the file is brought up to date from the log: it needs only the commits since the last run. A crash between
a commit and this file loses nothing.

Commits of others are tolerated. If one changed rows, no stamp of its table counts any more: each slice is made again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recspark import columns as c
from recspark import model_folder

SLICES = (c.AS_OF, c.RUN_DATE, "kind")  # keys in a commit's metadata that name its slice; without one: the whole table
DROPPED = "dropped"  # in a commit's metadata: the slices whose rows it deleted
FORMAT, WRITTEN_FORMAT = "format", 2  # of fingerprints and model folders; commits of the first version have none
WHOLE = ""
# Operations that change no row: maintenance must not change a fingerprint.
HOUSEKEEPING = (
    "OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "FSCK", "COMPUTE STATS",
    "ADD CONSTRAINT", "DROP CONSTRAINT", "CHANGE COLUMN", "CHANGE COLUMNS", "ADD COLUMNS",
    "UPGRADE PROTOCOL",
)  # fmt: skip


@dataclass(frozen=True)
class Commit:
    """One commit of a table's log."""

    version: int
    operation: str
    metadata: str | None


@dataclass(frozen=True)
class TableState:
    """`seen`: the newest version that was looked at. `changed`: the newest that changed rows. `stamps`: slice -> the
    metadata of its newest commit, and its `version`."""

    table_id: str
    seen: int = -1
    changed: int = -1
    stamps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def slice_of(values: Mapping[str, object]) -> str:
    """The name of the slice in a commit's metadata, such as `as_of=2011-11-14`; WHOLE without one."""
    return next((f"{key}={values[key]}" for key in SLICES if key in values), WHOLE)


def metadata_of(text: str | None) -> dict[str, Any]:
    """The metadata that recspark gave a commit; empty for commits of others, whatever theirs is."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and c.RUN_ID in found else {}


def is_foreign(commit: Commit) -> bool:
    """Did somebody else change rows?"""
    return commit.operation not in HOUSEKEEPING and not metadata_of(commit.metadata)


def after(state: TableState, commits: Sequence[Commit]) -> TableState:
    """The state after further commits, which need not all be in the log any more."""
    for commit in sorted(commits, key=lambda one: one.version):
        if commit.version <= state.seen:
            continue
        if commit.version > state.seen + 1:  # the log has been cleaned: nobody knows what the missing commits did
            state = replace(state, stamps={}, changed=commit.version)
        state = _after(state, commit)
    return state


def _after(state: TableState, commit: Commit) -> TableState:
    if commit.operation in HOUSEKEEPING:
        return replace(state, seen=commit.version)
    found = metadata_of(commit.metadata)
    stamps = dict(state.stamps) if found else {}
    if DROPPED in found:
        stamps = {name: stamp for name, stamp in stamps.items() if name not in found[DROPPED]}
    elif found:
        stamps[slice_of(found)] = {**found, "version": commit.version}
        stamps[WHOLE] = stamps[slice_of(found)]
    return replace(state, seen=commit.version, changed=commit.version, stamps=stamps)


def read(warehouse: str, noun: str) -> TableState | None:
    """The stored state; None if there is none that can be read."""
    try:
        return TableState(**json.loads(model_folder.read_file(_path(warehouse, noun)) or ""))
    except (ValueError, TypeError):
        return None


def write(warehouse: str, noun: str, state: TableState) -> None:
    model_folder.write_file(_path(warehouse, noun), json.dumps(asdict(state), sort_keys=True, indent=1))


def _path(warehouse: str, noun: str) -> str:
    return f"{warehouse}/_state/{noun}.json"
