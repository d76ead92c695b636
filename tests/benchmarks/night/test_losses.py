"""What the losses are made and judged by; a whole night with them takes minutes and is the benchmark."""

import subprocess
import sys
from pathlib import Path

from benchmarks.night import losses
from recspark import pipeline

NIGHT = """
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)", *sys.argv[1:]])
    .returncode)
"""


def night_with(*words: str) -> "subprocess.Popen[str]":
    """A process with a child that has these words in its command line."""
    night = subprocess.Popen([sys.executable, "-c", NIGHT, *words], stdout=subprocess.PIPE, text=True)
    assert night.stdout is not None and night.stdout.readline() == "up\n"
    return night


def test_only_an_executor_is_killed() -> None:
    night, other = night_with("org.apache.spark.executor.CoarseGrainedExecutorBackend", "--cores"), night_with("driver")
    try:
        assert losses.kill_executor(night.pid) and night.wait(10) == 256 - 9
        assert not losses.kill_executor(other.pid) and other.poll() is None
    finally:
        subprocess.run(["pkill", "-P", str(other.pid)], check=False)
        other.wait(10)


def test_every_stage_is_one_of_a_night() -> None:
    assert set(losses.STAGES) < set(pipeline.STAGES)


def test_the_last_line_is_for_people(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text('at java.lang.Thread\nNo space left on device: /w\n\n{"status": "failed"}\n')
    assert losses.last_line(log) == "No space left on device: /w"
    log.write_text("")
    assert losses.last_line(log) == ""
