"""The gradient of each record by itself in one backward pass: the rule of linear layers, and where all rules write to.

For y = W x + b with records n = 1 .. N and g = dL/dy:

    dL_n / dW = sum_t g[n, t] x[n, t]^T          dL_n / db = sum_t g[n, t]

(Goodfellow 2015, arXiv 1510.01799). The FLOPs are those of the batch gradient, as a batched product; the batch gradient
itself is never computed. All rows are written straight into one buffer [N, P], so clipping is one norm pass and one
matrix-vector product. LoRA's factors are linear layers of their own, so this rule is all such an adapter needs; other
trained layers (norms, scales) have Opacus' rules (``client/other_layers.py``), in the same pass and the same buffer.

Which of its rows are whose a layer does not say. With one record in a pass all are its own, whatever their order. With
more, records stand along the first dimension, or as ``resident.layouts`` says, which ``client/steady.py`` has found by
comparing with autograd, one record at a time:

=============  ===============================  ========================================================
layout         input of a layer                 for instance
=============  ===============================  ========================================================
(none)         [N, ..., d]                      nearly every layer
``flat``       [N T, d], record after record    OPT, the shared expert of Qwen2-MoE
``second``     [T, N, d]                        XLNet, Longformer
=============  ===============================  ========================================================

Opacus' hooks compute the same (the tests compare), beside the batch gradient and with a copy of every row; what that
costs and what this does stands in docs/log.md (benchmarks/bench_private_step.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.by_row import by_row
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.plugins import Named

FLAT, SECOND = "flat", "second"
LAYOUTS = ("", FLAT, SECOND)


class _Linear(torch.autograd.Function):
    """A linear layer that hands (input, gradient of the output) to ``take`` instead of computing its own gradients.

    ``anchor`` is a scalar that asks for a gradient: without it, nothing would flow back to the lowest adapted layer.
    ``alone``: each record has one row.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, weight: Tensor, bias: Tensor | None, take: Callable[..., None], alone: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.take, ctx.alone = take, alone
        if not alone:
            return F.linear(x, weight, bias)
        return by_row(x, weight) if bias is None else by_row(x, weight) + bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, weight = ctx.saved_tensors
        ctx.take(x.detach(), g)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None
        return (by_row(g, weight.T) if ctx.alone else g @ weight), None, None, None, None, None


OTHERS: Named[Callable[..., Callable[[Tensor], Tensor]]] = Named({"forward": "client.other_layers:tapped"})
"""Trained layers that are not linear; loaded where there is one."""


