"""Log lines for programs: one JSON object in each."""

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timezone


class JsonLines(logging.Formatter):
    """`time` (UTC), `level`, `message`, of an exception also `exception`; then the `fields` that are known so far."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        found = {"time": at, "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps({**found, **{name: value for name, value in self._fields.items() if value}})
