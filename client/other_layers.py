"""The gradient of each record by itself for trained layers that are not linear, by Opacus' rules.

Opacus keeps a rule for each of torch's layers (LayerNorm, RMSNorm, Embedding, Conv1d ...; ``register_grad_sampler``);
any other layer, such as an architecture's own norm, is differentiated record by record with ``torch.func``
(``opacus.grad_sample.functorch``), which reads nothing but the layer's own forward pass.

====================================  ==========================================================
layer                                 rule
====================================  ==========================================================
linear                                ``client/per_sample.py``; never comes here
of a class that Opacus has            Opacus' rule
one of these without a bias           ``torch.func``: Opacus' rules ask every parameter
of another class                      ``torch.func``
with buffers (batch statistics)       :class:`TrainingError`: records of a batch meet there
====================================  ==========================================================

Which records the rows of an input belong to is asked as for linear layers, and tried beside autograd before anybody
pays (``client/layouts.py``): so a rule that fits a layer badly is found out, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from torch import Tensor, nn

from llmchain_fl.core.errors import TrainingError

Apart = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | None]
"""Input and gradient of the output of a pass -> the same by records; None where these cannot be told."""
Rule = Callable[[Tensor, Tensor], Mapping[nn.Parameter, Tensor]]
"""Input [N, T, d] and gradient of the output [N, T, k], float32 -> parameter: its gradient for each record [N, ...]."""


def rule_of(layer: nn.Module) -> Rule:
    """The rule of a layer, made before its forward pass is replaced.

    Raises:
        TrainingError: there is none.
    """
    registered: Any = GradSampleHooks.GRAD_SAMPLERS.get(type(layer))
    if registered is not None and all(value is not None for value in layer._parameters.values()):
        return lambda x, g: registered(layer, [x], g)
    try:
        prepare_layer(layer)
    except NotImplementedError as error:
        raise TrainingError(
            f"a {type(layer).__name__} has no per-example gradient", remedy="adapt other layers, or switch privacy off"
        ) from error
    compute = vars(layer).pop("ft_compute_sample_grad")

    def differentiated(x: Tensor, g: Tensor) -> Mapping[nn.Parameter, Tensor]:
        vars(layer)["ft_compute_sample_grad"] = compute
        try:
            gradients: Mapping[nn.Parameter, Tensor] = ft_compute_per_sample_gradient(layer, [x], g)
        finally:
            del vars(layer)["ft_compute_sample_grad"]
        return gradients

    return differentiated


class _Tap(torch.autograd.Function):
    """The identity; hands the gradient that comes back to ``take``. ``anchor``: see ``client/per_sample.py``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor, take: Callable[[Tensor], None]) -> Tensor:
        ctx.take = take
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.take(grads[0])
        return grads[0], None, None


def tapped(
    layer: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    anchor: Tensor,
    apart: Apart,
    put: Callable[[str, Tensor], None],
) -> Callable[[Tensor], Tensor]:
    """The layer's own forward pass with its parameters as constants; behind it each record's gradient is ``put``.

    Args:
        layer: with trained parameters of its own.
        parameters: these, by the names of their arrays.
        anchor: asks for a gradient.
        apart: tells records apart.
        put: takes the name of an array and its gradients [N, ...].

    Raises:
        TrainingError: the layer has no rule.
    """
    rule, own = rule_of(layer), layer.forward

    def take(x: Tensor, g: Tensor) -> None:
        pair = apart(x, g)
        if pair is None:
            return
        with torch.enable_grad():
            gradients = rule(*pair)
        for name, parameter in parameters.items():
            put(name, gradients[parameter].detach())

    def forward(x: Tensor) -> Tensor:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        try:
            y = own(x)
        finally:
            for parameter in parameters.values():
                parameter.requires_grad_(True)
        return _Tap.apply(y, anchor, lambda g: take(x.detach(), g))  # type: ignore[no-any-return, no-untyped-call]

    return forward
