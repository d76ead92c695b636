"""The command of the installed package, run in a folder without the checkout."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest


def recspark(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recspark", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("args", (("check",), ("run",), ("stage", "ranker"), ("maintain",), ("unpublish",)))
def test_a_command_is_a_job(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = recspark(tmp_path, *args, "--config", "missing.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and "missing.yaml does not exist" in done.stderr
    options = recspark(tmp_path, *args, "--help")
    assert options.returncode == 0 and "--run-date" in options.stdout and f"recspark {' '.join(args)}" in options.stdout


def test_commands_that_only_look_need_a_configuration_too(tmp_path: Path) -> None:
    for args in (("status",), ("diff", "2024-03-01", "2024-03-02")):
        done = recspark(tmp_path, *args, "--config", "missing.yaml")
        assert (done.returncode, done.stdout) == (2, "") and "missing.yaml does not exist" in done.stderr


@pytest.mark.parametrize(
    "page,heading", (("configuration", "## `source.interactions`"), ("tables", "## `recommendations`"))
)
def test_the_references_are_printed(tmp_path: Path, page: str, heading: str) -> None:
    done = recspark(tmp_path, "describe", page)
    assert done.returncode == 0 and heading in done.stdout and done.stderr == ""


def test_an_unknown_page_is_one_line(tmp_path: Path) -> None:
    done = recspark(tmp_path, "describe", "tabels")
    assert (done.returncode, done.stderr) == (2, "error: describe tabels: expected configuration or tables\n")


def test_help_and_version_need_no_file(tmp_path: Path) -> None:
    assert "recspark stage NAME" in recspark(tmp_path, "--help").stdout == recspark(tmp_path).stdout
    assert recspark(tmp_path, "--version").stdout.count(".") == 2
    (script,) = entry_points(group="console_scripts", name="recspark")
    assert script.value == "recspark.__main__:main"


def test_a_wrong_name_is_one_line_with_the_nearest(tmp_path: Path) -> None:
    done = recspark(tmp_path, "stage", "rankr", "--config", "x.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: stage `rankr` is not known; did you mean ranker?\n"
    commands = "init, check, describe, status, diff, erase, run, maintain, unpublish, stage"
    assert recspark(tmp_path, "fly").stderr == f"error: command `fly` is not known; expected one of {commands}\n"
