"""What every retriever is given about the items, beside the events."""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array


@dataclass(frozen=True)
class Catalogue:
    """The items and scenarios that exist, and the content embeddings of the items.

    `num_items` and `num_scenarios`: item_idx and scenario_idx are below these, whether they have events or not.
    `content_ID`: float32 (num_items, D), a row of zeros for an item without content; None if no item has any.
    `content_parts`: how many of the D numbers each encoder made, in order; () if all are one encoder's.
    """

    num_items: int
    num_scenarios: int
    content_ID: Array | None = None
    content_parts: tuple[int, ...] = ()

    def parts(self) -> list[Array]:
        """The embeddings of each encoder, float32 (num_items, D_p), zeros where it has none for the item."""
        if self.content_ID is None:
            return []
        if not self.content_parts:
            return [self.content_ID]
        return np.split(self.content_ID, np.cumsum(self.content_parts)[:-1], axis=1)
