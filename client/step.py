"""What the ways to learn by gradients share: the loss of a row, and what guards add to a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.tasks.base import Examples, Task


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
