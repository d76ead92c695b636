"""The jobs from an installed package: `recspark COMMAND`, or `python -m recspark COMMAND`.

recspark init DATA --config conf/shop.yaml     look at files and write a configuration, with a comment for every guess
recspark check --config conf/shop.yaml         try a configuration in seconds; writes nothing
recspark run --config conf/shop.yaml           all stages of a night, as jobs/nightly.py
recspark stage NAME --config conf/shop.yaml    one stage, as jobs/NAME.py
recspark maintain --config conf/shop.yaml      tidy the tables, as jobs/maintenance.py
recspark status --config conf/shop.yaml        is a run going, how the last nights ended, what is published where
recspark diff D1 D2 --config conf/shop.yaml    what changed between two published nights
recspark unpublish --config conf/shop.yaml --run-date D    take the lists of a night back
recspark erase --config conf/shop.yaml --user ID    take users out of all tables and models
recspark describe configuration | tables       every key of the YAML file; every table and column
recspark COMMAND --help                        the options of a command
recspark --version
"""

import difflib
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import NoReturn

from recspark import cli, commands, pipeline

STAGES = {"run": tuple(pipeline.STAGES), "maintain": ("maintenance",), "unpublish": ("unpublish",), "stage": ()}
OTHERS: dict[str, Callable[..., int]] = {
    "init": commands.init,
    "check": commands.check,
    "describe": commands.describe,
    "status": commands.status,
    "diff": commands.diff,
    "erase": commands.erase,
}


def main() -> None:
    """Run the command that sys.argv names; its options are those of the jobs."""
    name, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("--help", "-h"):
        print(__doc__)
        return
    if name == "--version":
        print(version("recspark"))
        return
    if name in OTHERS:
        sys.argv = [f"recspark {name}", *rest]
        cli.call(OTHERS[name], str(OTHERS[name].__doc__))
        return
    stages = STAGES.get(name)
    if stages is None:
        refuse("command", name, [*OTHERS, *STAGES])
    if not stages:
        stage, rest = (rest[0], rest[1:]) if rest else ("", [])
        if stage not in pipeline.STAGES:
            refuse("stage", stage, list(pipeline.STAGES))
        name, stages = f"stage {stage}", (stage,)
    sys.argv = [f"recspark {name}", *rest]
    cli.main(*stages)


def refuse(kind: str, found: str, known: list[str]) -> NoReturn:
    """End with exit code 2 and one line for a name that is not known."""
    near = difflib.get_close_matches(found, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    print(f"error: {kind} `{found}` is not known; {hint}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
