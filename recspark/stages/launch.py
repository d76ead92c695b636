"""Run a training in other processes, by TorchDistributor: beside the driver for a local master, else in executors."""

import logging
import os
from typing import Any

from pyspark.sql import SparkSession

from recspark.errors import TrainingError
from recspark.training import entry

log = logging.getLogger(__name__)


def is_local(spark: SparkSession) -> bool:
    return (spark.sparkContext.master or "").startswith("local")


def threads(spark: SparkSession, num_processes: int) -> int:
    """Threads of each process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // num_processes) if is_local(spark) else int(spark.conf.get("spark.task.cpus", "1") or "1")


def launch(
    spark: SparkSession, noun: str, function: entry.Function, job: object, num_processes: int, use_gpu: bool
) -> dict[str, Any]:
    """Call `function(job)` in every process; see recspark/training/entry.py. `job` travels by pickle.

    Returns: the result of the first process.
    Raises: TrainingError: the function's own error, or one that says what to do after a process was lost.
    """
    answer = _distributed(function, job, spark, noun, num_processes, use_gpu)
    if "error" in answer:
        raise TrainingError(f"{noun}: {answer['error']}")
    return answer


def _distributed(
    function: entry.Function, job: object, spark: SparkSession, noun: str, num_processes: int, use_gpu: bool
) -> dict[str, Any]:
    """`entry.run(function, job)` by TorchDistributor. A test that wants no child process replaces this."""
    from pyspark.ml.torch.distributor import TorchDistributor  # here: only a night that trains pays for its import

    # idle threads of a busy machine must sleep, not spin: the children inherit it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    local = is_local(spark)
    log.info("%s: training with %d processes, %s mode", noun, num_processes, "local" if local else "cluster")
    distributor = TorchDistributor(num_processes=num_processes, local_mode=local, use_gpu=use_gpu)
    try:
        answer = distributor.run(entry.run, function, job)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise TrainingError(
            f"{noun}: a training process was lost ({type(error).__name__}: {first:.300}); its own messages stand "
            "above. Run the same command again: it goes on from the last checkpoint. Check that recspark is installed "
            f"on the executors, that {num_processes} tasks fit at once, and that no executor was killed for memory"
        ) from error
    assert isinstance(answer, dict), f"expected what entry.run returns, found {type(answer)}"
    return answer
