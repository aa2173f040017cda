"""The local loop of one round, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from client.gradients import gradient_of
from llmchain_fl.adapter.value import Arrays
from llmchain_fl.continual.guards import SiteGuards
from llmchain_fl.errors import TrainingError
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.units import Batch
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.work import TrainSpec

Optimizers = Mapping[str, Callable[[Tensor, float, float], torch.optim.Optimizer]]

OPTIMIZERS: Optimizers = MappingProxyType(
    {
        "adam": lambda theta, lr, momentum: torch.optim.Adam([theta], lr=lr, betas=(momentum, 0.999)),
        "sgd": lambda theta, lr, momentum: torch.optim.SGD([theta], lr=lr, momentum=momentum),
    }
)


@dataclass(frozen=True)
class LocalResult:
    """What local training did. Only ``arrays`` may go to the outbox; the rest is for the site's own eyes."""

    arrays: Arrays
    steps: int
    records: int
    tokens: int


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
    resident = task.resident

    def loss(index: Sequence[int]) -> Tensor:
        output = task.forward(examples, index)
        return task.losses(output) + guards.example_loss(task, examples, index, output)

    theta = torch.nn.Parameter(resident.trained)
    start = resident.trained.clone()
    optimizer = OPTIMIZERS[spec.optimizer](theta, lr, spec.momentum)
    steps, records, tokens = 0, 0, 0
    per_unit = plan if plan is not None and plan.unit != "site" else None
    with gradient_of(resident, spec.micro_batch, per_unit) as gradient:
        for drawn in batches:
            batch = sorted(drawn, key=lambda unit: max(map(examples.length, unit)))  # like lengths together
            theta.grad = gradient(batch, loss) / spec.batch_size
            optimizer.step()
            index = [int(record) for unit in batch for record in unit]
            steps, records, tokens = steps + 1, records + len(index), tokens + examples.tokens(index)
    _check_moved(resident.trained, start, records, noised=per_unit is not None and per_unit.is_private)
    return LocalResult(resident.arrays(resident.trained_names), steps, records, tokens)


def _check_moved(now: Tensor, start: Tensor, records: int, *, noised: bool) -> None:
    """An adapter that did not move, or is not finite, must not pass for a trained one."""
    moved = float((now - start).double().norm())
    if not math.isfinite(moved):
        raise TrainingError("the adapter is not finite after local training", remedy="lower train.lr")
    if moved == 0.0 and (records > 0 or noised):
        raise TrainingError("local training changed no parameter", remedy="check adapter.targets and train.lr")
