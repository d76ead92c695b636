"""The top-K kernel in torch, for machines with a GPU: the same result as recspark/models/topk.py, ties included.

Scores are computed and masked on the device in blocks of users. A score and its tie rank are packed into one integer,
since torch.topk does not define the order of ties. Memory on the device: the items, and 24 bytes for each score of a
block.

Shapes: U users (rows), I items (columns), F factors.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from recspark.arrays import Array

ROWS = 1024


@torch.inference_mode()
def top_k(
    queries_UF: Tensor,
    items_IF: Tensor,
    k: int,
    seen_UI: sp.csr_matrix | None = None,
    allowed: Array | None = None,
    tie_rank: Array | None = None,
    above: float = -np.inf,
    rows: int = ROWS,
) -> tuple[Array, Array]:
    """As `topk.top_k` of a product; `queries_UF` and `items_IF` float32 on one device, `allowed` bool (I,)."""
    device, num_items = items_IF.device, len(items_IF)
    ranks = np.arange(num_items) if tie_rank is None else np.asarray(tie_rank)
    first_I = torch.from_numpy(num_items - 1 - ranks.astype(np.int64)).to(device)
    column_at = np.argsort(ranks)[::-1]
    barred_I = None if allowed is None else torch.from_numpy(~allowed).to(device)
    idx = np.full((len(queries_UF), k), -1, dtype=np.int32)
    best = np.full((len(queries_UF), k), -np.inf, dtype=np.float32)
    width = min(k, num_items)
    for low in range(0, len(queries_UF) if num_items else 0, rows):
        scores_UI = queries_UF[low : low + rows] @ items_IF.T
        if barred_I is not None:
            scores_UI.masked_fill_(barred_I, -torch.inf)
        if seen_UI is not None:
            some = seen_UI[low : low + rows].tocoo()
            at = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (some.row, some.col))
            scores_UI[tuple(at)] = -torch.inf
        scores_UI.masked_fill_(~(scores_UI > above), -torch.inf)  # NaN as well
        found = torch.topk(_keys(scores_UI, first_I), width, dim=1).values
        values, place = _values(found).cpu().numpy(), (found & 0xFFFFFFFF).cpu().numpy()
        chosen = values > -np.inf
        idx[low : low + rows, :width] = np.where(chosen, column_at[place], -1)
        best[low : low + rows, :width] = np.where(chosen, values, -np.inf)
    return idx, best


def _keys(scores_UI: Tensor, first_I: Tensor) -> Tensor:
    """int64 (U, I), in the order of the scores and, among equal scores, of `first_I`."""
    bits = (scores_UI + 0.0).view(torch.int32).to(torch.int64)  # + 0: makes -0 and 0 equal
    return (_in_order(bits) << 32) | first_I


def _values(keys: Tensor) -> Tensor:
    return _in_order(keys >> 32).to(torch.int32).view(torch.float32)


def _in_order(bits: Tensor) -> Tensor:
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
