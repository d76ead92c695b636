"""The command line of every job: options, progress, a summary table, a JSON line and an exit code.

Exit codes: 0 done, 1 crash, 2 bad input or configuration, 3 held (readers keep the previous night).
"""

import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from recspark import errors, pipeline
from recspark.config import load
from recspark.config.schema import Config
from recspark.errors import ConfigError, RecsparkError
from recspark.summary import Summary

log = logging.getLogger("recspark")

CRASH, HELD = 1, 3
JAVA_CAUSE = re.compile(r"^Caused by: (.+)$", re.MULTILINE)  # the last one is the root of it
# the last line of a worker's traceback
WORKER_ERROR = re.compile(r"^recspark\.errors\.((?:Config|Schema|Data|Training|Publish)Error): (.+)$", re.MULTILINE)


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
    ) -> int:
        return run(stages, config, run_date, tuple(set_ or ()), force, from_, only, wait, accept)

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
) -> int:
    """Run the stages, print the report and return the exit code."""
    console = Console(stderr=True)
    _log_to(console)
    began = time.monotonic()
    done: list[tuple[Summary, float]] = []
    state = {"run_id": "", "run_date": run_date or "", "status": "failed", "error": ""}
    code = 1
    try:
        config = load.load(config_path, overrides)
        chosen = pipeline.choose(stages, from_, only)
        night = parse_run_date(run_date, config)
        run_id = f"{night}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        state |= {"run_id": run_id, "run_date": str(night)}
        log.info(
            "run %s: %s, warehouse %s, run_date %s", run_id, config_path, config.catalog or config.warehouse, night
        )

        def finished(summary: Summary, seconds: float) -> None:
            done.append((summary, seconds))
            log.info("%s: %s", summary.stage, _line(summary, seconds))

        # a program reads standard output: what libraries and trainings print there belongs to the log
        with redirect_stdout(sys.stderr), _progress(console, len(chosen)) as advance:
            pipeline.execute(chosen, config, night, run_id, force, advance, finished, wait_s, accept)
        state["status"], code = "done", 0
    except Exception as error:
        state["error"], code = cause(error)
        state["status"] = "held" if code == HELD else "failed"
    _report(console, done, state, time.monotonic() - began)
    if code:
        print(f"error: {state['error']}", file=sys.stderr)
    return code


def check(
    config: Annotated[str, typer.Option(help="conf/<name>.yaml")],
    run_date: Annotated[Optional[str], typer.Option(help="YYYY-MM-DD: of the night")] = None,  # noqa: UP045
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="dotted.key=value")] = None,  # noqa: UP045
) -> int:
    """Try a configuration in seconds: opens every source, tries every expression, writes nothing."""
    out = sys.stdout
    try:
        found = load.load(config, tuple(set_ or ()))
        night = parse_run_date(run_date, found)
        with redirect_stdout(sys.stderr):
            for line in pipeline.check(found, night):
                print(line, file=out, flush=True)
        print(f"ok: a night of {night} can start; it writes to {found.catalog or found.warehouse}")
        return 0
    except Exception as error:
        return print_error(error)


def init(
    data: Annotated[list[str], typer.Argument(help="files, folders, or tables as catalog.schema.name")],
    config: Annotated[str, typer.Option(help="the YAML file to write")],
) -> int:
    """Look at data and write a configuration for it, with a comment for every guess. Reads the first rows only, and the
    times to their end; overwrites no file."""
    from recspark.stages import init

    _log_to(Console(stderr=True))
    try:
        if Path(config).exists():
            raise ConfigError(f"{config} exists; give --config a new file")
        text = init.configuration(data, datetime.now(timezone.utc).date())
        Path(config).parent.mkdir(parents=True, exist_ok=True)
        Path(config).write_text(text, encoding="utf-8")
        print(f"wrote {config} with {text.count('# guess: ')} guesses; try it: recspark check --config {config}")
        return 0
    except Exception as error:
        return print_error(error)


