"""Which files a path names, and that none of them is left out without a word."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recspark import expressions
from recspark.config.sources import Source
from recspark.errors import ConfigError
from recspark.sources import raw
from recspark.sources.paths import File, hidden, left_out, list_files

TEXT = "user,item\nu1,i1\n"


def source(path: Path, **options: str) -> Source:
    return Source(format="csv", paths=(str(path),), options={"header": "true", **options})


def write(path: Path, text: str = TEXT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "name", ("a b", "a[1]", "a{1}", "a*b", "a?b", "a\\b", "a%20b", "a=b", "données – ü", "a:b", "#")
)
def test_a_name_is_that_file_whatever_letters_it_has(spark: SparkSession, tmp_path: Path, name: str) -> None:
    write(tmp_path / name / "1.csv")
    write(tmp_path / "axb" / "1.csv", TEXT + "u2,i2\n")  # what a*b and a?b would match too
    for path in (tmp_path / name, tmp_path / name / "1.csv"):
        assert raw.read(spark, source(path), "source.x").count() == 1
        assert f"{name}/1.csv:" in raw.fingerprint(spark, source(path), "source.x")
        assert raw.about_rows(spark, source(path), "source.x") == 2  # two lines


def test_a_pattern_is_one(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "a1.csv")
    write(tmp_path / "a2.csv")
    assert raw.read(spark, source(tmp_path / "a[12].csv"), "source.x").count() == 2


def test_a_colon_that_hadoop_does_not_take_is_one_line(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "at 10:30.csv")
    for call in (raw.read, raw.fingerprint):
        with pytest.raises(Exception, match=r"the name .*10:30\.csv has a colon, .* rename the file") as raised:
            call(spark, source(tmp_path / "*.csv"), "source.x")
        assert "\n" not in str(raised.value)


def test_folders_in_a_folder_are_not_left_out(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "raw" / "1.csv")
    write(tmp_path / "raw" / "more" / "2.csv")
    with pytest.raises(ConfigError, match=r"source\.x\.paths: .*more/2\.csv would not be read: .*recursiveFileLookup"):
        raw.read(spark, source(tmp_path / "raw"), "source.x")
    assert raw.read(spark, source(tmp_path / "raw", recursiveFileLookup="true"), "source.x").count() == 2
    assert raw.read(spark, source(tmp_path / "raw", pathGlobFilter="1*"), "source.x").count() == 1


def test_files_beside_folders_of_keys_are_not_left_out(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "raw" / "day=1" / "1.csv")
    write(tmp_path / "raw" / "day=2" / "part" / "3.csv")
    rows = raw.read(spark, source(tmp_path / "raw"), "source.x")
    assert sorted(row.day for row in rows.collect()) == ["1", "2"]
    write(tmp_path / "raw" / "2.csv")
    with pytest.raises(ConfigError, match=r"raw/2\.csv would not be read"):
        raw.read(spark, source(tmp_path / "raw"), "source.x")


def test_the_value_of_a_key_is_a_text(spark: SparkSession, tmp_path: Path) -> None:
    """Spark guesses a type: 007 would be 7, and 1e5 would be 100000.0."""
    for value in ("007", "1e5", "8"):
        write(tmp_path / "raw" / f"shop={value}" / "1.csv")
    rows = raw.read(spark, source(tmp_path / "raw"), "source.x")
    found = rows.select(expressions.column(rows, "shop", "id", "source.x.y", "rows")).collect()
    assert sorted(row[0] for row in found) == ["007", "1e5", "8"]


@pytest.mark.parametrize("name", ("_a.csv", ".a.csv"))
def test_a_hidden_file_says_so(spark: SparkSession, tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    for call in (raw.read, raw.fingerprint):
        with pytest.raises(
            Exception, match=rf"Spark does not read .*{name}, since its name begins with _ or \.; rename"
        ):
            call(spark, source(tmp_path / name), "source.x")
    write(tmp_path / "raw" / "a.csv")
    write(tmp_path / "raw" / "_temporary" / "b.csv")
    assert [file.folders for file in list_files(spark, f"{tmp_path}/raw")] == [()]
    assert raw.read(spark, source(tmp_path / "raw"), "source.x").count() == 1


def test_names_that_spark_does_not_read() -> None:
    assert [hidden(name) for name in ("_SUCCESS", ".crc", "a", "_day=1", "a_")] == [True, True, False, False, False]


def test_what_is_left_out_of_a_listing() -> None:
    found = [File("/r/a", (), ""), File("/r/x/b", ("x",), ""), File("/r/k=1/c", ("k=1",), "")]
    assert left_out(Source(format="csv", paths=("/r",)), found) == ["/r/a", "/r/x/b"]
    assert left_out(Source(format="csv", paths=("/r",)), found[:2]) == ["/r/x/b"]
    assert left_out(Source(format="csv", paths=("/r",)), found[:1]) == []
    assert left_out(Source(format="csv", paths=("/r",), options={"recursivefilelookup": "true"}), found) == []
