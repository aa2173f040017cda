"""Layer norm: gain and shift of the normalisations in the layers (Zhao et al. 2023, arXiv 2312.11420)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import peft
from torch import nn

from llmchain_fl.core.adapter.peft_model import UNDO, chosen_layers
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.adapter.variants.beside import Half

_FIELDS = {"weight": "ln_weight", "bias": "ln_bias"}
_THEIRS = ".ln_tuning_layers."


def is_norm(part: nn.Module) -> bool:
    """A normalisation of any architecture: called so, with a gain of one number a feature, and nothing inside."""
    weight = part._parameters.get("weight")
    return "norm" in type(part).__name__.lower() and weight is not None and weight.dim() == 1 and not [*part.children()]


class Norms(Half):
    """``g * x^ + h`` with g, h trained in place, from the base's; x^ is the normalised input, which no array moves.

    | normalisation | trained |
    |---|---|
    | LayerNorm | g and h |
    | RMSNorm (of torch or of an architecture), LayerNorm without a shift | g |
    | one of half precision | in float32; what it gives has the base's type again |
    """

    def layers(self, module: nn.Module, spec: AdapterSpec) -> list[str]:
        """All of them in the layers, or those that ``adapter.targets`` names."""
        return chosen_layers(module, spec, is_norm, "normalisation")

    def attach(self, module: nn.Module, spec: AdapterSpec) -> dict[str, nn.Parameter]:
        """New parameters in the place of the base's."""
        parameters = {}
        for name in self.layers(module, spec):
            layer = module.get_submodule(name)
            for field, parameter in _in_float32(layer).items():
                parameters[f"{name}.{_FIELDS[field]}"] = parameter
        return parameters

    def config(self, names: list[str], spec: AdapterSpec, **common: Any) -> peft.PeftConfig:
        """LN tuning."""
        return peft.LNTuningConfig(target_modules=names, **common)

    def written(self, arrays: Arrays, module: nn.Module) -> dict[str, Any]:
        """peft's names."""
        written = {}
        for name, value in super().written(arrays, module).items():
            layer, _, ending = name.rpartition(".")
            written[f"{layer}{_THEIRS}{ending.removeprefix('ln_')}"] = value
        return written

    def read(self, tensors: Mapping[str, Any]) -> Arrays:
        """Ours."""
        return {name.replace(_THEIRS, ".ln_"): value.astype(np.float32) for name, value in tensors.items()}


def _in_float32(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Field -> its new parameter, until ``layer.undo_variant()``."""
    base = {field: value for field, value in layer._parameters.items() if value is not None and field in _FIELDS}
    dtype = next(iter(base.values())).dtype
    made = {field: nn.Parameter(value.detach().float().clone()) for field, value in base.items()}
    layer._parameters.update(made)
    hooks = (
        layer.register_forward_pre_hook(lambda _layer, inputs: (inputs[0].float(), *inputs[1:])),
        layer.register_forward_hook(lambda _layer, _inputs, output: output.to(dtype)),
    )

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        layer._parameters.update(base)

    vars(layer)[UNDO] = undo
    return made


NORMS = Norms()
