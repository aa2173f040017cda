"""What may stand beside an adapter's factors: frozen second pairs (``fold.py``), a choice among slots (``routing.py``).

Neither is loaded, and no hook of it is there, before a task brings one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.value import is_beside, is_fold
from llmchain_fl.core.plugins import Named

if TYPE_CHECKING:
    from llmchain_fl.core.adapter.fold import Fold, Pairs
    from llmchain_fl.core.adapter.routing import Router, Table

FOLD: Named[type[Fold]] = Named({"fold": "llmchain_fl.core.adapter.fold:Fold"})
ROUTER: Named[type[Router]] = Named({"router": "llmchain_fl.core.adapter.routing:Router"})


class Beside:
    """Fold and choice of slots of one model.

    Args:
        layers: module path -> adapted layer.
        first: the first adapted transformer layer.
        device: of the model.
    """

    def __init__(self, layers: Mapping[str, Any], first: nn.Module, device: torch.device) -> None:
        self._layers, self._first, self._device = layers, first, device

    @functools.cached_property
    def router(self) -> Router:
        """The choice among slots."""
        seconds = [layer.lora_B[name] for layer in self._layers.values() for name in layer.lora_B]
        return ROUTER["router"](self._first, seconds, self._device)

    @functools.cached_property
    def fold(self) -> Fold:
        """The frozen second pairs."""
        sizes = {path: (layer, layer.out_features, layer.in_features) for path, layer in self._layers.items()}
        return FOLD["fold"](sizes, self._device, self.router.gate_fold)

    @property
    def state(self) -> tuple[Pairs, Table | None]:
        """Copies of what is there: the pairs, and the table by which a text chooses."""
        made = vars(self)
        return (dict(self.fold.pairs) if "fold" in made else {}), (self.router.table if "router" in made else None)

    @state.setter
    def state(self, parts: tuple[Pairs, Table | None]) -> None:
        pairs, table = parts
        if pairs or "fold" in vars(self):
            self.fold.pairs = dict(pairs)
        if table is not None or "router" in vars(self):
            self.router.table = table

    def take(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """``arrays`` without those that stand beside the factors; they hold from here on.

        Raises:
            ModelError: half a pair, or what makes no table.
        """
        if any(map(is_beside, arrays)):
            arrays = self.router.take(arrays)
        if any(map(is_fold, arrays)):
            self.fold.pairs = self.fold.read(arrays)
        return {name: value for name, value in arrays.items() if not is_fold(name)}

    def choosing(self, decide: Tensor) -> AbstractContextManager[None]:
        """Forward passes of texts that choose by the tokens ``decide`` [n, T]."""
        return self.router.choosing(decide) if "router" in vars(self) else nullcontext()
