import re
import sys

import pytest

from benchmarks import __main__ as board
from tests.paths import ROOT


@pytest.mark.parametrize("name", ["general", "cross_market", "funnel"])
def test_a_folder_without_the_data_is_one_clear_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, "--data", "/nowhere"])
    with pytest.raises(SystemExit) as refused:
        board.main()
    error = capsys.readouterr().err
    assert refused.value.code == 2
    assert error.count("\n") == 1 and "/nowhere is not the data set's folder" in error and "--data" in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("topk", "--dates", "3"), "topk does not take --dates"),
        (("night_quality", "--data", "/nowhere"), "/nowhere is no folder"),
    ],
)
def test_what_a_benchmark_cannot_use_is_one_clear_line(
    words: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as refused:
        board.main()
    error = capsys.readouterr().err
    assert refused.value.code == 2 and error.count("\n") == 1 and told in error


def test_the_list_is_by_folder_and_every_name_is_a_module_with_a_run() -> None:
    """`run` is looked for in the text: importing all of them would take half a minute."""
    for folder, names in board.BENCHMARKS.items():
        for name in names:
            text = (ROOT / "benchmarks" / folder / f"{name}.py").read_text(encoding="utf-8")
            assert re.search(r"\ndef run\(\s*data: str,\s*seeds: int,\s*quick: bool\b", text), name
    lines = board.listing().splitlines()
    assert [line.split("/")[1] for line in lines if not line.startswith(" ")] == ["night", "kernels", "research"]
    assert sum(line.startswith("  ") for line in lines) == sum(map(len, board.BENCHMARKS.values()))
