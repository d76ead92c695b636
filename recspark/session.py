"""The SparkSession: the active one (on Databricks, under spark-submit), else a new local one with Delta."""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from recspark.errors import ConfigError

if TYPE_CHECKING:  # importing pyspark starts nothing, but PYSPARK_PYTHON must be set first
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

DELTA_CLASS = "io.delta.sql.DeltaSparkSessionExtension"

# Settings that change what is in the tables: source expressions run in UTC, a bad cast gives null (a rejected row)
# instead of ending the job, and the names of folders are texts (user=007 is not 7).
MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
}

# For speed on one machine; never applied to a session that was configured elsewhere.
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
    "spark.databricks.delta.snapshotPartitions": "2",  # with Delta's default the first commit takes 25 s
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.debug.maxToStringFields": "200",
    # The JVM does not compile methods of more than 8,000 bytes, and whole-stage code for rows as wide as candidates has
    # more; with this limit Spark falls back to its other execution path there, which is compiled.
    "spark.sql.codegen.hugeMethodLimit": "8000",
}


# Hadoop's client of S3 and what it uses of the AWS SDK: 15 MB. Its POM names a jar of 558 MB with
# all of AWS, of version 2.24.6 for Hadoop 3.4.1; Maven Central lacks single modules of that version.
AWS_SDK = "2.24.12"
AWS_MODULES = ("s3", "s3-transfer-manager", "sts", "apache-client")
AWS_BUNDLE = "software.amazon.awssdk:bundle"
S3_CLASS = "org.apache.hadoop.fs.s3a.S3AFileSystem"


def get_session(
    settings: dict[str, str] | None = None, app_name: str = "recspark", s3: bool = False
) -> "tuple[SparkSession, bool]":
    """The active session if there is one, else a new one with Delta; and whether it is new (then the caller stops it).

    `settings` have Spark's own names; on an active session only those that can still be changed apply. `s3`: s3:// and
    s3a:// are read or written.

    Raises: ConfigError when Java is missing, too old or does not start, or when the jars of Delta, or those of S3 where
    they are needed, are not on the class path.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # otherwise UDF workers run the system's python
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    # It would print each wrong expression's Java trace as one long line; the error says the same in words.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    # The active session belongs to a thread; another thread's is found through the one context of the process.
    is_new = SparkContext._active_spark_context is None
    active = SparkSession.getActiveSession() or _build(settings or {}, app_name, s3)
    for key, value in MEANING.items():
        active.conf.set(key, value)
    for key, value in (settings or {}).items():
        if active.conf.isModifiable(key):
            active.conf.set(key, value)
    _require_delta(active)
    if s3:
        _require_s3(active)
    return active, is_new


def _build(settings: dict[str, str], app_name: str, s3: bool) -> "SparkSession":
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    if "PYSPARK_GATEWAY_PORT" in os.environ:
        SparkContext._ensure_initialized()  # otherwise SparkConf does not see what spark-submit passed
    else:
        _require_java()
    submitted = SparkConf()  # what spark-submit passed; empty under plain Python
    builder = SparkSession.builder.appName(app_name).config("spark.sql.extensions", DELTA_CLASS)
    builder = builder.config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    master = settings.get("spark.master") or submitted.get("spark.master")
    if master is None or master.startswith("local"):
        builder = builder.master(master or "local[*]")
        for key, value in {**LOCAL, **(_s3_settings() if s3 else {})}.items():
            if not submitted.contains(key):
                builder = builder.config(key, value)
    if not submitted.contains("spark.jars.packages") and not submitted.contains("spark.jars"):
        packages = [delta_package(), *(s3_packages() if s3 else ())]
        names = ",".join(packages)
        known = "" if any(key.startswith("spark.jars") for key in settings) else _fetched(names)
        builder = builder.config("spark.jars" if known else "spark.jars.packages", known or names)
    for key, value in settings.items():
        builder = builder.config(key, value)
    with fetching("spark.jars.packages" in builder._options):
        spark = _start(builder)
    if "spark.jars.packages" in builder._options and spark.sparkContext.getConf().get("spark.jars"):
        _remember(builder._options["spark.jars.packages"], spark.sparkContext.getConf().get("spark.jars", ""))
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _fetched(packages: str) -> str:
    """The jars that an earlier start has fetched for these packages, as `spark.jars` wants them; "" if one is missing.
    With them Spark starts 2 s sooner, and Ivy does not print its hundred lines."""
    try:
        files = _jar_list(packages).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
    return files if files and all(os.path.exists(name.removeprefix("file://")) for name in files.split(",")) else ""


def _remember(packages: str, files: str) -> None:
    """For `_fetched`; nothing where the user's cache folder cannot be written."""
    path = _jar_list(packages)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            file.write(files)
        os.replace(file.name, path)


