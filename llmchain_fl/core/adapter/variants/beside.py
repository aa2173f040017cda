"""The half of a variant that is in the model: trained parts beside frozen layers, and what peft reads of them.

A part is put on a layer by a hook and a child module, so the layer stays the base's own whatever class it is of:
linear, GPT-2's Conv1D, or one of 4 or 8 bits. Trained numbers are float32, whatever the base is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import peft
from torch import Tensor, nn

from llmchain_fl.core.adapter.peft_model import UNDO, target_modules
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.errors import ModelError

CHILD = "trained_part"


def sizes(layer: Any) -> tuple[int, int]:
    """(d_out, d_in) of a linear layer or a Conv1D."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    d_in, d_out = layer.weight.shape
    return d_out, d_in


class Half(ABC):
    """How a variant is attached to a base and written for peft; one value for each, without state."""

    def layers(self, module: nn.Module, spec: AdapterSpec) -> list[str]:
        """The names of the layers that are adapted."""
        return target_modules(module, spec)

    @abstractmethod
    def attach(self, module: nn.Module, spec: AdapterSpec) -> dict[str, nn.Parameter]:
        """Our name -> parameter, float32 and as the base is; each changed layer gets ``undo_variant``.

        Raises:
            ModelError: a layer that it cannot adapt.
        """

    @abstractmethod
    def config(self, names: list[str], spec: AdapterSpec, **common: Any) -> peft.PeftConfig:
        """peft's configuration of it."""

    def written(self, arrays: Arrays, module: nn.Module) -> dict[str, Any]:
        """Our arrays -> peft's tensors, by their names without its prefix."""
        return {name: np.ascontiguousarray(value) for name, value in arrays.items() if not name.startswith("head.")}

    def read(self, tensors: Mapping[str, Any]) -> Arrays:
        """The other way."""
        return {name: value.astype(np.float32) for name, value in tensors.items()}


class Beside(Half):
    """A half whose trained part stands behind each layer.

    Attributes:
        ending: of its array of a layer; peft's tensor of it has the same name.
    """

    ending: str

    @abstractmethod
    def part(self, layer: Any, spec: AdapterSpec) -> tuple[nn.Module, nn.Parameter]:
        """The part of one layer, and its trained parameter at the start.

        Raises:
            ModelError: the layer cannot have one.
        """

    def applied(self, part: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """What the layer gives with its part: x its input, y its own output, both float32."""
        return part(y)  # type: ignore[no-any-return]

    def attach(self, module: nn.Module, spec: AdapterSpec) -> dict[str, nn.Parameter]:
        """Put the parts on."""
        parameters = {}
        for name in self.layers(module, spec):
            layer = module.get_submodule(name)
            try:
                part, parameter = self.part(layer, spec)
            except ModelError as error:
                raise ModelError(f"{name}: {error.what}", remedy=error.remedy) from error
            self._put_on(layer, part.to(next(layer.parameters()).device))
            parameters[f"{name}.{self.ending}"] = parameter
        return parameters

    def _put_on(self, layer: nn.Module, part: nn.Module) -> None:
        layer.add_module(CHILD, part)

        def after(_layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return self.applied(part, inputs[0].float(), output.float()).to(output.dtype)

        handle = layer.register_forward_hook(after)

        def undo() -> None:
            handle.remove()
            delattr(layer, CHILD)

        vars(layer)[UNDO] = undo
