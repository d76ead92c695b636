"""What the training of retrievers is started with; it is pickled on its way to the process. Imports no torch."""

from dataclasses import dataclass

from recspark.config.retrievers import Retriever

TRAINER = "recspark.training.retrieval.fit:train_all"  # takes a RetrieverJob; a name, so the driver does not load torch
TRAINABLE = ("matrix_factorization", "sequence", "content_towers", "content_map")


@dataclass(frozen=True)
class RetrieverTask:
    """Train the retriever `name` of one date: the folders of its bundle and of its histories, raw scenario ->
    scenario_idx."""

    name: str
    bundle: str
    histories: str
    scenarios: dict[str, int]


@dataclass(frozen=True)
class RetrieverJob:
    """`settings`: the section that has the settings of every task's retriever."""

    tasks: tuple[RetrieverTask, ...]
    settings: Retriever
    seed: int