def _jar_list(packages: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return cache / "recspark" / f"jars-{hashlib.sha256(packages.encode()).hexdigest()[:16]}.txt"


def fetching(jars: bool) -> AbstractContextManager[object]:
    """A lock where jars may have to be fetched, so that one process at a time does: Ivy's cache is not made for two,
    and a repository that gets many requests for the same jars refuses some of them."""
    name = f"recspark-jars-{os.getuid() if hasattr(os, 'getuid') else ''}.lock"
    return FileLock(os.path.join(tempfile.gettempdir(), name)) if jars else nullcontext()


def _start(builder: "SparkSession.Builder") -> "SparkSession":
    """Tries twice: Ivy keeps the jars it has, so the second time only the others are fetched."""
    from pyspark.errors import PySparkRuntimeError

    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        jars = builder._options.get("spark.jars.packages", "none")
        raise ConfigError(
            f"Java ended before Spark could start ({error.getCondition()}); the lines above say why. If they are about "
            f"jars ({jars}), let this machine reach Maven Central, or start with spark-submit --jars"
        ) from None


def stop(spark: "SparkSession") -> None:
    """Stop a session. Where Java has ended already, that is told by what ended the run."""
    try:
        spark.stop()
    except OSError as error:  # no connection to Java
        log.debug("Spark was not stopped: %s", error)


@contextmanager
def ended_when_stopped(spark: "SparkSession", owned: bool) -> Iterator[None]:
    """End what Spark does if the block is stopped by a signal: Java would go on with a commit that it has begun, also
    after this run has given its lease back. A session that is not ours only ends its jobs."""
    try:
        yield
    except KeyboardInterrupt:
        java = getattr(spark.sparkContext._gateway, "proc", None)
        if owned and java is not None:
            java.kill()
            java.wait()
        else:
            spark.sparkContext.cancelAllJobs()
        raise


def delta_package() -> str:
    """The Maven coordinate of the Delta jars that fit the installed pyspark and delta-spark."""
    spark_minor = ".".join(version("pyspark").split(".")[:2])
    return f"io.delta:delta-spark_{spark_minor}_2.13:{version('delta-spark')}"


def _s3_settings() -> dict[str, str]:
    """s3:// is what s3a:// is. A store other than AWS has no host name for each bucket."""
    own_store = {"spark.hadoop.fs.s3a.path.style.access": "true"} if "AWS_ENDPOINT_URL" in os.environ else {}
    return {"spark.hadoop.fs.s3.impl": S3_CLASS, "spark.jars.excludes": AWS_BUNDLE, **own_store}


def s3_packages() -> list[str]:
    """The Maven coordinates of the jars for s3:// that fit the installed pyspark; without AWS_BUNDLE."""
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    hadoop = next(jars.glob("hadoop-client-api-*.jar")).stem.rsplit("-", 1)[-1]
    return [f"org.apache.hadoop:hadoop-aws:{hadoop}", *(f"software.amazon.awssdk:{m}:{AWS_SDK}" for m in AWS_MODULES)]


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    how = "install a JDK 17 (for example `apt-get install openjdk-17-jre-headless`) and set JAVA_HOME to it"
    if not java or not os.path.exists(java):
        raise ConfigError(f"no Java found ({'JAVA_HOME=' + home if home else 'no `java` on the PATH'}); {how}")
    banner = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', banner)
    if not found or int(found[1]) < 17:
        raise ConfigError(
            f"{java} is Java {found[1] if found else 'of an unknown version'}, expected 17 or newer for Spark 4; {how}"
        )


def _require_delta(spark: "SparkSession") -> None:
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # None only before the context has started
    try:
        jvm.Thread.currentThread().getContextClassLoader().loadClass(DELTA_CLASS)
    except Exception:  # py4j wraps the ClassNotFoundException
        raise ConfigError(
            f"this Spark session has no Delta: {DELTA_CLASS} is not on its class path; start it with "
            f"`spark-submit --packages {delta_package()} --conf spark.sql.extensions={DELTA_CLASS} "
            "--conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog ...`"
        ) from None


def _require_s3(spark: "SparkSession") -> None:
    """On the session's terms: EMR and Databricks have file systems of their own for s3://."""
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # None only before the context has started
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    for scheme in ("s3", "s3a"):
        try:
            jvm.org.apache.hadoop.fs.FileSystem.getFileSystemClass(scheme, hadoop)
        except Exception:  # py4j wraps Hadoop's
            raise ConfigError(
                f"this Spark session cannot read {scheme}://; start it with `spark-submit --packages "
                f"{delta_package()},{','.join(s3_packages())} --exclude-packages {AWS_BUNDLE} "
                f"--conf spark.hadoop.fs.s3.impl={S3_CLASS} ...`"
            ) from None
