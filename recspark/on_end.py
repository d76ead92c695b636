"""The command of the configuration that is told how a run ended: a webhook, a mail, a file."""

import logging
import os
import signal
import subprocess
from contextlib import suppress

log = logging.getLogger(__name__)

LIMIT_S = 60.0


def tell(command: str, summary: str, limit_s: float = LIMIT_S) -> None:
    """Run a command of the shell with the summary, one line of JSON, on its standard input.

    What it prints is left out, except the last line of an error. That it fails, or takes longer than `limit_s`, is a
    warning.
    """
    try:
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the programs that a shell has started are ended with it
        )
    except OSError as error:
        log.warning("on_end: %s", error)
        return
    try:
        _, errors = process.communicate(f"{summary}\n", timeout=limit_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.warning("on_end: ended after %.0f s without an answer", limit_s)
        return
    if process.returncode:
        last = (errors.strip().splitlines() or [""])[-1]
        log.warning("on_end: exit code %d: %.300s", process.returncode, last)
