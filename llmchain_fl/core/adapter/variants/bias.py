"""Bias: one trained number added to each output of a layer (BitFit, Ben Zaken et al. 2022, arXiv 2106.10199)."""

from __future__ import annotations

from typing import Any

import peft
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.adapter.variants.beside import Beside, sizes
from llmchain_fl.core.errors import ModelError


class Shift(nn.Module):
    """``y -> y + c``; dL_n/dc = sum_t g[n, t]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, size))

    def forward(self, y: Tensor) -> Tensor:
        """[..., d_out] -> the same."""
        return y + self.weight.flatten()


class Bias(Beside):
    """``W x = W0 x + b + c``, also where the layer has no b; c = 0 at the start. peft's format is that of BEFT."""

    ending = "beft_bias"

    def part(self, layer: Any, spec: AdapterSpec) -> tuple[nn.Module, nn.Parameter]:
        """c [1, d_out].

        Raises:
            ModelError: a Conv1D, which peft's format does not know.
        """
        if not isinstance(layer, nn.Linear):
            raise ModelError(
                f'peft cannot write adapter.variant = "bias" of a {type(layer).__name__}', remedy="use another variant"
            )
        part = Shift(sizes(layer)[0])
        return part, part.weight

    def config(self, names: list[str], spec: AdapterSpec, **common: Any) -> peft.PeftConfig:
        """BEFT's."""
        return peft.BeftConfig(target_modules=names, **common)


BIAS = Bias()
