"""MiSS: one matrix for all pieces of the input (Kang & Yin 2024, arXiv 2409.15371)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import peft
from torch import Tensor, nn
from torch.nn import functional as F

from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.adapter.variants.beside import Beside, sizes
from llmchain_fl.core.errors import ModelError


class Pieces(nn.Module):
    """``x -> M^T (x_1 + x_2 + ..)``: a linear layer on the sum of the pieces of x, r entries each."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__()
        self.rank, self.spare = rank, -d_in % rank
        self.block = nn.Linear(rank, d_out, bias=False)
        nn.init.zeros_(self.block.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]."""
        pieces = F.pad(x, (0, self.spare)).reshape(*x.shape[:-1], -1, self.rank)
        return self.block(pieces.sum(dim=-2))  # type: ignore[no-any-return]


class Miss(Beside):
    """``W = W0 + [M^T M^T ..]``, M [r, d_out], r = ``adapter.rank``; M = 0 at the start. ``adapter.alpha`` is unused.

    As many numbers as ffa trains with the same rank, and no second factor: an average is exact. Ours is M^T [d_out, r],
    a linear layer, so that its per-record gradient is that of every linear layer.
    """

    ending = "miss_block"

    def part(self, layer: Any, spec: AdapterSpec) -> tuple[nn.Module, nn.Parameter]:
        """M^T [d_out, r].

        Raises:
            ModelError: a rank above d_in.
        """
        d_out, d_in = sizes(layer)
        if spec.rank > d_in:
            raise ModelError(f"rank {spec.rank} is more than its {d_in} inputs", remedy="lower adapter.rank")
        part = Pieces(d_in, d_out, spec.rank)
        (weight,) = part.parameters()
        return part, weight

    def applied(self, part: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """y + M^T (x_1 + x_2 + ..)."""
        return y + part(x)  # type: ignore[no-any-return]

    def config(self, names: list[str], spec: AdapterSpec, **common: Any) -> peft.PeftConfig:
        """One block for all outputs."""
        return peft.MissConfig(r=spec.rank, miss_dropout=0.0, bias="none", target_modules=names, **common)

    def written(self, arrays: Arrays, module: nn.Module) -> dict[str, Any]:
        """M is the transpose of ours."""
        return {name: np.ascontiguousarray(value.T) for name, value in super().written(arrays, module).items()}

    def read(self, tensors: Mapping[str, Any]) -> Arrays:
        """And back."""
        return {name: np.ascontiguousarray(value.T) for name, value in super().read(tensors).items()}


MISS = Miss()
