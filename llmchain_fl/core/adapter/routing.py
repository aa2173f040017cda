"""Which slot of an adapter a text is answered by: softmax of how near the text is to each stage's key.

    f(x)  = mean of the hidden states that enter the first adapted layer, over the tokens that decide
    a(x)  = softmax( cos(f(x) - c, k_i) / tau ),  i = 1 .. K
    Delta W(x) = sum_i a_i(x) s_i B_i A_i

(FCIT/DISCO, arXiv 2503.12897: "subspace selective activation"). Below the first adapted layer nothing is trained, so
f is a function of the text and the public base alone: the same at a site, at the server and in ``predict``, free, and
no later training moves it. The centre c (mean of the keys' own records) is ours: token means share a long common part,
and without it cosines hardly differ (measured: docs/log.md).

Row j of a factor belongs to a slot, so the gate acts on the rank-sized activations: ``B (a(x) * (A x))``, one multiply.

===============================  ===================================================================
case                             result
===============================  ===================================================================
no table                         nothing is gated, bit for bit
one key                          a = 1 exactly: the plain adapter
tau -> 0                         the nearest key alone
equally far from all keys        1 / K each: the mean of the slots
a forward pass outside choosing  ModelError: it would be answered by the plain sum without a word
===============================  ===================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmchain_fl.core.adapter.value import CENTRE, KEYS, TAU, is_beside
from llmchain_fl.core.by_row import by_row
from llmchain_fl.core.errors import ModelError

FOLD, PAIR = "slots.fold", "slots.pair"
"""Which stage (from 1, so that it is never the zeros of a start) each row of the fold, and of the pair, belongs to."""
_REMEDY = "take up the adapter folder, or the run, as it was written"


@dataclass(frozen=True)
class Table:
    """How to choose.

    Attributes:
        keys: K x H, unit rows, one a slot.
        centre: H, taken off every feature.
        tau: temperature, above 0.
        fold: int64 [f], the key of each row of the fold.
        pair: int64 [r], the key of each row of the pair.
    """

    keys: Tensor
    centre: Tensor
    tau: float
    fold: Tensor
    pair: Tensor


def pooled(hidden: Tensor, decide: Tensor) -> Tensor:
    """Mean over the tokens that decide. hidden [n, T, H], decide [n, T] 0/1 -> [n, H] float32."""
    weight = decide.unsqueeze(-1).to(torch.float32)
    return (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


def chosen(features: Tensor, table: Table) -> Tensor:
    """a(x), float32 [n, K], rows sum to 1. A feature that is the centre itself is equally far from all keys."""
    near = by_row(F.normalize(features - table.centre, dim=-1), table.keys)
    return torch.softmax(near / table.tau, dim=-1)


class Router:
    """Gates the slots of one model.

    Args:
        first: the first adapted transformer layer: what enters it decides.
        seconds: lora_B of every adapted layer; their inputs are the pair's activations.
        device: of the model.

    Attributes:
        table: how to choose; None: no gate.
    """

    def __init__(self, first: nn.Module, seconds: Iterable[nn.Module], device: torch.device) -> None:
        self._first, self._device = first, device
        self.table: Table | None = None
        self._decide: Tensor | None = None
        self._gates: Tensor | None = None
        self._seen: list[Tensor] | None = None
        for layer in seconds:
            layer.register_forward_pre_hook(self._gate_pair)

    def take(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """``arrays`` without those beside the adapter; with keys among them they are the table from here on.

        Raises:
            ModelError: they make no table.
        """
        if KEYS in arrays:
            self.table = self._read(arrays)
        return {name: value for name, value in arrays.items() if not is_beside(name)}

    @contextmanager
    def choosing(self, decide: Tensor) -> Iterator[None]:
        """Forward passes of these texts; the first one chooses, later ones (generation) keep to it.

        Args:
            decide: [n, T], 1 on the tokens that decide.
        """
        if self.table is None and self._seen is None:
            yield
            return
        self._decide, self._gates = decide, None
        hook = self._first.register_forward_pre_hook(self._choose, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            self._decide = self._gates = None

    @contextmanager
    def listening(self) -> Iterator[list[Tensor]]:
        """While it is open nothing is gated, and the features of each forward pass, [n, H], come into the list."""
        table, self.table, self._seen = self.table, None, []
        try:
            yield self._seen
        finally:
            self.table, self._seen = table, None

    def gate_fold(self, hidden: Tensor) -> Tensor:
        """The fold's activations [n, ..., f], weighted."""
        return hidden if self.table is None else self._weighted(hidden, self.table.fold)

    def _gate_pair(self, _layer: nn.Module, inputs: Any) -> Any:
        return None if self.table is None else (self._weighted(inputs[0], self.table.pair), *inputs[1:])

    def _choose(self, _layer: nn.Module, inputs: Any, named: Mapping[str, Any]) -> None:
        if self._gates is not None or self._decide is None:
            return
        features = pooled((inputs[0] if inputs else named["hidden_states"]).detach(), self._decide)
        if self._seen is not None:
            self._seen.append(features)
        elif self.table is not None:
            self._gates = chosen(features, self.table)

    def _weighted(self, hidden: Tensor, rows: Tensor) -> Tensor:
        gates = self._gates
        if gates is None:
            raise ModelError("the adapter chooses among slots, and no text was named", remedy="compute within choosing")
        if hidden.shape[-1] != len(rows) or hidden.shape[0] != len(gates):
            fault = f"activations of shape {tuple(hidden.shape)} for {len(gates)} texts and {len(rows)} rows of slots"
            raise ModelError(fault, remedy=_REMEDY)
        weight = gates[:, rows].view(len(gates), *[1] * (hidden.ndim - 2), len(rows))
        return hidden * weight.to(hidden.dtype)

    def _read(self, arrays: Mapping[str, Any]) -> Table:
        keys, centre, tau, pair = (np.array(arrays.get(name, ()), np.float32) for name in (KEYS, CENTRE, TAU, PAIR))
        fold = np.array(arrays.get(FOLD, ()), np.float32)
        good = keys.ndim == 2 and centre.shape == keys.shape[1:] and tau.size == 1 and float(tau.flat[0]) > 0
        if not good or not all(np.isfinite(part).all() for part in (keys, centre, tau)):
            raise ModelError(f"the keys of the slots have the shapes {keys.shape}, {centre.shape}", remedy=_REMEDY)
        for rows in (fold, pair):
            if rows.ndim != 1 or not np.isin(rows, np.arange(1, len(keys) + 1)).all():
                raise ModelError(f"a row belongs to a slot without a key (there are {len(keys)})", remedy=_REMEDY)
        made = [torch.from_numpy(rows.astype(np.int64) - 1).to(self._device) for rows in (fold, pair)]
        vectors = [torch.from_numpy(part).to(self._device) for part in (keys, centre)]
        return Table(vectors[0], vectors[1], float(tau.flat[0]), made[0], made[1])
