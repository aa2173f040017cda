"""The gradient of one step, private or not: the same loop calls either.

A batch is a list: for each drawn unit (a record, or a person) the numbers of its records. Both return the *sum* over
the batch of the gradient of the trained vector, float32 [P]; the caller divides by the public divisor. Both split a
batch into passes, which changes memory and not the result: every drawn record is used exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from client.per_sample import PerSample
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.clipping import clipped_sum
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import Shape, passes

LossFn = Callable[[Sequence[int]], Tensor]
OPEN_BYTES = 64 * 2**20
"""Memory for the sums of units whose records are not all added up yet."""


PLAIN: Named[Callable[..., GradientFn]] = Named({"gradient": "client.plain_gradient:PlainGradient"})
"""The step of a run without privacy."""


class GradientFn(Protocol):
    """The gradient of a step. ``unusable``: share of drawn units that could not be computed and counted as zero."""

    @property
    def unusable(self) -> float: ...

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Sum over the batch, float32 [P]."""

    def paused(self) -> AbstractContextManager[None]:
        """While it is open the model computes as usual: for passes over public records."""


class PrivateGradient:
    """DP-SGD (Abadi et al. 2016, algorithm 1), the sum before division:

        g = sum_{u in batch} g_u * min(1, C / ||g_u||)  +  N(0, (z C)^2 I),      g_u = sum_{i of u} grad loss_i

    u: a unit (a person, or one record); loss_i: record i's whole loss (task + guards), over all trained parameters.

    Guarantee, for *any* arrays and records: what u adds before the noise is a function of u's own records and of public
    constants, of norm at most C (1 + 1e-12); so one unit more or less moves the sum by at most that, and each step is a
    Poisson-subsampled Gaussian mechanism with rate q and multiplier z (``core/privacy/accounting.py``). It holds
    because every pass has a fixed shape (``core/tasks/passes.py``), a unit's rows are added up in an order of
    its own, and the units' shares are added in float64 one by one (``core/privacy/clipping.py``).

    ================================  =====================================================
    case                              result
    ================================  =====================================================
    empty batch                       noise alone; no forward pass; the step counts
    records without a shape           one record a pass, exact by itself
    a gradient not finite             that unit counts as zero
    a record whose pass raises        that unit counts as zero; its neighbours are computed without it
    a unit with more records than     its rows are added up over several passes, then clipped once
    a pass has rows
    bf16/fp16 base                    gradients of the float32 adapter, clip in float64
    noise multiplier 0                clipping only (for tests and unit ``site``)
    ================================  =====================================================

    Per-record gradients are those of ``client/per_sample.py``; anything trained that has no rule there is refused.
    Clipping, noise and sampling are ours as well: Opacus' optimizer drops penalties, takes its noise from torch's
    seedable generator and derives its divisor from the private count.

    """

    def __init__(self, resident: Resident, examples: Examples, plan: PrivacyPlan, noise: SecureNoise) -> None:
        shape = examples.shape or Shape(1, max(map(examples.length, range(len(examples))), default=1))
        examples.fix(shape)
        self._resident, self._examples, self._plan, self._noise = resident, examples, plan, noise
        self._per_sample = PerSample(resident, shape.rows)
        self._open = max(1, OPEN_BYTES // (4 * max(1, resident.trained.numel())))
        self._drawn, self._unusable = 0, 0

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Noised sum of clipped per-unit gradients, float32 [P]."""
        total = torch.zeros_like(self._resident.trained, dtype=torch.float64)
        for rows in self.some(batch, loss):
            clipped, bad = clipped_sum(rows, self._plan.clip_norm)
            self.note(bad)
            total += clipped
        return self._noise.added(total, self._plan.noise_std)

    def note(self, bad: int) -> None:
        """``bad`` units could not be computed."""
        self._unusable += bad

    def some(self, batch: Batch, loss: LossFn) -> Iterator[Tensor]:
        """The rows of the units, a few units at a time."""
        self._drawn += len(batch)
        for start in range(0, len(batch), self._open):
            yield self._rows(batch[start : start + self._open], loss)

    @property
    def size(self) -> int:
        """P: how many numbers are trained."""
        return self._resident.trained.numel()

    @property
    def unusable(self) -> float:
        """Share of the units so far that counted as zero. A private number: it must not leave the site."""
        return self._unusable / self._drawn if self._drawn else 0.0

    def _rows(self, units: Batch, loss: LossFn) -> Tensor:
        """One row a unit: the sum of the gradients of its records, float32 [len(units), P].

        A unit's records come in the order of their rungs, then of their numbers, whoever else is there.
        """
        sums = torch.zeros((len(units), self._resident.trained.numel()), device=self._resident.trained.device)
        owner = {int(record): position for position, unit in enumerate(units) for record in unit}
        for index, count in passes(self._examples, sorted(owner), len(owner)):
            for row, record in zip(self._per_record(index, count, loss), index[:count], strict=True):
                sums[owner[record]].add_(row)
        return sums

    def _per_record(self, index: Sequence[int], count: int, loss: LossFn) -> Tensor:
        """The gradients of the first ``count`` records of a pass; NaN for one whose pass raises."""
        try:
            return self._pass(index, loss)[:count]
        except Exception:
            return torch.stack([self._alone(record, len(index), loss) for record in index[:count]])

    def _alone(self, record: int, rows: int, loss: LossFn) -> Tensor:
        try:
            return self._pass([record] * rows, loss)[0].clone()
        except Exception:
            return torch.full_like(self._resident.trained, torch.nan)

    def _pass(self, index: Sequence[int], loss: LossFn) -> Tensor:
        return self._per_sample.rows(len(index), lambda: loss(index).sum().backward())  # type: ignore[no-untyped-call]

    def paused(self) -> AbstractContextManager[None]:
        """The layers' own forward passes, for as long as it is open."""
        return self._per_sample.paused()

    def close(self) -> None:
        """Leave the model as it was."""
        self._per_sample.close()


@contextmanager
def gradient_of(
    resident: Resident, examples: Examples, micro_batch: int, plan: PrivacyPlan | None
) -> Iterator[GradientFn]:
    """The gradient function of a round: private if there is a plan (in the shape of ``examples``), plain if not."""
    if plan is None:
        yield PLAIN["gradient"](resident, examples, micro_batch)
        return
    private = PrivateGradient(resident, examples, plan, SecureNoise())
    try:
        yield private
    finally:
        private.close()
