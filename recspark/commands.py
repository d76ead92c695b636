"""The commands of recspark beside its stages. Each prints lines for people and returns an exit code, as cli.py says."""

import sys
import uuid
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from recspark import pipeline
from recspark.cli import log_to, parse_run_date, print_error
from recspark.config import load
from recspark.errors import ConfigError


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


def status(
    config: Annotated[str, typer.Option(help="conf/<name>.yaml")],
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="dotted.key=value")] = None,  # noqa: UP045
) -> int:
    """Is a run going, how did the last nights end and what is to do, what is published where. Writes nothing."""
    from recspark.stages import status

    log_to(Console(stderr=True))
    try:
        for line in status.lines(load.load(config, tuple(set_ or ()))):
            print(line, flush=True)
        return 0
    except Exception as error:
        return print_error(error)


def diff(
    before: Annotated[str, typer.Argument(help="run date of a night, YYYY-MM-DD")],
    after: Annotated[str, typer.Argument(help="run date of another night")],
    config: Annotated[str, typer.Option(help="conf/<name>.yaml")],
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="dotted.key=value")] = None,  # noqa: UP045
) -> int:
    """What changed between two published nights: configuration, inputs, models, metrics, lists. Writes nothing."""
    from recspark.stages import diff

    log_to(Console(stderr=True))
    try:
        found = load.load(config, tuple(set_ or ()))
        nights = [str(parse_run_date(night, found)) for night in (before, after)]
        for line in diff.lines(found, *nights):
            print(line, flush=True)
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

    log_to(Console(stderr=True))
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
    log_to(Console(stderr=True))
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
