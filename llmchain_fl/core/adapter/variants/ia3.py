"""IA3: the outputs of a layer times one trained number each (Liu et al. 2022, arXiv 2205.05638)."""

from __future__ import annotations

from typing import Any

import peft
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.adapter.variants.beside import Beside, sizes


class Scale(nn.Module):
    """``y -> l * y``; dL_n/dl = sum_t g[n, t] * y[n, t]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, 1))

    def forward(self, y: Tensor) -> Tensor:
        """[..., d_out] -> the same."""
        return y * self.weight.flatten()


class Ia3(Beside):
    """``W x = l * (W0 x + b)``, the bias included, as in peft; l = 1 at the start.

    Where we differ: the paper scales the inputs of the second feed-forward layer; here every target's outputs.
    """

    ending = "ia3_l"

    def part(self, layer: Any, spec: AdapterSpec) -> tuple[nn.Module, nn.Parameter]:
        """l [d_out, 1]."""
        part = Scale(sizes(layer)[0])
        return part, part.weight

    def config(self, names: list[str], spec: AdapterSpec, **common: Any) -> peft.PeftConfig:
        """No layer is scaled at its input."""
        return peft.IA3Config(target_modules=names, feedforward_modules=[], **common)


IA3 = Ia3()
