"""What every retriever is told of the items beside the events."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Catalogue:
    """`num_items` and `num_scenarios` bound item_idx and scenario_idx, events or not; `content_ID` float32
    (num_items, D): what an item is about, a row of zeros where unknown; None where nobody knows."""

    num_items: int
    num_scenarios: int
    content_ID: np.ndarray | None = None
