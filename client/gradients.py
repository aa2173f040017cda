"""The gradient of one step, private or not: the same loop calls either.

Both return the *sum* over the drawn records of the gradient of the trained vector, float32 [P]; the caller divides by
the public divisor. Both split a batch into micro-batches, which changes memory and not the result: every drawn record
is used exactly once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor

from llmchain_fl.adapter.resident import Resident
from llmchain_fl.errors import TrainingError
from llmchain_fl.privacy.clipping import clipped_sum
from llmchain_fl.privacy.noise import SecureNoise
from llmchain_fl.privacy.plan import PrivacyPlan

LossFn = Callable[[Sequence[int]], Tensor]
GradientFn = Callable[[Sequence[int], LossFn], Tensor]


def chunks(index: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """``index`` in pieces of at most ``size``."""
    for start in range(0, len(index), size):
        yield index[start : start + size]


class PlainGradient:
    """g = sum_i grad loss_i. Records' losses are summed, so micro-batches add up exactly."""

    def __init__(self, resident: Resident, micro_batch: int) -> None:
        self._resident, self._micro = resident, micro_batch

    def __call__(self, index: Sequence[int], loss: LossFn) -> Tensor:
        """Sum of gradients; zeros for an empty batch (no forward pass)."""
        parameters = [self._resident.parameters[name] for name in self._resident.trained_names]
        total = torch.zeros_like(self._resident.trained)
        for part in chunks(index, self._micro):
            gradients = torch.autograd.grad(loss(part).sum(), parameters)
            total += torch.cat([g.reshape(-1) for g in gradients])
        return total


class PrivateGradient:
    """DP-SGD (Abadi et al. 2016, algorithm 1), the sum before division:

        g = sum_{i in batch} g_i * min(1, C / ||g_i||)  +  N(0, (z C)^2 I)

    g_i: gradient of record i's whole loss (task + guards) over all trained parameters together.
    Guarantee: one record more or less moves the sum before noise by at most C, so each step is a Poisson-subsampled
    Gaussian mechanism with rate q and multiplier z (``llmchain_fl/privacy/accounting.py``).

    ==========================  =====================================================
    case                        result
    ==========================  =====================================================
    empty batch                 noise alone; no forward pass; the step counts
    a gradient not finite       that record counts as zero
    bf16/fp16 base              gradients of the float32 adapter; clip and noise in float32
    noise multiplier 0          clipping only (for tests; epsilon is infinite)
    ==========================  =====================================================

    Per-example gradients come from Opacus' hooks on the trained linear layers (``lora_A``, ``lora_B``, the head);
    anything trained that has no rule there is refused. Clipping, noise and sampling are ours: Opacus' optimizer
    drops penalties, takes its noise from torch's seedable generator and derives its divisor from the private count.
    """

    def __init__(self, resident: Resident, micro_batch: int, plan: PrivacyPlan, noise: SecureNoise) -> None:
        self._resident, self._micro, self._plan, self._noise = resident, micro_batch, plan, noise
        self._hooks = GradSampleHooks(resident.module, batch_first=True, loss_reduction="sum", strict=False)
        self.not_finite = 0

    def __call__(self, index: Sequence[int], loss: LossFn) -> Tensor:
        """Noised sum of clipped per-record gradients, float32 [P]."""
        total = torch.zeros_like(self._resident.trained)
        for part in chunks(index, self._micro):
            loss(part).sum().backward()  # type: ignore[no-untyped-call]
            clipped, bad = clipped_sum(self._collect(len(part)), self._plan.clip_norm)
            self.not_finite += bad
            total += clipped
        return total + self._noise.sample(total.numel(), self._plan.noise_std).to(total.device)

    def _collect(self, count: int) -> Tensor:
        """Per-example gradients of the last backward pass, [count, P], and none left behind.

        Raises:
            TrainingError: a trained parameter got none (its layer has no rule).
        """
        rows = []
        for name in self._resident.trained_names:
            parameter = self._resident.parameters[name]
            grad = getattr(parameter, "grad_sample", None)
            if not isinstance(grad, Tensor) or grad.shape[0] != count:
                raise TrainingError(
                    f"{name} has no per-example gradient", remedy="adapt linear layers only, or switch privacy off"
                )
            rows.append(grad.reshape(count, -1))
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
        return torch.cat(rows, dim=1)

    def close(self) -> None:
        """Take the hooks off the model, and what an interrupted step left in it: Opacus would go on with it."""
        self._hooks.remove_hooks()
        for part in self._resident.module.modules():
            for leftover in ("activations", "max_batch_len"):
                if leftover in vars(part):
                    delattr(part, leftover)
        for parameter in self._resident.parameters.values():
            parameter.grad = None
            for leftover in ("grad_sample", "_current_grad_sample", "_forward_counter"):
                if leftover in vars(parameter):
                    delattr(parameter, leftover)


@contextmanager
def gradient_of(resident: Resident, micro_batch: int, plan: PrivacyPlan | None) -> Iterator[GradientFn]:
    """The gradient function of a round: private if there is a plan, plain if not."""
    if plan is None:
        yield PlainGradient(resident, micro_batch)
        return
    private = PrivateGradient(resident, micro_batch, plan, SecureNoise())
    with warnings.catch_warnings():
        # The lowest adapted layer's input needs no gradient, and that of its output is all that is asked for.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        try:
            yield private
        finally:
            private.close()
