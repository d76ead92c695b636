"""The stages of runs that are not in the table stage_runs yet, in a small file: `<warehouse>/_state/stages.json`.

It is written when a stage begins and when it ends, in a millisecond. A commit of the table for each would cost more
than some stages. Only the run that holds the warehouse writes it; what a killed run left is closed by the next one.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timezone

from recspark import model_folder
from recspark.summary import Summary

log = logging.getLogger(__name__)

RUNNING, DONE, SKIPPED, HELD, FAILED, KILLED = "running", "done", "skipped", "held", "failed", "killed"
LONGEST = 2000  # characters of an error or a note


@dataclass(frozen=True)
class StageRun:
    """A row of the table stage_runs. Times are ISO texts, UTC."""

    run_id: str
    run_date: str
    stage: str
    status: str
    started_at: str
    ended_at: str | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    rejected: int | None = None
    version: int | None = None
    note: str | None = None
    error: str | None = None


class StageLog:
    """What one run writes down of its stages. A storage that fails here is a warning and changes nothing of the run."""

    def __init__(self, warehouse: str, run_id: str, run_date: date) -> None:
        """Closes what runs before have left `running`; written with the first stage."""
        self._warehouse, self._run_id, self._run_date = warehouse, run_id, run_date
        left = [one for one in read(warehouse) if one.run_id != run_id]
        self.rows = [replace(one, status=KILLED) if one.status == RUNNING else one for one in left]

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self.rows.append(StageRun(self._run_id, str(self._run_date), stage, RUNNING, _now()))
        self._write()

    def end(self, summary: Summary) -> None:
        """The stage that runs has ended well."""
        rejected = sum(summary.rejected.values())
        numbers = {"rows_in": summary.rows_in, "rows_out": summary.rows_out, "rejected": rejected}
        status = SKIPPED if summary.skipped else DONE
        self._close(status=status, version=summary.version, note=summary.note[:LONGEST] or None, **numbers)

    def fail(self, status: str, error: str) -> None:
        """The run ends here: with HELD, FAILED or KILLED."""
        self._close(status=status, error=error[:LONGEST])

    def clear(self) -> None:
        """All rows are in the table."""
        self.rows = []
        self._write()

    def _close(self, **found: object) -> None:
        if self.rows and self.rows[-1].status == RUNNING:
            self.rows[-1] = replace(self.rows[-1], ended_at=_now(), **found)  # type: ignore[arg-type]  # by name
            self._write()

    def _write(self) -> None:
        try:
            model_folder.write_file(_path(self._warehouse), json.dumps([asdict(one) for one in self.rows], indent=1))
        except Exception as error:  # any, of any storage's client; what the stage itself writes fails by itself
            log.warning("%s was not written: %s", _path(self._warehouse), error)


def read(warehouse: str) -> Sequence[StageRun]:
    """The rows that are not in the table yet; none where the file is missing or cannot be read."""
    try:
        return [StageRun(**row) for row in json.loads(model_folder.read_file(_path(warehouse)) or "[]")]
    except (ValueError, TypeError) as error:
        log.warning("%s cannot be read and is left out: %s", _path(warehouse), error)
        return []


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _path(warehouse: str) -> str:
    return f"{warehouse.rstrip('/')}/_state/stages.json"
