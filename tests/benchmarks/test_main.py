import sys

import pytest

from benchmarks import __main__ as board


@pytest.mark.parametrize("name", ["general", "cross_market", "funnel"])
def test_a_folder_without_the_data_is_one_clear_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, "--data", "/nowhere"])
    with pytest.raises(SystemExit) as refused:
        board.main()
    said = capsys.readouterr().err
    assert refused.value.code == 2
    assert said.count("\n") == 1 and "/nowhere is not the data set's folder" in said and "--data" in said
