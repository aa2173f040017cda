"""The gradient of one step, private or not: the same loop calls either.

A batch is a list: for each drawn unit (a record, or a person) the numbers of its records. Both return the *sum* over
the batch of the gradient of the trained vector, float32 [P]; the caller divides by the public divisor. Both split a
batch into micro-batches, which changes memory and not the result: every drawn record is used exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from client.per_sample import PerSample
from llmchain_fl.adapter.resident import Resident
from llmchain_fl.privacy.clipping import clipped_sum
from llmchain_fl.privacy.noise import SecureNoise
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.units import Batch

LossFn = Callable[[Sequence[int]], Tensor]


class GradientFn(Protocol):
    """The gradient of a step."""

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Sum over the batch, float32 [P]."""

    def paused(self) -> AbstractContextManager[None]:
        """While it is open the model computes as usual: for passes over public records."""


def chunks(index: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """``index`` in pieces of at most ``size``."""
    for start in range(0, len(index), size):
        yield index[start : start + size]


def packs(batch: Batch, size: int) -> Iterator[Batch]:
    """``batch`` in pieces of whole units with at most ``size`` records; a larger unit is a piece of its own."""
    pack: Batch = []
    for unit in batch:
        if pack and sum(map(len, pack)) + len(unit) > size:
            yield pack
            pack = []
        pack.append(unit)
    if pack:
        yield pack


class PlainGradient:
    """g = sum_i grad loss_i. Records' losses are summed, so micro-batches add up exactly."""

    def __init__(self, resident: Resident, micro_batch: int) -> None:
        self._resident, self._micro = resident, micro_batch

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Sum of gradients; zeros for an empty batch (no forward pass)."""
        parameters = [self._resident.parameters[name] for name in self._resident.trained_names]
        total = torch.zeros_like(self._resident.trained)
        for part in chunks(_flat(batch), self._micro):
            gradients = torch.autograd.grad(loss(part).sum(), parameters)
            total += torch.cat([g.reshape(-1) for g in gradients])
        return total

    def paused(self) -> AbstractContextManager[None]:
        """Nothing to put aside."""
        return nullcontext()


class PrivateGradient:
    """DP-SGD (Abadi et al. 2016, algorithm 1), the sum before division:

        g = sum_{u in batch} g_u * min(1, C / ||g_u||)  +  N(0, (z C)^2 I),      g_u = sum_{i of u} grad loss_i

    u: a unit (a person, or one record); loss_i: record i's whole loss (task + guards), over all trained parameters.
    Guarantee: one unit more or less moves the sum before noise by at most C, however many records it has, so each step
    is a Poisson-subsampled Gaussian mechanism with rate q and multiplier z (``llmchain_fl/privacy/accounting.py``).

    ================================  =====================================================
    case                              result
    ================================  =====================================================
    empty batch                       noise alone; no forward pass; the step counts
    a gradient not finite             that unit counts as zero
    a unit with more records than     its rows are added up over several passes, then clipped once
    a micro-batch
    bf16/fp16 base                    gradients of the float32 adapter, clip in float32; one record at a time
    noise multiplier 0                clipping only (for tests and unit ``site``)
    ================================  =====================================================

    In half precision a record's gradient depends on the shape of the batch it is computed in, so on the others
    (measured: up to 0.09 C). Therefore a base in half precision takes one record a pass, whatever the micro-batch.

    Per-record gradients are those of ``client/per_sample.py``; anything trained that has no rule there is refused.
    Clipping, noise and sampling are ours as well: Opacus' optimizer drops penalties, takes its noise from torch's
    seedable generator and derives its divisor from the private count.
    """

    def __init__(self, resident: Resident, micro_batch: int, plan: PrivacyPlan, noise: SecureNoise) -> None:
        micro = micro_batch if resident.spec.base.dtype == "float32" else 1
        self._resident, self._micro, self._plan, self._noise = resident, micro, plan, noise
        self._per_sample = PerSample(resident, micro)
        self.not_finite = 0

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Noised sum of clipped per-unit gradients, float32 [P]."""
        total = torch.zeros_like(self._resident.trained)
        for pack in packs(batch, self._micro):
            clipped, bad = clipped_sum(self._rows(pack, loss), self._plan.clip_norm)
            self.not_finite += bad
            total += clipped
        return self._noise.added(total, self._plan.noise_std)

    def _rows(self, pack: Batch, loss: LossFn) -> Tensor:
        """One row a unit: the sum of the gradients of its records, float32 [len(pack), P]. Good until the next call."""
        index = _flat(pack)
        if len(index) > self._micro:  # a single large unit
            parts = [self._per_record(part, loss).sum(dim=0) for part in chunks(index, self._micro)]
            return torch.stack(parts).sum(dim=0, keepdim=True)
        rows, start = self._per_record(index, loss), 0
        for position, unit in enumerate(pack):  # in place: no unit begins before its position
            if len(unit) > 1 or start > position:
                rows[position] = rows[start : start + len(unit)].sum(dim=0)
            start += len(unit)
        return rows[: len(pack)]

    def _per_record(self, index: Sequence[int], loss: LossFn) -> Tensor:
        return self._per_sample.rows(len(index), lambda: loss(index).sum().backward())  # type: ignore[no-untyped-call]

    def paused(self) -> AbstractContextManager[None]:
        """The layers' own forward passes, for as long as it is open."""
        return self._per_sample.paused()

    def close(self) -> None:
        """Leave the model as it was."""
        self._per_sample.close()


def _flat(batch: Batch) -> list[int]:
    return [int(record) for unit in batch for record in unit]


@contextmanager
def gradient_of(resident: Resident, micro_batch: int, plan: PrivacyPlan | None) -> Iterator[GradientFn]:
    """The gradient function of a round: private if there is a plan, plain if not."""
    if plan is None:
        yield PlainGradient(resident, micro_batch)
        return
    private = PrivateGradient(resident, micro_batch, plan, SecureNoise())
    try:
        yield private
    finally:
        private.close()
