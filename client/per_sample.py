"""The gradient of each record by itself, for linear layers, in one backward pass.

For y = W x + b with records n = 1 .. N and g = dL/dy:

    dL_n / dW = sum_t g[n, t] x[n, t]^T          dL_n / db = sum_t g[n, t]

(Goodfellow 2015, arXiv 1510.01799). The FLOPs are those of the batch gradient, as a batched product; the batch gradient
itself is never computed. All rows are written straight into one buffer [N, P], so clipping is one norm pass and one
matrix-vector product. LoRA's factors are linear layers of their own, so this rule is all an adapter needs.

Opacus' hooks compute the same (the tests compare), beside the batch gradient and with a copy of every row; what that
costs and what this does stands in docs/log.md (benchmarks/bench_private_step.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.by_row import by_row
from llmchain_fl.core.errors import TrainingError


class _Linear(torch.autograd.Function):
    """A linear layer that hands (input, gradient of the output) to ``take`` instead of computing its own gradients.

    ``anchor`` is a scalar that asks for a gradient: without it, nothing would flow back to the lowest adapted layer.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, weight: Tensor, bias: Tensor | None, take: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.take = take
        if x.dim() > 2:
            return F.linear(x, weight, bias)
        return by_row(x, weight) if bias is None else by_row(x, weight) + bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, weight = ctx.saved_tensors
        ctx.take(x.detach(), g)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        return (g @ weight if g.dim() > 2 else by_row(g, weight.T)), None, None, None, None


class PerSample:
    """Per-record gradients of a resident's trained parameters, as rows of one buffer.

    Between ``__init__`` and ``close`` the trained linear layers compute theirs here; the rest is as it was. Records
    must stand along the first dimension of every layer, as in every model of transformers that takes a batch.

    Raises:
        TrainingError: a trained parameter is no weight or bias of a linear layer: it has no rule.
    """

    def __init__(self, resident: Resident, most: int) -> None:
        self._names, self._most = resident.trained_names, most
        self._buffer = torch.empty((most, resident.trained.numel()), device=resident.trained.device)
        self._anchor = torch.zeros((), device=resident.trained.device, requires_grad=True)
        self._rows = self._buffer[:0]
        self._fresh: set[str] = set()
        self._patched: list[nn.Linear] = []
        places, start = {}, 0
        for name in self._names:
            parameter = resident.parameters[name]
            places[id(parameter)] = (name, start, start + parameter.numel())
            start += parameter.numel()
        missing = set(self._names)
        for module in resident.module.modules():
            if isinstance(module, nn.Linear):
                weight, bias = places.get(id(module.weight)), places.get(id(module.bias))
                if weight or bias:
                    self._patch(module, weight, bias)
                    missing -= {place[0] for place in (weight, bias) if place}
        if missing:
            self.close()
            raise TrainingError(
                f"{min(missing)} has no per-example gradient", remedy="adapt linear layers only, or switch privacy off"
            )

    def rows(self, count: int, backward: Callable[[], None]) -> Tensor:
        """float32 [count, P]: what ``backward`` (forward and backward pass of ``count`` records) gives each record.

        A view of the buffer: used before the next call.

        Raises:
            TrainingError: a layer was not run, or does not hold the records along its first dimension.
        """
        if count > self._most:
            raise TrainingError(f"{count} records in one pass, at most {self._most}", remedy="lower train.micro_batch")
        self._rows, self._fresh = self._buffer[:count], set(self._names)
        backward()
        if self._fresh:
            raise TrainingError(
                f"{min(self._fresh)} got no gradient", remedy="adapt layers that every record passes through"
            )
        return self._rows

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The layers' own forward passes, for as long as it is open."""
        ours = [(module, module.forward) for module in self._patched]
        for module, _ in ours:
            del module.forward
        try:
            yield
        finally:
            for module, forward in ours:
                module.forward = forward  # type: ignore[method-assign]

    def close(self) -> None:
        """Give the layers their own forward pass back."""
        for module in self._patched:
            del module.forward
        self._patched = []

    def _patch(self, module: nn.Linear, weight: Any, bias: Any) -> None:
        def take(x: Tensor, g: Tensor) -> None:
            if x.shape[0] != len(self._rows):
                raise TrainingError(
                    f"a layer holds {x.shape[0]} rows for {len(self._rows)} records",
                    remedy="this model mixes records inside a layer; it cannot be trained privately",
                )
            x = x.reshape(x.shape[0], -1, x.shape[-1]).float()
            g = g.reshape(g.shape[0], -1, g.shape[-1]).float()
            if weight:
                self._put(weight, _products(g, x))
            if bias:
                self._put(bias, g.sum(dim=1))

        def forward(x: Tensor) -> Tensor:
            return _Linear.apply(x, self._anchor, module.weight.detach(), _detached(module.bias), take)  # type: ignore[no-any-return, no-untyped-call]

        module.forward = forward  # type: ignore[method-assign, assignment]
        self._patched.append(module)

    def _put(self, place: tuple[str, int, int], gradient: Tensor) -> None:
        """First use of a layer in a pass writes, a second one (a layer that is run twice) adds."""
        name, start, stop = place
        here = self._rows[:, start:stop]
        if name in self._fresh:
            here.copy_(gradient.reshape(len(here), -1))
            self._fresh.discard(name)
        else:
            here.add_(gradient.reshape(len(here), -1))


def _products(g: Tensor, x: Tensor) -> Tensor:
    """sum_t g[n, t] x[n, t]^T, [n, d_out, d_in]; the shorter side first, which is up to five times faster."""
    if g.shape[2] <= x.shape[2]:
        return torch.bmm(g.transpose(1, 2), x)
    return torch.bmm(x.transpose(1, 2), g).transpose(1, 2)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()
