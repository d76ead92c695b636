"""What every retriever is told of the items beside the events."""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array


@dataclass(frozen=True)
class Catalogue:
    """`num_items` and `num_scenarios` bound item_idx and scenario_idx, events or not; `content_ID` float32
    (num_items, D): what an item is about, a row of zeros where unknown; None where nobody knows. `content_parts`: how
    many of the D numbers are whose, encoder by encoder; () where one gave all."""

    num_items: int
    num_scenarios: int
    content_ID: Array | None = None
    content_parts: tuple[int, ...] = ()

    def parts(self) -> list[Array]:
        """Of each encoder float32 (num_items, D_p), zeros where it has nothing to say of an item."""
        if self.content_ID is None:
            return []
        return (
            np.split(self.content_ID, np.cumsum(self.content_parts)[:-1], axis=1)
            if self.content_parts
            else [self.content_ID]
        )
