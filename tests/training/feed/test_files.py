"""Paths of training files; the row groups and filters are tested through the feed."""

from recspark.training.feed.files import local_path


def test_paths_of_uris() -> None:
    assert local_path("file:///a/as_of=2011-11-07/p%20q.parquet") == "/a/as_of=2011-11-07/p q.parquet"
    assert local_path("file:/a/b") == "/a/b"
    assert local_path("dbfs:/a/b") == "/dbfs/a/b"
    assert local_path("s3://bucket/a%20b") == "s3://bucket/a%20b"
    assert local_path("/a/b%20c") == "/a/b%20c"
