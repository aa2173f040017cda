"""A linear layer whose rows do not know each other: the same bits for a row wherever it stands in a batch.

A matrix product of few rows ([n, d] x [d, k], one row a record) is computed in blocks of rows by most libraries, and a
row at an edge of a block is rounded in another order than one inside: by 1e-7, which arrays of 1e38 turn into anything.
Here each row is a product of its own. Layers over tokens hold many rows of each record, in blocks of a like size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def by_row(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` [n, d], ``weight`` [k, d] -> x weight^T, [n, k], row by row; of [n, T, d] a product for each n."""
    wide = weight.T.expand(len(x), -1, -1)
    return torch.bmm(x, wide) if x.dim() == 3 else torch.bmm(x.unsqueeze(1), wide).squeeze(1)


class RowLinear(nn.Linear):
    """``nn.Linear`` over one row a record."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, d], or [n, T, d]."""
        result = by_row(x, self.weight)
        return result if self.bias is None else result + self.bias
