"""Real nights for tests: a part of the embedded data, models that train in seconds, and what a command left."""

import contextlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.paths import CONF, ROOT

THREE = "Country IN ('Germany', 'France', 'Belgium')"
PRODUCTS = yaml.safe_load(Path(CONF).read_text(encoding="utf-8"))["source"]["items"]["where"]


@dataclass(frozen=True)
class Done:
    """What a finished command left: its exit code and the JSON line that it ended with."""

    code: int
    result: dict[str, Any]
    stderr: str


RunNight: TypeAlias = Callable[..., Done]


def only_countries(condition: str) -> tuple[str, ...]:
    """Overrides that leave a part of the embedded real data, and models small enough for a test."""
    return (
        f"source.interactions.where={json.dumps(condition)}",
        f"source.items.where={json.dumps(f'({PRODUCTS}) AND ({condition})')}",
        "scenarios.min_users=20",
        "candidates.depth=20",
        "ranker.max_epochs=2",
        "gbdt.max_rounds=40",
        "training.num_processes=2",
        "training_examples.num_windows=2",
    )


def run_command(warehouse: Path, *overrides: str, run_date: str | None = None, **options: Any) -> Done:
    """Stages in this process, as the command line runs them, on the active session: three countries by default."""
    from recspark import cli, pipeline

    out, err = io.StringIO(), io.StringIO()
    before = os.getcwd()
    os.chdir(ROOT)  # conf/ names data/ relative to the checkout
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            chosen = (f"warehouse={warehouse}", *only_countries(THREE), *overrides)
            code = cli.run(tuple(pipeline.STAGES), CONF, run_date, chosen, **options)
    finally:
        os.chdir(before)
    return Done(code, json.loads(out.getvalue().splitlines()[-1]), err.getvalue())
