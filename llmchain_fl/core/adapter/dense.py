"""The frozen weights of linear layers, as matrices of ordinary numbers: public, like everything of the base."""

from __future__ import annotations

from typing import Any

from peft.utils.integrations import dequantize_bnb_weight
from torch import Tensor

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.adapter.value import Array


def dense(layer: Any) -> Tensor:
    """The weight of a linear layer as d_out x d_in, float32: a Conv1D stores it transposed, few bits stand for it."""
    weight: Tensor = layer.weight.detach()
    if not weight.is_floating_point():
        weight = dequantize_bnb_weight(layer.weight, state=getattr(layer, "state", None)).detach()
    weight = weight.float()
    return weight.T if type(layer).__name__ == "Conv1D" else weight


def frozen_weight(resident: Resident, path: str) -> Array:
    """W0 of the adapted layer ``path``, float32 [d_out, d_in]."""
    layer: Any = resident.base.module.get_submodule(path)
    return dense(layer.get_base_layer()).cpu().numpy().copy()
