"""The magnitude of DoRA alone, its direction that of the base (Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.dense import dense
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.adapter.variants.beside import Beside, sizes
from llmchain_fl.core.errors import ModelError

_FACTORS = (".lora_A.weight", ".lora_B.weight")


class Magnitude(nn.Module):
    """``y -> (m / n) (y - b) + b``, n = ||W0|| row by row; dL_n/dm = sum_t g[n, t] (y[n, t] - b) / n."""

    def __init__(self, norm: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.clone())
        self.norm, self.bias = norm, bias  # no buffers: Opacus takes no layer that has some

    def forward(self, y: Tensor) -> Tensor:
        """[..., d_out] -> the same."""
        ratio = self.weight / self.norm
        return y * ratio if self.bias is None else y * ratio + self.bias * (1 - ratio)


class DoraMagnitude(Beside):
    """``W x = (m / ||W0||) * W0 x + b``; m = ||W0|| at the start, so that it is the base.

    DoRA with B A trained too is not here: its norm makes W no affine function of them, so that no average is exact.
    peft's format wants a pair of factors: one of rank 1 with B = 0 is written, and asked for when read.

    | a row of W0 | result |
    |---|---|
    | any but 0 | m its length |
    | 0 | ModelError: it has no direction |
    """

    ending = "lora_magnitude_vector"

    def part(self, layer: Any, spec: AdapterSpec) -> tuple[nn.Module, nn.Parameter]:
        """m [d_out].

        Raises:
            ModelError: a row of W0 is 0.
        """
        norm = torch.linalg.norm(dense(layer), dim=1)
        if not bool((norm > 0).all()):
            raise ModelError("a row of its weight is 0 and has no direction", remedy="name others in adapter.targets")
        bias = getattr(layer, "bias", None)
        part = Magnitude(norm, None if bias is None else bias.detach().float())
        return part, part.weight

    def config(self, names: list[str], spec: AdapterSpec, **common: Any) -> peft.PeftConfig:
        """LoRA's, of rank 1, with DoRA."""
        return peft.LoraConfig(r=1, lora_alpha=1, use_dora=True, target_modules=names, lora_dropout=0.0, **common)

    def written(self, arrays: Arrays, module: nn.Module) -> dict[str, Any]:
        """And a pair of rank 1, zeros."""
        written = super().written(arrays, module)
        for layer in [name.removesuffix(f".{self.ending}") for name in written]:
            d_out, d_in = sizes(module.get_submodule(layer))
            written |= {
                f"{layer}{_FACTORS[0]}": np.zeros((1, d_in), dtype=np.float32),
                f"{layer}{_FACTORS[1]}": np.zeros((d_out, 1), dtype=np.float32),
            }
        return written

    def read(self, tensors: Mapping[str, Any]) -> Arrays:
        """m alone.

        Raises:
            ModelError: a pair of factors that moves the direction.
        """
        if any(np.any(value) for name, value in tensors.items() if name.endswith(_FACTORS[1])):
            raise ModelError("the adapter has a direction of its own", remedy="give one of the magnitude alone")
        return super().read({name: value for name, value in tensors.items() if not name.endswith(_FACTORS)})


MAGNITUDE = DoraMagnitude()
