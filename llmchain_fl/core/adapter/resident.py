"""One base model in memory, one adapter attached to it, its arrays swapped in place.

All adapter (and head) parameters are views of one flat vector ``theta``: the trained ones first. A site's step, a
clip, a noise draw and a swap of adapters are then each one operation on one tensor.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter import peft_model
from llmchain_fl.core.adapter.beside import Beside
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays, fresh_arrays, is_trained
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.base_model import Base, BaseSpec, layer_stack, load_base
from llmchain_fl.core.by_row import RowLinear
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.plugins import Named

if TYPE_CHECKING:
    from llmchain_fl.core.adapter.fold import Fold, Pairs
    from llmchain_fl.core.adapter.routing import Router, Table
    from llmchain_fl.core.frozen_prefix import FrozenPrefix

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.base import Task
    from llmchain_fl.core.tasks.spec import TaskSpec

BASE = b"base"
"""Below the head there is the base alone: Delta W = 0, whatever lora_A is."""
PREFIX: Named[type[FrozenPrefix]] = Named({"prefix": "llmchain_fl.core.frozen_prefix:FrozenPrefix"})
"""Imported where layers below the first adapted one can be remembered, and memory for it is allowed."""


@dataclass(frozen=True)
class ResidentSpec:
    """Everything that decides the shape of what is in memory. ``head_size``: labels of a trained head, 0 for none;
    ``features``: random ones that it is given beside the base's; ``vectors``: how many of these it is given."""

    base: BaseSpec
    adapter: AdapterSpec
    head_size: int = 0
    cache_mb: int = 512
    features: int = 0
    vectors: int = 1


@dataclass(frozen=True)
class State:
    """A whole adapter in memory: all parameters, float32 [P] in the resident's order, the fold, the choice of slots."""

    theta: Tensor
    pairs: Pairs
    table: Table | None = None


