"""Several adapters over one base in one batch: the factors are stacked once, and each row of a pass takes its own.

    y_n = W0 x_n + s_k B_k A_k x_n,   k = adapter of row n

A layer's factors stand in A [K, r, d_in] and B [K, d_out, r], the scale in B, a smaller rank filled up with zeros. A
padded pass gathers A[k_n] and B[k_n] and adds two products a layer (LoRAX and vLLM do the same on a GPU); a packed one
(``packed.py``) adds them for the tokens of one adapter after the other. Number 0 is the bare base, for what belongs to
no adapter (label texts): no request can name it.

====================================================  =======================================
case                                                  result
====================================================  =======================================
a layer that an adapter does not change               zeros: the row passes as in the base
a layer that no adapter changes                       no product at all
a pass outside ``Bank.rows`` and ``Bank.segments``    ModelError: never the base in silence
a layer that does not keep the rows apart             ModelError
====================================================  =======================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.base_model import Base
from llmchain_fl.core.errors import ModelError

BARE = 0
"""The number of the base without an adapter."""
_OTHER = "serve an adapter of this base model"


@dataclass(frozen=True)
class Factors:
    """The LoRA factors of one adapter. ``arrays``: by our names, heads left out; ``scale``: s = alpha / rank."""

    arrays: Arrays
    scale: float

    def paths(self) -> set[str]:
        """Layers that it changes."""
        return {name.removesuffix(".lora_A") for name in self.arrays if name.endswith(".lora_A")}

    @property
    def moves(self) -> bool:
        """Whether some product B A is not 0."""
        return any(
            bool(self.arrays[f"{path}.lora_A"].any() and self.arrays[f"{path}.lora_B"].any()) for path in self.paths()
        )


@dataclass(frozen=True)
class Segment:
    """The tokens of one adapter in a packed pass, from ``start`` to before ``end``."""

    adapter: int
    start: int
    end: int


class Bank:
    """The adapters of one base, as many as were given; numbers from 1 in their order.

    Args:
        base: bare, as :func:`~llmchain_fl.core.base_model.load_base` gives it.
        held: the adapters.

    Raises:
        ModelError: a layer that the base does not have, or factors that do not fit it.
    """

    def __init__(self, base: Base, held: Sequence[Factors]) -> None:
        self.base, self.count = base, len(held)
        self._index: Tensor | None = None
        self._segments: Sequence[Segment] = ()
        self._hooks = []
        modules = dict(base.module.named_modules())
        for path in sorted(set().union(*(one.paths() for one in held)) if held else ()):
            if path not in modules:
                raise ModelError(f"the base has no layer {path}", remedy=_OTHER)
            first, second = _stack(path, modules[path], held)
            pair = (first.to(base.device), second.to(base.device))
            self._hooks.append(modules[path].register_forward_hook(self._hook(path, *pair)))

    @contextmanager
    def rows(self, numbers: Sequence[int]) -> Iterator[None]:
        """Passes of rows of these adapters, and of no other number of rows."""
        self._index = torch.tensor(list(numbers), device=self.base.device)
        try:
            yield
        finally:
            self._index = None

    @contextmanager
    def segments(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Passes of one row of tokens, which these segments cover."""
        self._segments = segments
        try:
            yield
        finally:
            self._segments = ()

    def close(self) -> None:
        """Leave the base as it was."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, path: str, first: Tensor, second: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def add(_layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            index, x, packed = self._index, inputs[0], self._segments
            if packed and x.dim() == 3 and x.shape[:2] == (1, packed[-1].end):
                return _in_segments(x[0], output, first, second, packed)
            if index is None or x.dim() != 3 or len(x) != len(index):
                what = f"the layer {path} was given {tuple(x.shape)} for {0 if index is None else len(index)} rows"
                raise ModelError(what, remedy="this architecture does not keep rows apart: serve it one by one")
            hidden = torch.bmm(x.float(), first[index].transpose(1, 2))
            return torch.baddbmm(output.float(), hidden, second[index].transpose(1, 2)).to(output.dtype)

        return add


def _in_segments(x: Tensor, output: Tensor, first: Tensor, second: Tensor, segments: Sequence[Segment]) -> Tensor:
    """``output`` [1, T, d_out] with the product of each segment's adapter added to its tokens ``x`` [T, d_in]."""
    for one in segments:
        if one.adapter != BARE:
            hidden = x[one.start : one.end].float() @ first[one.adapter].t()
            part = output[0, one.start : one.end]
            part.copy_(torch.addmm(part.float(), hidden, second[one.adapter].t()))
    return output


def _stack(path: str, layer: nn.Module, held: Sequence[Factors]) -> tuple[Tensor, Tensor]:
    """A [K + 1, r, d_in] and B [K + 1, d_out, r] of one layer, scales in B; row 0 is zeros."""
    pairs = [(one.arrays.get(f"{path}.lora_A"), one.arrays.get(f"{path}.lora_B")) for one in held]
    d_out, d_in = _sizes(layer)
    rank = max((len(first) for first, _ in pairs if first is not None), default=1)
    left = np.zeros((len(held) + 1, rank, d_in), dtype=np.float32)
    right = np.zeros((len(held) + 1, d_out, rank), dtype=np.float32)
    for number, ((first, second), one) in enumerate(zip(pairs, held, strict=True), 1):
        if first is None and second is None:
            continue
        if first is None or second is None or first.shape[1:] != (d_in,) or second.shape != (d_out, len(first)):
            raise ModelError(f"factors of {path} do not fit a layer of {d_out} x {d_in}", remedy=_OTHER)
        left[number, : len(first)] = first
        right[number, :, : len(first)] = one.scale * second
    return torch.from_numpy(left), torch.from_numpy(right)


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """(d_out, d_in); a Conv1D stores its weight transposed."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ModelError(f"a {type(layer).__name__} has no matrix to adapt", remedy=_OTHER)
    rows, columns = weight.shape
    return (columns, rows) if type(layer).__name__ == "Conv1D" else (rows, columns)


def factors_of(arrays: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], scale: float) -> Factors:
    """Those among ``arrays``; a head is none."""
    kept = {name: value for name, value in arrays.items() if name.endswith((".lora_A", ".lora_B"))}
    return Factors(kept, scale)
