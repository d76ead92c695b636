"""Which files belong together, and how the rows of each are found without being told."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from recspark.errors import DataError
from recspark.sources import files


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


TEXTS = {  # name -> (text, separator, has a header, columns)
    "commas": ("user,item,n\na,x,1\nb,y,2\n", ",", True, ["user", "item", "n"]),
    "tabs without header": ("a\t1\t7\nb\t2\t8\n", "\t", False, ["_c0", "_c1", "_c2"]),
    "double colons": ("1::10::5::978300760\n2::20::3::978302109\n", "::", False, ["_c0", "_c1", "_c2", "_c3"]),
    "blanks": ("userId itemId rate\nA B 5.0\nC D 4.0\n", " ", True, ["userId", "itemId", "rate"]),
    "semicolons and a comma inside": ("who;what;price\na;x, y;1\nb;z, w;2\n", ";", True, ["who", "what", "price"]),
    "commas beside one blank a line": ("n,full title\n1,Red lamp\n2,Blue mug\n", ",", True, ["n", "full title"]),
    "quoted commas": ('who,what,n\na,"x, y",1\nb,"z, w",2\n', ",", True, ["who", "what", "n"]),
    "words only, with a header": ("who,what\na,x\nb,y\na,y\n", ",", True, ["who", "what"]),
    "words only, without": ("a,x\nb,y\na,x\n", ",", False, ["_c0", "_c1"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_separator_and_header_of_a_text(tmp_path: Path, name: str) -> None:
    text, separator, header, columns = TEXTS[name]
    write(tmp_path / "a.csv", text)
    [group] = files.groups([str(tmp_path)])
    assert group.options.get("sep", ",") == separator and ("header" in group.options) == header
    assert list(group.rows.columns) == columns and len(group.rows) == text.count("\n") - header
    assert group.paths == (f"{tmp_path}/a.csv",)


def test_files_with_the_same_columns_belong_together(tmp_path: Path) -> None:
    for market in ("de", "fr"):
        write(tmp_path / f"{market}_5core.txt", "userId itemId rate\nA B 5.0\nC D 4.0\n")
    write(tmp_path / "items.csv", "itemId,title\nB,LAMP\nD,MUG\nE,CUP\n")
    write(tmp_path / "README.txt", "What this is.\nAnd more words.\n")
    write(tmp_path / ".hidden.csv", "a,b\n1,2\n")
    found = {tuple(group.names): len(group.rows) for group in files.groups([str(tmp_path)])}
    assert found == {("de_5core.txt", "fr_5core.txt"): 4, ("items.csv",): 3}


def test_parquet_json_gzip_and_delta_are_read(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    write(tmp_path / "lines.json", '{"user": "a", "n": 1}\n{"user": "b", "n": 2}\n')
    write(tmp_path / "list.json", json.dumps([{"who": "a"}, {"who": "b"}, {"who": "c"}]))
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write("who,n\na,1\n")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    pd.DataFrame({"item": [1, 2, 3]}).to_parquet(tmp_path / "delta" / "part-0.parquet")
    found = {group.format: group for group in files.groups([str(tmp_path / name) for name in ("a.parquet", "delta")])}
    assert len(found["parquet"].rows) == 2 and found["delta"].paths == (f"{tmp_path}/delta",)
    by_name = {group.names[0]: group for group in files.groups([str(tmp_path)])}
    assert len(by_name["lines.json"].rows) == 2 and by_name["list.json"].options == {"multiLine": "true"}
    assert len(by_name["b.csv.gz"].rows) == 1 and list(by_name["delta"].rows) == ["item"]


def test_a_broken_line_of_json_is_no_end(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"user": "a", "n": 1}\nbroken{\n[1]\n{"user": "b", "n": 2}\n')
    [group] = files.groups([str(tmp_path)])
    assert list(group.rows["user"]) == ["a", "b"]
    write(tmp_path / "b.json", "nothing\n")
    with pytest.raises(DataError, match=r"b\.json cannot be read as json: no line is an object"):
        files.groups([f"{tmp_path}/b.json"])


def test_latin_1_is_said_to_spark(tmp_path: Path) -> None:
    write(tmp_path / "movies.dat", "1::Amélie::x\n2::Léon::y\n", "latin-1")
    [group] = files.groups([str(tmp_path)])
    assert group.options == {"sep": "::", "encoding": "ISO-8859-1"} and group.rows["_c1"][0] == "Amélie"


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no/such does not exist"):
        files.groups([f"{tmp_path}/no/such"])
    with pytest.raises(DataError, match="found no rows in files that end in parquet, csv"):
        files.groups([str(tmp_path)])
    write(tmp_path / "names.csv", "user,item,time\n")
    with pytest.raises(DataError, match="found no rows"):
        files.groups([str(tmp_path)])
    write(tmp_path / "names.csv", "")
    with pytest.raises(DataError, match="nothing://x cannot be opened: Protocol not known"):
        files.groups(["nothing://x"])
    write(tmp_path / "broken.parquet", "PAR1 nothing")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read as parquet"):
        files.groups([f"{tmp_path}/broken.parquet"])
    write(tmp_path / "good.csv", "who,n\na,1\n")
    assert [group.names for group in files.groups([str(tmp_path)])] == [["good.csv"]]  # the other is left out


def test_a_column_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.dat", "1::5\n2::6\n3::9\n")
    pd.DataFrame({"day": ["x", "y"]}).to_parquet(tmp_path / "b.parquet")
    monkeypatch.setattr(files, "FIRST_ROWS", 1)
    text, typed = sorted(files.groups([str(tmp_path)]), key=lambda group: group.format)
    found = files.whole_column(text, "_c1")
    assert found is not None and list(found) == ["5", "6", "9"]
    assert list(files.whole_column(typed, "day")) == ["x", "y"]
    monkeypatch.setattr(files, "WHOLE_BYTES", 3)
    assert files.whole_column(text, "_c1") is None


def test_damage_is_one_line_and_leaves_the_other_files(tmp_path: Path) -> None:
    whole = gzip.compress(("who,n\n" + "".join(f"a{n},{n * n}\n" for n in range(5000))).encode())
    for name, data in {"cut.csv.gz": whole[:1000], "no.csv.gz": b"who,n\na,1\n"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name} cannot be read as csv: (Compressed file ended|Not a gzipped)"):
            files.groups([f"{tmp_path}/{name}"])
    write(tmp_path / "good.csv", "who,n\na,1\n")
    assert [group.names for group in files.groups([str(tmp_path)])] == [["good.csv"]]


def test_the_start_of_a_long_list_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its 60 bytes end within the third object, and within a letter."""
    rows = [{"who": "001", "n": 1}, {"who": "é", "n": 2}, {"who": "ééééééééééé", "n": 3}]
    write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False))
    monkeypatch.setattr(files, "FIRST_BYTES", 60)
    [group] = files.groups([str(tmp_path)])
    assert list(group.rows["who"]) == ["001", "é"] and group.options == {"multiLine": "true"}
    monkeypatch.undo()
    write(tmp_path / "a.json", '{"who": "x\\ud800", "n": 1}\n{"who": "y", "n": 2}\n')
    assert list(files.groups([str(tmp_path)])[0].rows["who"]) == ["x?", "y"]


def test_a_column_that_breaks_after_its_first_rows_is_not_read_to_the_end(tmp_path: Path) -> None:
    lines = [f"a{n},{n}" for n in range(40)]
    write(tmp_path / "a.csv", "\n".join(["who,n", "x" * 200_000 + ",3", *lines, '"open,4', ""]))
    [group] = files.groups([str(tmp_path)])
    assert len(group.rows) >= 40 and files.whole_column(group, "n") is None
