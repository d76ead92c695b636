"""The command line of every job: options, progress, a summary table, a JSON line and an exit code.

Exit codes: 0 done, 1 crash, 2 bad input or configuration, 3 held (readers keep the previous night), 4 another run has
the warehouse, 5 a passing fault of storage or network; 130 and 143 stopped by Ctrl+C and SIGTERM.
"""

import json
import logging
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from recspark import on_end, pipeline
from recspark.config import load
from recspark.config.schema import Config
from recspark.errors import CRASH, HELD, PASSING, ConfigError, RecsparkError, described
from recspark.logs import JsonLines
from recspark.summary import Summary

log = logging.getLogger("recspark")


class LogAs(str, Enum):
    """What --log may be."""

    TEXT = "text"
    JSON = "json"


class Stopped(KeyboardInterrupt):
    """The process is asked to end (SIGTERM): it ends as by Ctrl+C, with another code."""


def main(*stages: str) -> None:
    """Run these stages as a command. Called by the files in jobs/."""

    def command(
        config: Annotated[str, typer.Option(help="conf/<name>.yaml")],
        run_date: Annotated[Optional[str], typer.Option(help="YYYY-MM-DD: only events before it are used")] = None,  # noqa: UP045
        set_: Annotated[Optional[list[str]], typer.Option("--set", help="dotted.key=value")] = None,  # noqa: UP045
        force: Annotated[bool, typer.Option("--force", help="rebuild even if nothing has changed")] = False,
        from_: Annotated[Optional[str], typer.Option("--from", help="skip the stages before this one")] = None,  # noqa: UP045
        only: Annotated[Optional[str], typer.Option("--only", help="run only this stage")] = None,  # noqa: UP045
        wait: Annotated[
            float, typer.Option("--wait", help="seconds to wait for another run of the warehouse or catalog")
        ] = 0.0,
        accept: Annotated[bool, typer.Option("--accept", help="let figures pass once that hold a night")] = False,
        log_as: Annotated[LogAs, typer.Option("--log", help="lines for people, or a JSON object in each")] = LogAs.TEXT,
    ) -> int:
        return run(stages, config, run_date, tuple(set_ or ()), force, from_, only, wait, accept, log_as)

    call(command, f"recspark: {', '.join(stages)}")


