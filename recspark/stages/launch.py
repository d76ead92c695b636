"""TorchDistributor: beside the driver for a local master, else in the executors."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from pyspark.sql import SparkSession

from recspark.errors import TrainingError

log = logging.getLogger(__name__)


def is_local(spark: SparkSession) -> bool:
    return bool(spark.sparkContext.master.startswith("local"))


def threads(spark: SparkSession, num_processes: int) -> int:
    """Threads of each process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // num_processes) if is_local(spark) else int(spark.conf.get("spark.task.cpus", "1"))


def launch(
    spark: SparkSession,
    noun: str,
    run: Callable[[Mapping[str, Any]], dict[str, Any]],
    asked: Mapping[str, Any],
    num_processes: int,
    use_gpu: bool,
) -> dict[str, Any]:
    """Call `run(asked)` in every process; the answer of the first one, which is {"error": message} for a user's error.

    Raises TrainingError: the job's own, or one that says what to do after a process was lost.
    """
    from pyspark.ml.torch.distributor import TorchDistributor  # here: only a night that trains pays for its import

    # idle threads of a busy machine must sleep, not spin: the children inherit it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    local = is_local(spark)
    log.info("%s: training with %d processes, %s mode", noun, num_processes, "local" if local else "cluster")
    distributor = TorchDistributor(num_processes=num_processes, local_mode=local, use_gpu=use_gpu)
    try:
        answer = distributor.run(run, asked)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise TrainingError(
            f"{noun}: a training process was lost ({type(error).__name__}: {first:.300}); its own words stand above. "
            "Run the same command again: it goes on from the last checkpoint. Check that recspark is installed on the "
            f"executors, that {num_processes} tasks fit at once, and that no executor was killed for memory"
        ) from error
    if "error" in answer:
        raise TrainingError(f"{noun}: {answer['error']}")
    return dict(answer)
