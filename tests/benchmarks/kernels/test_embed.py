import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import __main__ as board
from benchmarks.kernels import embed
from tests.paths import ROOT

SHOP = str(ROOT / "data" / "online-retail")


def test_texts_of_one_folder_and_of_the_folder_of_several(tmp_path: Path) -> None:
    (tmp_path / "online-retail").mkdir()
    rows = pd.DataFrame({"Description": ["RED MUG ", "RED MUG", None, "LAMP", " "]})
    rows.to_parquet(tmp_path / "online-retail" / "transactions.parquet")
    assert sorted(embed.read_texts(str(tmp_path / "online-retail"), 9)) == ["LAMP", "RED MUG"]
    (tmp_path / "movielens-1m").mkdir()
    film = (
        "1::Toy Story::1995::G::d::Animation::x::y::z::A boy\x85s toys::p\n"  # a latin-1 file may hold a next-line byte
    )
    (tmp_path / "movielens-1m" / "movies_extrainfos.dat").write_text(film, encoding="latin-1")
    both = embed.read_texts(str(tmp_path), 9)
    assert sorted(both) == ["LAMP", "RED MUG", "Toy Story Animation A boy\x85s toys"]
    assert embed.read_texts(str(tmp_path), 2) == both[:2]
    with pytest.raises(FileNotFoundError, match="found none of"):
        embed.read_texts(str(tmp_path / "nowhere"), 9)


def test_a_missing_peer_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setattr(embed, "in_a_process", lambda task: task())
    monkeypatch.setattr(sys, "argv", ["benchmarks", "embed", "--data", SHOP, "--quick"])
    with pytest.raises(SystemExit) as refused:
        board.main()
    error = capsys.readouterr().err
    assert refused.value.code == 2 and error.count("\n") == 1 and "uv sync --group peers" in error
