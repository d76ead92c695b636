"""Reading configured sources: a mistake is one RecsparkError with the key, what was found and how to fix it."""

import json
import os

import pytest

from recspark import cli, expressions
from recspark.config.sources import Source
from recspark.errors import ConfigError, DataError, SchemaError
from recspark.expressions import CORRUPT
from recspark.sources import raw

PEOPLE = "name,age,Country\nann,31,France\nbob,x,Spain\n"


@pytest.fixture
def people(tmp_path):
    (tmp_path / "people.csv").write_text(PEOPLE)
    return Source(format="csv", paths=(str(tmp_path / "people.csv"),), options={"header": "true"})


def values(spark, source, sql, kind):
    rows = raw.read(spark, source, "source.x")
    return [r[0] for r in rows.select(expressions.column(rows, sql, kind, "source.x.y", raw.place(source))).collect()]


def test_reads_options_where_and_expressions(spark, people):
    source = people.model_copy(update={"where": "Country <> 'Spain'"})
    assert values(spark, source, "upper(name)", "id") == ["ANN"]


def test_a_value_that_cannot_be_cast_is_null(spark, people):
    assert values(spark, people, "age", "number") == [31.0, None]


def test_relative_paths_start_at_the_working_directory(spark, people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = people.model_copy(update={"paths": ("people.csv",)})
    assert raw.read(spark, source, "source.x").count() == 2
    assert raw.fingerprint(spark, source, "source.x").startswith(raw.fingerprint(spark, people, "source.x"))


@pytest.mark.parametrize("path", ["nowhere.csv", "nowhere/*.csv"])
def test_missing_path(spark, people, tmp_path, path):
    source = people.model_copy(update={"paths": (str(tmp_path / path),)})
    for call in (raw.read, raw.fingerprint):
        with pytest.raises(ConfigError, match=r"source\.x\.paths: .*nowhere.*does not exist.*--set source\.x\.paths"):
            call(spark, source, "source.x")


def test_missing_table(spark):
    with pytest.raises(ConfigError, match=r"source\.x\.table: nowhere does not exist"):
        raw.read(spark, Source(format="table", table="nowhere"), "source.x")


def test_empty_source(spark, tmp_path, people):
    (tmp_path / "empty.csv").write_text("name,age,Country\n")
    with pytest.raises(DataError, match=r"empty\.csv is empty"):
        raw.read(spark, people.model_copy(update={"paths": (str(tmp_path / "empty.csv"),)}), "source.x")
    with pytest.raises(DataError, match="no row matches `age > 99`"):
        raw.read(spark, people.model_copy(update={"where": "age > 99"}), "source.x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no parquet file"):
        raw.read(spark, Source(format="parquet", paths=(str(tmp_path / "folder"),)), "source.x")


def test_another_format_than_configured(spark, people):
    with pytest.raises(
        DataError, match=r"people\.csv is damaged, cut off or of another format \(is not a Parquet file\)"
    ):
        raw.read(spark, Source(format="parquet", paths=people.paths), "source.x")


@pytest.mark.parametrize(
    ("sql", "kind", "error", "message"),
    [
        ("Countri", "id", SchemaError, r"column Countri is not in .*; did you mean Country\? it has name, age"),
        ("upper(zzz)", "id", SchemaError, r"column zzz is not in [^?]*; it has name, age, Country"),
        ("upper(name", "id", ConfigError, r"source.x.y: `upper\(name` is not Spark SQL"),
        ("nofunction(age)", "id", ConfigError, "source.x.y: `nofunction.age.` cannot be evaluated"),
        ("age > 3", "time", SchemaError, "source.x.y: `age > 3` is of type boolean .* expected a timestamp"),
        ("array(age)", "number", SchemaError, "is of type array<string> .* expected a number"),
        ("CAST(age AS BIGINT)", "time", SchemaError, r"is of type bigint .* timestamp_seconds"),
        ("CAST(age AS DOUBLE)", "id", SchemaError, r"is of type double .* CAST\(x AS BIGINT\)"),
        ("name", "condition", SchemaError, "expected a condition"),
    ],
)
def test_wrong_expressions(spark, people, sql, kind, error, message):
    with pytest.raises(error, match=message):
        values(spark, people, sql, kind)


def test_the_file_name_can_be_a_scenario(spark, people):
    assert values(spark, people, "split(_metadata.file_name, '[.]')[0]", "id") == ["people", "people"]


def test_schema_changes(spark, tmp_path):
    """A new column changes nothing, a lost one is named."""
    (tmp_path / "a.json").write_text(json.dumps({"user": "ann", "item": "i", "more": 1}))
    source = Source(format="json", paths=(str(tmp_path / "a.json"),))
    assert values(spark, source, "user", "id") == ["ann"]
    (tmp_path / "a.json").write_text(json.dumps({"users": "ann", "item": "i"}))
    with pytest.raises(SchemaError, match=r"column user is not in .*did you mean users\?"):
        values(spark, source, "user", "id")


def test_fingerprint_follows_the_files(spark, people, tmp_path):
    first = raw.fingerprint(spark, people, "source.x")
    assert raw.fingerprint(spark, people, "source.x") == first
    os.utime(tmp_path / "people.csv", (1, 1))
    moved = raw.fingerprint(spark, people, "source.x")
    (tmp_path / "people.csv").write_text(PEOPLE + "cid,4,Spain\n")
    os.utime(tmp_path / "people.csv", (1, 1))
    assert len({first, moved, raw.fingerprint(spark, people, "source.x")}) == 3


def test_delta_sources_are_named_by_version(spark, tmp_path):
    source = Source(format="delta", paths=(str(tmp_path / "d"),))
    spark.range(2).write.format("delta").save(source.paths[0])
    first = raw.fingerprint(spark, source, "source.x")
    assert raw.fingerprint(spark, source, "source.x") == first
    spark.range(1).write.format("delta").mode("append").save(source.paths[0])
    assert raw.fingerprint(spark, source, "source.x") != first
    assert raw.read(spark, source, "source.x").count() == 3


def test_views_are_named_by_their_files(spark, people):
    raw.read(spark, people, "source.x").createOrReplaceTempView("raw_people")
    source = Source(format="table", table="raw_people")
    assert raw.fingerprint(spark, source, "source.x").startswith(raw.fingerprint(spark, people, "source.x"))
    assert raw.read(spark, source, "source.x").count() == 2


def test_rows_are_counted_without_reading_them(spark, tmp_path):
    """4 lines of 7 letters and a line end; of JSON likewise; of Parquet from the footers."""
    (tmp_path / "a.csv").write_text("a,bcdef\n" * 4)
    spark.range(5).coalesce(1).write.parquet(f"{tmp_path}/a.parquet")

    def about(kind, **place):
        return raw.about_rows(spark, Source(format=kind, **place), "source.interactions")

    assert about("csv", paths=(f"{tmp_path}/a.csv",)) == 4
    assert about("parquet", paths=(f"{tmp_path}/a.parquet",)) == 5
    assert about("table", table="main.big.table") is None
    with pytest.raises(ConfigError, match="does not exist"):
        about("csv", paths=(f"{tmp_path}/no.csv",))


def test_a_view_that_shows_other_rows_is_another_source(spark, people):
    raw.read(spark, people, "source.x").createOrReplaceTempView("some_people")
    source = Source(format="table", table="some_people")
    before = raw.fingerprint(spark, source, "source.x")
    assert before == raw.fingerprint(spark, source, "source.x")
    raw.read(spark, people, "source.x").where("Country <> 'Spain'").createOrReplaceTempView("some_people")
    assert raw.fingerprint(spark, source, "source.x") != before


def test_a_row_that_is_deleted_under_a_view_counts(spark, tmp_path):
    """With deletion vectors the row's file stays as it is; the view's definition does too."""
    place = f"delta.`{tmp_path}/t`"
    spark.range(10).coalesce(1).write.format("delta").option("delta.enableDeletionVectors", "true").save(
        f"{tmp_path}/t"
    )
    source = Source(format="table", table="shown")
    views = (f"SELECT * FROM {place} WHERE id > 2", f"SELECT a.id FROM {place} a JOIN {place} b ON a.id = b.id")
    for view, deleted in zip(views, (7, 8), strict=True):
        spark.sql(f"CREATE OR REPLACE TEMP VIEW shown AS {view}")
        before, files = raw.fingerprint(spark, source, "source.x"), spark.table("shown").inputFiles()
        assert raw.fingerprint(spark, source, "source.x") == before
        spark.sql(f"DELETE FROM {place} WHERE id = {deleted}")
        assert spark.table("shown").inputFiles() == files
        assert raw.fingerprint(spark, source, "source.x") != before


def test_a_csv_is_read_as_spreadsheets_write_it(spark, tmp_path):
    """Doubled quotes everywhere; line breaks in quotes where items are described."""
    lines = ["id,text", '1,"7"" tablet, black"', '2,"ends with \\"', '3,"two', 'lines"']
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    source = Source(format="csv", paths=(f"{tmp_path}/a.csv",), options={"header": "true"})
    rows = raw.read(spark, source, "source.items").select("id", "text").orderBy("id").collect()
    assert [row.text for row in rows] == ['7" tablet, black', "ends with \\", "two\nlines"]
    split = raw.read(spark, source, "source.interactions")
    assert [row[CORRUPT] for row in split.collect() if row[CORRUPT]] == ['lines"']
    assert raw.num_malformed(split) == 1 and raw.num_malformed(spark.range(1)) == 0


def test_another_order_of_columns_in_a_second_file_is_one_line(spark, tmp_path):
    (tmp_path / "a.csv").write_text("user,item\nu1,i1\n")
    (tmp_path / "b.csv").write_text("item,user\ni1,u1\n")
    source = Source(format="csv", paths=(str(tmp_path),), options={"header": "true"})
    with pytest.raises(DataError, match=r"source.x: CSV header does not conform") as raised:
        raw.read(spark, source, "source.x")  # both are in one task, so the first look finds it
    with pytest.raises(Exception, match="CSV header does not conform") as later:
        raw.opened(spark, source, "source.x").collect()
    line, code = cli.cause(later.value)
    assert line in str(raised.value)
    assert code == 2 and "Header: " in line and ".csv; write the files alike" in line and "\n" not in line


def test_another_type_in_a_second_file_is_one_line(spark, tmp_path):
    spark.range(3).coalesce(1).selectExpr("id AS user").write.parquet(f"{tmp_path}/raw/a")
    spark.range(3).coalesce(1).selectExpr("CAST(id AS STRING) AS user").write.parquet(f"{tmp_path}/raw/b")
    source = Source(format="parquet", paths=(f"{tmp_path}/raw/*",))
    with pytest.raises(Exception, match="Encountered error while reading file") as raised:
        raw.read(spark, source, "source.x").collect()
    line, code = cli.cause(raised.value)
    assert code == 2 and "column [user]" in line and "write the files alike" in line and "\n" not in line


@pytest.mark.parametrize("name", ("a.csv.zip", "a.tar.gz", "A.XLSX"))
def test_an_archive_is_refused(spark, name):
    with pytest.raises(ConfigError, match=f"{name} is an archive, which is not read; unpack it"):
        raw.read(spark, Source(format="csv", paths=(name,)), "source.x")


def test_a_list_of_objects_says_what_it_needs(spark, tmp_path):
    (tmp_path / "a.json").write_text('[\n {\n  "user": "a"\n },\n {\n  "user": "b"\n }\n]\n')
    source = Source(format="json", paths=(f"{tmp_path}/a.json",))
    with pytest.raises(DataError, match=r'needs `options: \{multiLine: "true"\}`'):
        raw.read(spark, source, "source.x")
    good = source.model_copy(update={"options": {"multiLine": "true"}})
    assert raw.read(spark, good, "source.x").count() == 2


def test_the_name_of_a_column_is_that_column(spark):
    """Without the rule, `Customer ID` is the column Customer, named ID, and a.b is a field of a."""
    names = ["Customer", "Customer ID", "a.b", "o`clock"]
    rows = spark.createDataFrame([("Ann", "u1", "x", "y")], names)

    def value(sql):
        return rows.select(expressions.column(rows, sql, "id", "source.x.y", "rows")).collect()[0][0]

    assert [value(name) for name in names] == ["Ann", "u1", "x", "y"]
    assert value("upper(`Customer ID`)") == "U1"


@pytest.mark.parametrize(
    "sql,expected", (("CAST(17850 AS DECIMAL(38,10))", "17850"), ("1.50", "1.50"), ("' a b '", "a b"))
)
def test_ids_are_whole_numbers_and_trimmed_texts(spark, sql, expected):
    rows = spark.range(1)
    assert rows.select(expressions.column(rows, sql, "id", "source.x.y", "rows")).collect()[0][0] == expected
