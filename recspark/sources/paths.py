"""The files of a source: what a path or a pattern names, and which of these files Spark reads."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from recspark.config.sources import Source
from recspark.errors import ConfigError, differing_file
from recspark.expressions import FAILURES

PATTERN = re.compile(r"([\[\]{}*?\\])")  # what makes a path a pattern
CHOOSING = {"pathglobfilter", "modifiedbefore", "modifiedafter", "recursivefilelookup"}  # options that choose files


@dataclass(frozen=True)
class File:
    """A file below a path. `folders`: between the two; `state`: path, size and time of the last change."""

    path: str
    folders: tuple[str, ...]
    state: str


def resolved(spark: SparkSession, source: Source) -> list[str]:
    """The paths as Spark takes them. Relative local ones start at the working directory of this process, which may not
    be the JVM's; the name of a file that exists is that file, also where it would be a pattern, such as `sales[1].csv`.
    """
    paths = _absolute(spark, source)
    return paths if source.format == "delta" else [literal(spark, path) for path in paths]


def _absolute(spark: SparkSession, source: Source) -> list[str]:
    local = str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS")).startswith("file:")
    return [os.path.abspath(p) if local and ":" not in p.split("/")[0] else p for p in source.paths]


def literal(spark: SparkSession, path: str) -> str:
    """The path of a file that exists, with its special letters escaped; else the pattern that it is."""
    if not PATTERN.search(path):
        return path
    name, system = _opened(spark, path)
    return PATTERN.sub(r"\\\1", path) if system.exists(name) else path


def folders(spark: SparkSession, source: Source) -> list[str]:
    """The folders that hold the source's files, as URLs or absolute paths: of a file the folder that it lies in, of a
    pattern the part before it. Never the root of a file system."""
    found = set()
    for path in _absolute(spark, source):
        name, system = _opened(spark, path)
        if not system.exists(name):
            if not PATTERN.search(path):
                continue
            before = PATTERN.split(path, maxsplit=1)[0]
            name, system = _opened(spark, before.rpartition("/")[0] or "/")
        elif not system.getFileStatus(name).isDirectory():
            name = name.getParent()
        if not name.isRoot():
            found.add(re.sub("^file:/+", "/", str(system.makeQualified(name))))
    return sorted(found)


def list_files(spark: SparkSession, pattern: str) -> list[File]:
    """Every file below a path or pattern, through Hadoop, so any URL that Spark can read.

    Left out are those whose name, or a folder's above them, begins with `_` or `.`: Spark does not read them.

    Raises: ConfigError for a name that Hadoop does not take.
    """
    try:
        path, system = _opened(spark, pattern)
        if PATTERN.search(pattern):
            roots = [status.getPath() for status in system.globStatus(path) or ()]
        else:  # globStatus refuses names with a colon
            roots = [path] if system.exists(path) else []
        return [file for root in roots for file in _below(system, root) if not any(map(hidden, _parts(file)))]
    except FAILURES as error:
        raise ConfigError(f"{pattern}: {differing_file(str(error)) or error}") from error


def left_out(source: Source, files: list[File]) -> list[str]:
    """Of listed files those that Spark would not read, without a word: in folders below the one that is named, unless
    one of these is called key=value; and, where there are such folders, files outside of them."""
    if CHOOSING & {name.lower() for name in source.options}:
        return []
    with_key = {file.path: any("=" in name for name in file.folders) for file in files}
    if any(with_key.values()):
        return sorted(path for path, has_key in with_key.items() if not has_key)
    return sorted(file.path for file in files if file.folders)


def hidden(name: str) -> bool:
    """Does Spark not read a file or folder of this name?"""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _parts(file: File) -> tuple[str, ...]:
    return (*file.folders, file.path.rsplit("/", 1)[-1])


def _opened(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Hadoop's path and file system."""
    context = spark.sparkContext
    jvm = context._jvm
    assert jvm is not None  # None only before the context has started
    name = jvm.org.apache.hadoop.fs.Path(path)
    return name, name.getFileSystem(context._jsc.hadoopConfiguration())


def _below(system: Any, root: Any) -> Iterator[File]:
    top = str(system.getFileStatus(root).getPath())
    files = system.listFiles(root, True)
    while files.hasNext():
        file = files.next()
        path = str(file.getPath())
        folders = tuple(path.removeprefix(top).strip("/").split("/")[:-1])
        yield File(path, folders, f"{path}:{file.getLen()}:{file.getModificationTime()}")
