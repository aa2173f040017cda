"""Lockstep: a site's part of one step that all sites take together. The server takes the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from client.gradients import LossFn, PrivateGradient, gradient_of
from client.step import Strength, guarded, loss_of
from client.training import LocalResult
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec

if TYPE_CHECKING:
    from llmchain_fl.core.privacy.integers import Integers

SHARED: Named[Callable[[PrivateGradient, Batch, LossFn, PrivacyPlan], Integers]] = Named(
    {"sum": "client.shared_noise:integer_sum"}
)
"""The sum where noise is shared; imported when a plan says so."""


def gradient_sum(
    task: Task,
    examples: Examples,
    batches: Iterable[Batch],
    spec: TrainSpec,
    plan: PrivacyPlan | None,
    guards: SiteGuards,
    lr: float,
    loss: LossFn | None = None,
) -> LocalResult:
    """The direction of one step, ``u_k = -(g_k / b + p)``, as arrays of the trained names.

    g_k: sum over the drawn batch of the units' gradients at the global adapter; with a plan each is clipped, and the
    sum noised (``client/gradients.py``). b: ``batch_size``, a public constant. p: what guards add after the noise, a
    function of released and public values. The server takes one optimiser step along the mean of the u_k
    (``llmchain_fl/aggregation/lockstep.py``): for any split of the units over the sites the same step.

    Where noise is shared it is ``-g_k`` as integers (``client/shared_noise.py``), without p: guards that add a
    gradient of their own are refused before round 1.

    ``lr`` is not used: no step is taken here, so the adapter in memory stays the global one. ``loss``: another one than
    the task's and the guards' (``client/class_sums.py``).

    ==================================  ===============================================================
    case                                result
    ==================================  ===============================================================
    empty batch, no plan                zeros
    empty batch, private plan           the noise alone
    more than one batch                 :class:`TrainingError`: a second gradient would be at the same place
    unit ``site``                       the plain sum; the outbox clips the whole of it
    a sum that is not finite            :class:`TrainingError`
    ==================================  ===============================================================
    """
    resident, loss = task.resident, loss or loss_of(task, examples, guards)
    per_unit = plan if plan is not None and plan.unit != "site" else None
    (batch,) = _only(list(batches))
    strength = Strength()
    index = [int(row) for unit in batch for row in unit]
    count = examples.records_in(index)
    with gradient_of(resident, examples, spec.micro_batch, per_unit) as gradient:
        if per_unit is not None and per_unit.is_shared and isinstance(gradient, PrivateGradient):
            integers = -SHARED["sum"](gradient, batch, loss, per_unit)
            return LocalResult({}, 1, count, examples.tokens(index), unusable=gradient.unusable, integers=integers)
        step = gradient(batch, loss) / spec.batch_size
        with gradient.paused():
            step = guarded(task, guards, step, strength)
        unusable = gradient.unusable
    if not bool(step.isfinite().all()):
        raise TrainingError("the gradient of the round is not finite", remedy="lower train.lr, or clip")
    flat, start = -step.cpu().numpy(), 0
    arrays: Arrays = {}
    for name in resident.trained_names:
        size = resident.parameters[name].numel()
        arrays[name] = np.ascontiguousarray(flat[start : start + size].reshape(resident.shapes[name]))
        start += size
    return LocalResult(arrays, 1, count, examples.tokens(index), strength.penalty, unusable=unusable, direct=True)


def _only(batches: list[Batch]) -> list[Batch]:
    if len(batches) != 1:
        raise TrainingError(f"{len(batches)} batches in a lockstep round", remedy="set train.steps = 1")
    return batches
