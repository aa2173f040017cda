"""The local loop of one round, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from client.gradients import gradient_of
from client.step import Strength, guarded, loss_of
from client.training import LocalResult
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec

Optimizers = Mapping[str, Callable[[Tensor, float, float], torch.optim.Optimizer]]

OPTIMIZERS: Optimizers = MappingProxyType(
    {
        "adam": lambda theta, lr, momentum: torch.optim.Adam([theta], lr=lr, betas=(momentum, 0.999)),
        "sgd": lambda theta, lr, momentum: torch.optim.SGD([theta], lr=lr, momentum=momentum),
    }
)


def train_round(
    task: Task,
    examples: Examples,
    batches: Iterable[Batch],
    spec: TrainSpec,
    plan: PrivacyPlan | None,
    guards: SiteGuards,
    lr: float,
) -> LocalResult:
    """One round at one site: for each drawn batch, the (private) gradient sum, divided by the public divisor, one step.

    The resident must hold the global adapter; afterwards it holds the site's. ``batches``: one for each step, empty
    ones included. With unit ``site`` the loop is the plain one: the whole update is clipped later, by the outbox.

    Raises:
        TrainingError: no such learning rate, the adapter is not finite afterwards, or nothing moved although records
            were drawn.
    """
    if not (math.isfinite(lr) and lr >= 0):
        raise TrainingError(f"the learning rate is {lr!r}", remedy="train.lr must be a finite number above 0")
    resident, loss = task.resident, loss_of(task, examples, guards)
    theta = torch.nn.Parameter(resident.trained)
    start = resident.trained.clone()
    optimizer = OPTIMIZERS[spec.optimizer](theta, lr, spec.momentum)
    steps, records, tokens, strength = 0, 0, 0, Strength()
    stepped, pushed = False, not guards.restricts
    per_unit = plan if plan is not None and plan.unit != "site" else None
    with gradient_of(resident, examples, spec.micro_batch, per_unit) as gradient:
        for batch in batches:
            step = gradient(batch, loss) / spec.batch_size
            pushed = pushed or bool(step.any())
            with gradient.paused():
                theta.grad = guarded(task, guards, step, strength)
            before = resident.trained.clone()
            optimizer.step()
            after = resident.trained.clone()
            stepped = stepped or not torch.equal(before, after)
            guards.pull(task, lr)
            proximal(resident.trained, start, lr * spec.proximal)
            strength.pulled(before, after, resident.trained)
            index = [int(record) for unit in batch for record in unit]
            steps, records, tokens = steps + 1, records + examples.records_in(index), tokens + examples.tokens(index)
        unusable = gradient.unusable
    noised = per_unit is not None and per_unit.is_private
    check_moved(resident.trained, start, stepped, expected=pushed and records > 0 and not noised)
    means = strength.penalty / max(1, steps), strength.pull / max(1, steps)
    return LocalResult(resident.arrays(resident.trained_names), steps, records, tokens, *means, unusable)


def proximal(theta: Tensor, start: Tensor, strength: float) -> None:
    """``theta <- (theta + m start) / (1 + m)`` in place, m = ``strength`` = learning rate x mu.

    The proximal step of mu/2 ||theta - start||^2 (FedProx, Li et al. 2020, arXiv 1812.06127, eq. 2): the site stays
    near the global adapter. It reads no record and follows the noise. Where we differ: the paper adds the term to the
    local loss; as a gradient through Adam its strength would depend on the task's gradients, and mu > 1 / lr diverges.

    ==============  =====================
    case            result
    ==============  =====================
    m = 0           theta, bit for bit
    m -> infinity   start
    ==============  =====================
    """
    if strength > 0:
        theta.add_(start - theta, alpha=strength / (1.0 + strength))


def check_moved(now: Tensor, start: Tensor, stepped: bool, *, expected: bool) -> None:
    """An adapter in which no step was taken, or that is not finite, must not pass for a trained one.

    Guards may take every step back; that is no fault. With noise a step is taken anyway, whatever the records are.
    """
    if not math.isfinite(float((now - start).double().norm())):
        raise TrainingError("the adapter is not finite after local training", remedy="lower train.lr")
    if expected and not stepped:
        raise TrainingError("local training changed no parameter", remedy="check adapter.targets and train.lr")
