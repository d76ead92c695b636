"""The settings that a torch ranker is built from, and the interface of its body.

Shape suffixes: B rows, T tasks.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, RowNoise


@dataclass(frozen=True)
class Spec:
    """Everything needed to rebuild the model; saved in the manifest as JSON."""

    features: tuple[str, ...]
    tasks: tuple[str, ...]  # the first one orders the lists
    kinds: tuple[str, ...]  # binary | regression, per task
    num_items: int  # every item_idx in training is below this
    num_scenarios: int
    num_missing: int
    content_dim: int
    embedding_dim: int
    hidden: tuple[int, ...]
    history_length: int
    dropout: float
    model: str = "shared_bottom"  # a name of catalogue.BODIES
    cross_layers: int = 0
    given: tuple[int, ...] = ()  # for each task the number of the task before it, -1 = none; () = no funnel
    task_weighting: str = "fixed"  # fixed | uncertainty
    content_parts: tuple[int, ...] = ()  # dimensions of the content vector from each encoder; () = one encoder
    fusion: str = "attention"  # of several content parts: attention | gate | concat
    num_ids: int | None = None  # rows of the item id table, with the unknown one; None = one per item
    given_numbers: tuple[str, ...] = ()  # given features that are numbers
    given_texts: tuple[str, ...] = ()  # and those that are texts
    given_known: tuple[int, ...] = ()  # how many of their texts have a code of their own


class Body(Protocol):
    """The part that differs between rankers: an nn.Module built as `Body(spec, num_inputs)`."""

    hides_scenarios: bool  # train some rows as if their scenario were unknown, so that it has a fallback

    def __call__(self, rows: Encoded, x: Inputs, noise: RowNoise | None) -> Tensor:
        """Logits (B, T); that of a regression predicts the standardised target."""

    def fit(self, scenario: Array, targets: Array) -> None:
        """Set constants from a sample: `scenario` (n,), `targets` (n, T) as the loss gets them, NaN = no label."""
