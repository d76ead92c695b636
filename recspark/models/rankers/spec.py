"""What a torch ranker is made of, and what its body has to offer.

Shape suffixes: B rows, T tasks.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, RowNoise


@dataclass(frozen=True)
class Spec:
    """What it takes to rebuild the model; goes into the manifest as JSON."""

    features: tuple[str, ...]
    tasks: tuple[str, ...]  # the first one ranks
    kinds: tuple[str, ...]  # binary | regression, per task
    num_items: int  # item_idx in training are below this
    num_scenarios: int
    num_missing: int
    content_dim: int
    embedding_dim: int
    hidden: tuple[int, ...]
    history_length: int
    dropout: float
    model: str = "shared_bottom"  # a name of catalogue.BODIES
    cross_layers: int = 0
    given: tuple[int, ...] = ()  # per task the task before it in a funnel, by number, -1 = none; () = no funnel
    task_weighting: str = "fixed"  # fixed | uncertainty
    content_parts: tuple[int, ...] = ()  # numbers of a content vector that each encoder gave; () = one gave all
    fusion: str = "attention"  # of several content parts: attention | gate | concat
    num_ids: int | None = None  # rows of the table of item ids, the unknown one among them; None = one an item


class Body(Protocol):
    """What differs between the rankers: an nn.Module built as `Body(spec, num_inputs)`."""

    hides_scenarios: bool  # train some rows as of an unknown scenario, for it to have something to fall back to

    def __call__(self, rows: Encoded, x: Inputs, noise: RowNoise | None) -> Tensor:
        """Logits, (B, T); a regression's is its standardised target."""

    def fit(self, scenario: Array, targets: Array) -> None:
        """Constants from a sample: `scenario` (n,), `targets` (n, T) as the loss sees them, nan = no label."""