def call(command: Callable[..., int], text: str) -> None:
    """Call a function with the options of the command line, and exit with its code. `text`: of --help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(help=text)(command)
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:  # click's own usage errors
        if not hasattr(error, "format_message"):
            raise
        print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    if code:  # not sys.exit(0): a notebook job takes SystemExit for a failure
        sys.exit(code)


def run(
    stages: Sequence[str],
    config_path: str,
    run_date: str | None = None,
    overrides: tuple[str, ...] = (),
    force: bool = False,
    from_: str | None = None,
    only: str | None = None,
    wait_s: float = 0.0,
    accept: bool = False,
    log_as: LogAs = LogAs.TEXT,
) -> int:
    """Run the stages, print the report, tell `on_end`, and return the exit code."""
    ids = {"run_id": "", "run_date": run_date or ""}
    console = Console(stderr=True)
    log_to(console, ids if log_as == LogAs.JSON else None)
    began = time.monotonic()
    done: list[tuple[Summary, float]] = []
    state = {"status": "failed", "error": ""}
    config, code = None, 1
    try:
        config = load.load(config_path, overrides)
        chosen = pipeline.choose(stages, from_, only)
        night = parse_run_date(run_date, config)
        run_id = f"{night}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        ids |= {"run_id": run_id, "run_date": str(night)}
        log.info(
            "run %s: %s, warehouse %s, run_date %s", run_id, config_path, config.catalog or config.warehouse, night
        )

        def finished(summary: Summary, seconds: float) -> None:
            done.append((summary, seconds))
            log.info("%s: %s", summary.stage, _line(summary, seconds))

        # a program reads standard output: what libraries and trainings print there belongs to the log
        shown = console.is_terminal and log_as == LogAs.TEXT
        with redirect_stdout(sys.stderr), _stops_on_sigterm(), _progress(console, len(chosen), shown) as advance:
            pipeline.execute(chosen, config, night, run_id, force, advance, finished, wait_s, accept)
        state["status"], code = "done", 0
    except Exception as error:
        state["error"], code = cause(error, log_as)
        state["status"] = "held" if code == HELD else "failed"
    except KeyboardInterrupt as signal_:
        code = 128 + (signal.SIGTERM if isinstance(signal_, Stopped) else signal.SIGINT)
        state |= {"status": "killed", "error": f"stopped by {str(signal_) or 'SIGINT'}; the same command goes on"}
    if log_as == LogAs.TEXT:
        _show(console, done)
    summary = _summary({**ids, **state}, code, time.monotonic() - began, done)
    print(summary, flush=True)
    if config is not None and config.on_end:
        on_end.tell(config.on_end, summary)
    if code and log_as == LogAs.JSON:
        log.error(state["error"])
    elif code:
        print(f"error: {state['error']}", file=sys.stderr)
    return code


@contextmanager
def _stops_on_sigterm() -> Iterator[None]:
    """SIGTERM raises Stopped inside the block. Only in the main thread, which Python asks for."""

    def stop(*_: object) -> None:
        raise Stopped("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_error(error: Exception) -> int:
    """Print the cause as the last line of standard error; its exit code."""
    text, code = cause(error)
    print(f"error: {text}", file=sys.stderr)
    return code


def cause(error: Exception, log_as: LogAs = LogAs.TEXT) -> tuple[str, int]:
    """(one line, exit code) of an exception; of a crash the traceback is printed, or logged as JSON."""
    text, code = described(error)
    if code in (CRASH, PASSING) and not isinstance(error, RecsparkError):
        if log_as == LogAs.JSON:
            log.error("crash", exc_info=error)
        else:
            traceback.print_exception(error)
    return text, code


def parse_run_date(given: str | None, config: Config) -> date:
    """The run date: of --run-date, else of the configuration, else today in UTC. Shortly after midnight it is that of a
    night which was begun before and has not ended well.

    Raises: ConfigError if --run-date is not a date, or if the date lies after tomorrow: lists of a mistyped year would
    hide those of every night until then.
    """
    now = datetime.now(timezone.utc)
    tomorrow = now.date() + timedelta(days=1)
    try:
        night = date.fromisoformat(given) if given is not None else config.run_date or _tonight(config, now)
    except ValueError:
        raise ConfigError(f"run date: found {given}, expected YYYY-MM-DD such as 2011-12-10") from None
    if night > tomorrow:
        raise ConfigError(f"run_date: found {night}, expected at most tomorrow ({tomorrow}, UTC)")
    return night


def _tonight(config: Config, now: datetime) -> date:
    from recspark.warehouse import unfinished

    begun = unfinished.of(config.warehouse, now)
    if begun is not None:
        log.info("the night of %s has not ended: going on with it; --run-date %s begins the next", begun, now.date())
    return begun or now.date()


def _line(summary: Summary, seconds: float) -> str:
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in sorted(summary.rejected.items()))
    state = "not used" if summary.note in ("off", "not configured") else "unchanged, skipped"
    parts = [state if summary.skipped else f"{summary.rows_in:,} rows in, {summary.rows_out:,} out"]
    parts += [f"rejected: {rejected}"] if rejected else []
    parts += [summary.note] if summary.note else []
    parts += [f"table version {summary.version}"] if summary.version is not None else []
    return "; ".join([*parts, f"{seconds:.1f} s"])


def log_to(console: Console, as_json: Mapping[str, str] | None = None) -> None:
    """Log recspark's own lines, not those of libraries: with rich on a terminal, as plain lines elsewhere; or as JSON
    with these fields."""
    plain = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    plain.setFormatter(text if as_json is None else JsonLines(as_json))
    rich = console.is_terminal and as_json is None
    handler = RichHandler(console=console, show_path=False, show_level=False) if rich else plain
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def _progress(console: Console, total: int, shown: bool) -> Iterator[pipeline.Advance]:
    """Show progress, or log it. Yields a function to call with the name of each stage when it begins."""
    started = 0
    if not shown:

        def advance(name: str) -> None:
            nonlocal started
            started += 1
            log.info("[%d/%d] %s", started, total, name)

        yield advance
        return
    columns = SpinnerColumn(), TextColumn("[{task.completed}/{task.total}] {task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=total)

        def advance_bar(name: str) -> None:
            nonlocal started
            started += 1
            bar.update(task, completed=started, description=name)

        yield advance_bar


def _rows(done: list[tuple[Summary, float]]) -> Iterator[tuple[str, ...]]:
    for s, seconds in done:
        state = "skipped" if s.skipped else "built"
        numbers = (
            f"{s.rows_in:,}" if s.rows_in else "",
            f"{s.rows_out:,}",
            f"{sum(s.rejected.values()):,}" if s.rejected else "",
        )
        yield (s.stage, state, *numbers, f"{seconds:.1f}", s.note)


def _summary(state: Mapping[str, str], code: int, seconds: float, done: list[tuple[Summary, float]]) -> str:
    """The JSON line for programs that ends every run."""
    stages = {s.stage: {**asdict(s), "seconds": round(duration, 1)} for s, duration in done}
    said = {name: value for name, value in state.items() if value}
    return json.dumps({**said, "exit_code": code, "seconds": round(seconds, 1), "stages": stages})


def _show(console: Console, done: list[tuple[Summary, float]]) -> None:
    """Print a table for people to stderr."""
    if done:
        table = Table(box=None, pad_edge=False)
        for heading in ("stage", "state", "rows in", "rows out", "rejected", "seconds", "note"):
            table.add_column(
                heading, justify="right" if heading in ("rows in", "rows out", "rejected", "seconds") else "left"
            )
        for row in _rows(done):
            table.add_row(*row)
        (console if console.is_terminal else Console(stderr=True, width=200)).print(table)