class PerSample:
    """Per-record gradients of a resident's trained parameters, as rows of one buffer.

    Between ``__init__`` and ``close`` the trained layers compute theirs here; the rest is as it was.

    Raises:
        TrainingError: a trained parameter belongs to a layer that has no rule.
    """

    def __init__(self, resident: Resident, most: int) -> None:
        self._names, self._most = resident.trained_names, most
        self._buffer = torch.empty((most, resident.trained.numel()), device=resident.trained.device)
        self._anchor = torch.zeros((), device=resident.trained.device, requires_grad=True)
        self._rows, self._layouts = self._buffer[:0], resident.layouts
        self._fresh: set[str] = set()
        self.mixed: set[str] = set()
        self._patched: list[nn.Module] = []
        self.slices: dict[str, slice] = {}
        places, start = {}, 0
        for name in self._names:
            parameter = resident.parameters[name]
            places[id(parameter)] = name
            self.slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        try:
            missing = set(self._names) - self._take_over(resident.module, places)
        except TrainingError:
            self.close()
            raise
        if missing:
            self.close()
            raise TrainingError(
                f"{min(missing)} has no per-example gradient", remedy="adapt other layers, or switch privacy off"
            )

    def _take_over(self, whole: nn.Module, places: Mapping[int, str]) -> set[str]:
        """Replace the forward pass of every layer with trained parameters of its own; the arrays that these are."""
        replaced: set[str] = set()
        for module in list(whole.modules()):
            names = {key: places[id(p)] for key, p in module.named_parameters(recurse=False) if id(p) in places}
            if isinstance(module, nn.Linear) and names:
                self._patch(module, names.get("weight"), names.get("bias"))
            elif names:
                self._tap(module, {places[id(p)]: p for p in module.parameters(recurse=False) if id(p) in places})
            replaced |= set(names.values())
        return replaced

    def rows(self, count: int, backward: Callable[[], None]) -> Tensor:
        """float32 [count, P]: what ``backward`` (forward and backward pass of ``count`` records) gives each record.

        A view of the buffer: used before the next call. A layer that no record passes (an expert that none was sent
        to) has gradient zero.

        Raises:
            TrainingError: a layer does not hold its records as its layout says.
        """
        rows = self.computed(count, backward)
        if self.mixed:
            raise TrainingError(
                f"{min(self.mixed)}: its layer does not hold {count} records as it did with made-up ones",
                remedy="take one record a pass (compute.rows = 1), or leave the layer out of adapter.targets",
            )
        return rows

    def computed(self, count: int, backward: Callable[[], None]) -> Tensor:
        """The same; arrays whose layers do not hold the records so are named in ``mixed`` and hold no numbers.

        Raises:
            TrainingError: more records than the buffer holds.
        """
        if count > self._most:
            raise TrainingError(f"{count} records in one pass, at most {self._most}", remedy="lower train.micro_batch")
        self._rows, self._fresh, self.mixed = self._buffer[:count], set(self._names), set()
        backward()
        for name in self._fresh:
            self._rows[:, self.slices[name]] = 0.0
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
                module.forward = forward

    def close(self) -> None:
        """Give the layers their own forward pass back."""
        for module in self._patched:
            del module.forward
        self._patched = []

    def _patch(self, module: nn.Linear, weight: str | None, bias: str | None) -> None:
        names = [name for name in (weight, bias) if name]

        def take(x: Tensor, g: Tensor) -> None:
            pair = self._apart(names, x, g)
            if pair is None:
                return
            inputs, slopes = pair
            if weight:
                self._put(weight, _products(slopes, inputs))
            if bias:
                self._put(bias, slopes.sum(dim=1))

        def forward(x: Tensor) -> Tensor:
            alone = x.dim() == 2 and len(x) == len(self._rows)
            return _Linear.apply(x, self._anchor, module.weight.detach(), _detached(module.bias), take, alone)  # type: ignore[no-any-return, no-untyped-call]

        module.forward = forward  # type: ignore[method-assign, assignment]
        self._patched.append(module)

    def _tap(self, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        """The same for a layer that is not linear."""

        def apart(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor] | None:
            return self._apart([*parameters], x, g)

        module.forward = OTHERS["forward"](module, parameters, self._anchor, apart, self._put)
        self._patched.append(module)

    def _apart(self, names: Sequence[str], x: Tensor, g: Tensor) -> tuple[Tensor, Tensor] | None:
        """Input and gradient of a layer of the arrays ``names``, by records; None where they cannot be told apart."""
        layout = self._layouts.get(names[0], "")
        inputs, slopes = (_by_record(part, len(self._rows), layout) for part in (x, g))
        if inputs is None or slopes is None:
            self.mixed |= set(names)
            return None
        return inputs, slopes

    def _put(self, name: str, gradient: Tensor) -> None:
        """First use of a layer in a pass writes, a second one (a layer that is run twice) adds."""
        here = self._rows[:, self.slices[name]]
        if name in self._fresh:
            here.copy_(gradient.reshape(len(here), -1))
            self._fresh.discard(name)
        else:
            here.add_(gradient.reshape(len(here), -1))


def _by_record(values: Tensor, count: int, layout: str) -> Tensor | None:
    """Rows of a layer -> float32 [count, rows of a record, d]; None where they do not stand as ``layout`` says.

    ==================================  ==============================
    case                                result
    ==================================  ==============================
    one record                          all rows, whatever the layout
    no layout, first dimension differs  None
    ``flat``, rows not divisible        None
    ``second``, not [T, N, d]           None
    ids of tokens, int64 [N, ...]       int64 [count, T]; None in another layout
    ==================================  ==============================
    """
    if not values.is_floating_point():
        return values.reshape(count, -1) if not layout and len(values) == count else None
    width = values.shape[-1]
    rows = values.numel() // width
    if layout == SECOND and count > 1:
        return values.float().transpose(0, 1) if values.dim() == 3 and values.shape[1] == count else None
    if count > 1 and (rows % count if layout == FLAT else len(values) != count):
        return None
    return values.float().reshape(count, -1, width)


def _products(g: Tensor, x: Tensor) -> Tensor:
    """sum_t g[n, t] x[n, t]^T, [n, d_out, d_in]; the shorter side first, which is up to five times faster."""
    if g.shape[2] <= x.shape[2]:
        return torch.bmm(g.transpose(1, 2), x)
    return torch.bmm(x.transpose(1, 2), g).transpose(1, 2)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()
