"""What every way to learn in a round shares: the loss, what guards add to a step, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec


@dataclass(frozen=True)
class LocalResult:
    """What local training did. Only ``arrays`` may go to the outbox; the rest is for the site's own eyes."""

    arrays: Arrays
    steps: int
    records: int
    tokens: int
    penalty: float = 0.0
    """Mean over steps of what guards changed of the (noised) task gradient, as a share of its length."""
    pull: float = 0.0
    """Mean over steps of how far guards pulled back, as a share of the optimiser's step."""
    unusable: float = 0.0
    """With privacy at the site: share of drawn units whose records could not be computed and counted as zero."""
    direct: bool = False
    """Whether ``arrays`` are the update itself (``lockstep``), and not the trained adapter."""
    integers: NDArray[np.int64] | None = None
    """In place of ``arrays`` where noise is shared: the update with this site's share of it, int64 [P]."""


Train = Callable[[Task, Examples, Iterable[Batch], TrainSpec, PrivacyPlan | None, SiteGuards, float], LocalResult]
"""One of ``rounds.LOOPS``, or in a simulation without privacy a loop of the user's own."""


def loss_of(task: Task, examples: Examples, guards: SiteGuards) -> Callable[[Sequence[int]], Tensor]:
    """Rows -> what each adds to its record's loss, float32 [n]: the task's, and what guards add to it."""

    def loss(index: Sequence[int]) -> Tensor:
        output = task.forward(examples, index)
        losses = task.losses(guards.restrict(task, output)) + guards.example_loss(task, examples, index, output)
        return examples.weighted(losses, index)

    return loss


@dataclass
class Strength:
    """How strong guards are against the task, added up over steps."""

    penalty: float = 0.0
    pull: float = 0.0

    def pulled(self, before: Tensor, after: Tensor, now: Tensor) -> None:
        step = float((after - before).norm())
        self.pull += float((now - after).norm()) / step if step > 0 else 0.0


def guarded(task: Task, guards: SiteGuards, step: Tensor, strength: Strength) -> Tensor:
    """The gradient to step along: the task's, then what reads no private record."""
    size, penalty = float(step.norm()), guards.penalty_gradient(task)
    wanted = step if penalty is None else step + penalty
    turned = guards.steer(task, wanted)
    if size > 0:
        strength.penalty += float((turned - step).norm()) / size
    return turned
