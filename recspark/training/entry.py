"""What every process of a launch runs: a named function, called with a job. Imports no torch, no Spark."""

import logging
import sys
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, TypeAlias

from recspark.errors import RecsparkError

# "package.module:function", so that the driver need not import the module, which may load torch; or the function
# itself, of a module that is installed on the nodes too.
Function: TypeAlias = str | Callable[[Any], dict[str, Any]]


def run(function: Function, job: object) -> dict[str, Any]:
    """Call `function(job)` with the log on stdout, which is what comes back from a child process.

    Returns: its result, or {"error": message} for a RecsparkError: an error for people must not look like a process
    that died.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    call = resolve_name(function) if isinstance(function, str) else function
    try:
        return dict(call(job))
    except RecsparkError as error:
        return {"error": str(error)}
