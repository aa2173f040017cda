"""The fold: a second, frozen pair of factors beside the trained one, for what earlier rounds or stages left behind.

    y = W0 x + s B (R) A x + fold_B (fold_A x)

Its scale is 1, its rank may change from round to round; so it is no parameter, but added by a hook behind each adapted
layer. Adding it to W0 instead would round a base in half precision, and could not be taken back exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.value import FOLD_A, FOLD_B, is_fold
from llmchain_fl.core.errors import ModelError

Pairs = dict[str, tuple[Tensor, Tensor]]


class Fold:
    """The fold of all adapted layers of one model.

    Args:
        layers: module path -> (the adapted layer, d_out, d_in).
        device: of the model.
        gate: a fold's hidden activations [n, ..., f] -> the same weighted (``Router.gate_fold``).

    Attributes:
        pairs: module path -> (fold_A [f, d_in], fold_B [d_out, f]), float32; layers without a fold are not in it.
    """

    def __init__(
        self,
        layers: Mapping[str, tuple[nn.Module, int, int]],
        device: torch.device,
        gate: Callable[[Tensor], Tensor],
    ) -> None:
        self._shapes = {path: (d_out, d_in) for path, (_, d_out, d_in) in layers.items()}
        self._device, self._gate = device, gate
        self.pairs: Pairs = {}
        for path, (layer, _, _) in layers.items():
            layer.register_forward_hook(self._hook(path))

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def add(_layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            pair = self.pairs.get(path)
            if pair is None:
                return None
            hidden = self._gate(nn.functional.linear(inputs[0].float(), pair[0]))
            return (output.float() + nn.functional.linear(hidden, pair[1])).to(output.dtype)

        return add

    def read(self, arrays: Mapping[str, Any]) -> Pairs:
        """The pairs among ``arrays``, as tensors on the model's device.

        Raises:
            ModelError: half a pair, an unknown module, or shapes that do not fit.
        """
        paths = sorted({name.rpartition(".")[0] for name in arrays if is_fold(name)})
        return {path: self._pair(path, arrays) for path in paths}

    def _pair(self, path: str, arrays: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        right, left = (arrays.get(f"{path}.{ending}") for ending in (FOLD_A, FOLD_B))
        d_out, d_in = self._shapes.get(path, (0, 0))
        if right is None or left is None or right.shape[1:] != (d_in,) or left.shape != (d_out, right.shape[0]):
            raise ModelError(
                f"the fold of {path} does not fit the model ({d_out} x {d_in})",
                remedy="the adapter belongs to another base model or other targets",
            )
        made = (torch.from_numpy(np.array(part, dtype=np.float32)).to(self._device) for part in (right, left))
        return next(made), next(made)

    def arrays(self) -> dict[str, Any]:
        """The pairs as named float32 arrays."""
        arrays = {}
        for path, (right, left) in self.pairs.items():
            arrays[f"{path}.{FOLD_A}"] = right.cpu().numpy().copy()
            arrays[f"{path}.{FOLD_B}"] = left.cpu().numpy().copy()
        return arrays