def describe(page: Annotated[str, typer.Argument(help="configuration, or tables")]) -> int:
    """Print the reference of every key of the YAML file, or of every table, as Markdown."""
    if page == "configuration":
        from recspark.config.reference import configuration

        print(configuration(), end="")
        return 0
    if page == "tables":
        from recspark.tables.reference import tables

        print(tables(), end="")
        return 0
    return print_error(ConfigError(f"describe {page}: expected configuration or tables"))


def erase(
    config: Annotated[str, typer.Option(help="conf/<name>.yaml")],
    user: Annotated[Optional[list[str]], typer.Option(help="the id of a user; may be repeated")] = None,  # noqa: UP045
    users: Annotated[Optional[str], typer.Option(help="a file with one id a line")] = None,  # noqa: UP045
    vacuum: Annotated[bool, typer.Option("--vacuum", help="remove old versions of the tables at once")] = False,
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="dotted.key=value")] = None,  # noqa: UP045
    wait: Annotated[float, typer.Option("--wait", help="seconds to wait for another run of the warehouse")] = 0.0,
) -> int:
    """Take users out of every table and model folder, and say what was found and what remains."""
    out = sys.stdout
    _log_to(Console(stderr=True))
    try:
        found = load.load(config, tuple(set_ or ()))
        listed = _lines(users) if users is not None else []
        run_id = f"erase-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        with redirect_stdout(sys.stderr):
            for line in pipeline.erase(found, [*(user or ()), *listed], vacuum, run_id, wait):
                print(line, file=out, flush=True)
        return 0
    except Exception as error:
        return print_error(error)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--users {path}: cannot be read ({type(error).__name__}); expected one id a line") from None


def print_error(error: Exception) -> int:
    """Print the cause as the last line of standard error; its exit code."""
    text, code = cause(error)
    print(f"error: {text}", file=sys.stderr)
    return code


def cause(error: Exception) -> tuple[str, int]:
    """(one line, exit code) of an exception; of a crash the traceback is printed.

    A RecsparkError that a Spark worker raised arrives as text inside another exception, and is still the user's to fix.
    """
    if isinstance(error, RecsparkError):
        return str(error), error.exit_code
    text = str(error)
    found = WORKER_ERROR.findall(text)
    if found:
        kind, message = found[-1]
        return message.strip(), getattr(errors, kind).exit_code
    differing = errors.differing_file(text)  # a task found it in the middle of a stage
    if differing is not None:
        return differing, 2
    traceback.print_exception(error)
    lines = [*JAVA_CAUSE.findall(text)[-1:], *filter(None, map(str.strip, text.splitlines())), ""]
    return f"{type(error).__name__}: {lines[0]}", CRASH


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
        raise ConfigError(f"--run-date {given} is not a date; expected YYYY-MM-DD such as 2011-12-10") from None
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


def _log_to(console: Console) -> None:
    """Log recspark's own lines, not those of libraries: with rich on a terminal, as plain lines elsewhere."""
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler = RichHandler(console=console, show_path=False, show_level=False) if console.is_terminal else plain
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def _progress(console: Console, total: int) -> Iterator[pipeline.Advance]:
    """Show progress. Yields a function to call with the name of each stage when it begins."""
    started = 0
    if not console.is_terminal:

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


def _report(console: Console, done: list[tuple[Summary, float]], state: dict[str, str], seconds: float) -> None:
    """Print a table for people to stderr and a JSON line for programs to stdout."""
    if done:
        table = Table(box=None, pad_edge=False)
        for heading in ("stage", "state", "rows in", "rows out", "rejected", "seconds", "note"):
            table.add_column(
                heading, justify="right" if heading in ("rows in", "rows out", "rejected", "seconds") else "left"
            )
        for row in _rows(done):
            table.add_row(*row)
        (console if console.is_terminal else Console(stderr=True, width=200)).print(table)
    stages = {s.stage: {**asdict(s), "seconds": round(duration, 1)} for s, duration in done}
    print(
        json.dumps({**{k: v for k, v in state.items() if v}, "seconds": round(seconds, 1), "stages": stages}),
        flush=True,
    )