class Resident:
    """A base with an adapter attached; use ``load_resident`` to get one.

    Attributes:
        module: base (and head), in training mode, dropout off.
        theta: float32 [P], all adapter parameters; the first ``trained_size`` are trained.
        shapes: array name -> shape, in the order of ``theta``.
        found: what was found out about this very model by trying, for as long as it is in memory.
        tasks: those that were opened over it, each with the start of its head.
        layouts: trained array -> how the inputs of its layer hold the records, if not along the first dimension.
        prefix: what remembers the outputs of frozen layers below the first adapted one; None: there is nothing to.
    """

    def __init__(self, spec: ResidentSpec, base: Base) -> None:
        self.spec, self.base = spec, base
        self.peft_config = peft_model.config_for(base.module, spec.adapter, base.public_name)
        parameters = peft_model.attach(base.module, spec.adapter)
        self._start = {} if VARIANTS[spec.adapter.variant].product else _values(parameters)
        width = base.hidden_size * spec.vectors + spec.features
        self.head = RowLinear(width, spec.head_size) if spec.head_size else None
        if self.head is not None:
            self.head.to(base.device)
            parameters |= {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        parts = {"base": base.module} if self.head is None else {"base": base.module, "head": self.head}
        self.module = nn.ModuleDict(parts)
        self.module.train()
        self.head_start: Arrays = {}
        self.found: dict[object, object] = {}
        self.tasks: dict[TaskSpec, tuple[Task, Arrays]] = {}
        self._below = b""
        self.layouts: dict[str, str] = {}
        self._lay_out(parameters, spec.adapter.trained)
        self._layers = peft_model.lora_layers(base.module)
        stack = layer_stack(base.module)[1]
        first = len(stack) - spec.adapter.last_layers if spec.adapter.last_layers else 0
        self.beside = Beside(self._layers, stack[first], base.device)
        self.prefix: FrozenPrefix | None = None
        self.reset()
        if first and spec.cache_mb and not base.two_stacks:  # a decoder's layers are given more than hidden states
            self.prefix = PREFIX["prefix"](base.module, first, spec.cache_mb, base.remembered)
            self.prefix.prove()

    @property
    def router(self) -> Router:
        """The choice among slots."""
        return self.beside.router

    @property
    def fold(self) -> Fold:
        """The frozen second pairs."""
        return self.beside.fold

    def focus(self, trained: tuple[str, ...]) -> None:
        """Train these factors from here (endings, as in the spec; heads always): the values of all arrays stay.

        A rule may train A in one round and B in the next; what was taken of ``theta`` before is not valid any more.

        Raises:
            ModelError: a factor that the spec does not train.
        """
        if not set(trained) <= set(self.spec.adapter.trained):
            raise ModelError(f"{', '.join(trained)} cannot be trained here", remedy="run the same version everywhere")
        if trained != self._trained:
            values = self.arrays()
            self._lay_out(self.parameters, trained)
            self.load(values)

    def _lay_out(self, parameters: Mapping[str, nn.Parameter], trained: tuple[str, ...]) -> None:
        self._trained = trained
        self._origin: tuple[Arrays, Tensor] | None = None
        names = sorted(parameters, key=lambda name: (not is_trained(name, trained), name))
        self.shapes = {name: tuple(parameters[name].shape) for name in names}
        self.trained_names = tuple(name for name in names if is_trained(name, trained))
        sizes = [parameters[name].numel() for name in names]
        self.theta = torch.zeros(sum(sizes), dtype=torch.float32, device=self.base.device)
        self.trained_size = sum(parameters[name].numel() for name in self.trained_names)
        self.parameters = {name: parameters[name] for name in names}
        start = 0
        for name, size in zip(names, sizes, strict=True):
            parameter = parameters[name]
            parameter.data = self.theta[start : start + size].view(parameter.shape)
            parameter.requires_grad_(is_trained(name, trained))
            start += size

    @property
    def trained(self) -> Tensor:
        """View of the trained part of ``theta``."""
        return self.theta[: self.trained_size]

    @property
    def below_head(self) -> bytes:
        """Names what lies below the head, as it is now: equal names give a text the same features.

        Empty where they move: something below the head is trained, or there is a fold or a choice of slots.
        """
        moves, (pairs, table) = any(not name.startswith("head.") for name in self.trained_names), self.beside.state
        if moves or not self.trained_names or pairs or table is not None:
            return b""
        if not self._below:
            frozen = self.theta[self.trained_size :].cpu().numpy()
            moved = bool(self._start) or any(
                bool(value.any()) for name, value in self.parameters.items() if name.endswith((".lora_B", ".lora_R"))
            )
            self._below = hashlib.sha256(frozen.tobytes()).digest() if moved else BASE
        return self._below

    def fresh(self) -> Arrays:
        """The start of the adapter (a public function of names, shapes, seed, base, and the task's start of a head)."""
        return fresh_arrays(self.shapes, self.spec.adapter.seed) | self._start | self.head_start

    @property
    def bare(self) -> Tensor:
        """The ``theta`` under which the base is as it is."""
        zeros = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        parts = [torch.from_numpy(value).reshape(-1) for value in (zeros | self._start).values()]
        return torch.cat(parts).to(self.theta.device)

    def reset(self) -> None:
        """Back to the start: the base as it is."""
        self.beside.state, self._below = ({}, None), b""
        if self._origin is None or self._origin[0] is not self.head_start:
            self.load(self.fresh())
            self._origin = self.head_start, self.theta.clone()  # every round at every simulated site begins here
        self.theta.copy_(self._origin[1])

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Copy arrays in; names that are not given keep their value. The pairs of a fold come all or none, as does the
        table by which a text chooses among slots.

        Raises:
            ModelError: an unknown name or another shape.
        """
        arrays = self.beside.take(arrays)
        for name, value in arrays.items():
            if self.shapes.get(name) != tuple(value.shape):
                raise ModelError(
                    f"adapter array {name} has shape {tuple(value.shape)}, the model wants {self.shapes.get(name)}",
                    remedy="the adapter belongs to another base model, rank or label list",
                )
        self._below = b""
        with torch.no_grad():
            for name, value in arrays.items():
                source = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, dtype=np.float32))
                self.parameters[name].data.copy_(source)

    def arrays(self, names: Sequence[str] | None = None) -> Arrays:
        """Copies of the current arrays (all of them by default, without the fold)."""
        wanted = self.shapes if names is None else names
        return {name: self.parameters[name].detach().cpu().numpy().copy() for name in wanted}

    def state(self) -> State:
        """The whole adapter as it is now, to be put back by :meth:`swapped`."""
        return State(self.theta.clone(), *self.beside.state)

    def state_of(self, arrays: Mapping[str, Any]) -> State:
        """The whole adapter that ``arrays`` laid over the start would be; the present one stays."""
        with self.swapped(self.state()):
            self.reset()
            self.load(arrays)
            return self.state()

    @contextmanager
    def swapped(self, state: State | Tensor) -> Iterator[None]:
        """Compute with another adapter, then put the present one back. A bare vector ``theta`` has no fold."""
        keep, other = self.state(), state if isinstance(state, State) else State(state, {})
        self._below = b""
        self.theta.copy_(other.theta)
        self.beside.state = other.pairs, other.table
        try:
            yield
        finally:
            self._below = b""
            self.theta.copy_(keep.theta)
            self.beside.state = keep.pairs, keep.table

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        store: dict[int, Tensor],
        index: Sequence[int],
        decide: Tensor | None = None,
        *,
        fixed: bool = False,
        said: Tensor | None = None,
    ) -> Any:
        """The base's output for texts ``index``; ``store`` is the caller's store of frozen outputs.

        ``decide`` [n, T]: the tokens by which a text chooses among slots; None: all of it. ``fixed``: whether every
        pass over these texts has one shape (``tasks/passes.py``). ``said``: what a decoder behind an encoder has said.
        """
        with self.beside.choosing(mask if decide is None else decide):
            if self.prefix is not None and self.prefix.enabled:
                return self.prefix.run(ids, mask, store, index, fixed=fixed)
            extra = {} if said is None else {"decoder_input_ids": said}
            return self.base.module(input_ids=ids, attention_mask=mask, **extra)


def load_resident(spec: ResidentSpec) -> Resident:
    """The resident of this process: the same spec gives the same object; another spec replaces its adapter.

    Raises:
        ModelError: the base cannot be loaded or the adapter does not fit it; the adapter before it is gone then.
    """
    try:
        return _resident(spec)
    except BaseException:
        _resident.cache_clear()
        raise


@functools.lru_cache(maxsize=1)
def _resident(spec: ResidentSpec) -> Resident:
    base = load_base(spec.base)
    peft_model.detach(base.module)
    return Resident(spec, base)


def _values(parameters: Mapping[str, nn.Parameter]) -> Arrays:
    return {name: parameter.detach().cpu().numpy().copy() for name, parameter in parameters.items()}
