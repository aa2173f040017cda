"""What the half of a guard at a site may do, and where each hook stands in a step.

A guard has two halves that never meet: one at the site, one at the server (post-processing of aggregates). The only
channel between them is ``payload``: named arrays that the server already holds, so already released.

One step at the site, and where each hook stands::

    loss_i = task loss of restrict(output_i)             which answers the task's loss is over
             + sum of example_loss                       in-step: clipped and noised together with the task's own
    g      = noised sum of clipped gradients / divisor
    g      = g + grad penalty                            after the noise: reads no private record
    g      = steer(g)                                    after the noise: turns the step, such as away from old tasks
    theta  = optimiser(theta, g)
    theta  = pull(theta, lr)                             after the step: a proximal step or a projection

Hooks are added up or applied in the order of ``continual.guards``. A penalty inside the loss under DP-SGD would be
clipped and noised with the records; one added to the loss beside Opacus' optimizer is silently dropped (measured:
docs/pitfalls.md). So a penalty is either ``penalty`` or ``pull`` here, and a run logs how strong both are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.ranges import Bound
from llmchain_fl.core.tasks.base import Examples, Output, Task
from llmchain_fl.core.tasks.spec import StageLabels

Adds = Literal["nothing", "gradient", "pull"]
Settings = Mapping[str, float | str]
"""A guard's public settings."""


class SiteGuard:
    """The half at the site; made anew for each round. Override what is needed: every hook does nothing by default."""

    bounds: ClassVar[Mapping[str, Bound]] = {}
    """The settings that travel to it, each with its bound."""
    adds: ClassVar[Adds] = "nothing"
    """What it may add to a step that neither the clip norm nor the learning rate bounds: to the gradient, or a pull."""

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        self.settings = settings

    @classmethod
    def funded(cls, plan: PrivacyPlan) -> bool:
        """Whether ``plan`` pays for what the guard reads of private records a second time; nothing by default."""
        return True

    @property
    def restricts(self) -> bool:
        """Whether some records may have no loss by it."""
        return type(self).restrict is not SiteGuard.restrict

    @classmethod
    def rehearsed(cls, settings: Settings) -> float:
        """Share of the units of each earlier stage that a round may draw again; none by default."""
        return 0.0

    def restrict(self, task: Task, output: Output, labels: StageLabels | None) -> Output:
        """The output on which the task's own loss is taken; each row of it is made of that row and public constants.

        ``labels``: what the round teaches; None where the work description does not tell.
        """
        return output

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor | None:
        """Added to each record's loss, float32 [n]; clipped and noised together with it."""
        return None

    def penalty(self, task: Task) -> Tensor | None:
        """A scalar in the trained parameters, from released and public values alone; its gradient follows the noise."""
        return None

    def steer(self, task: Task, gradient: Tensor) -> Tensor:
        """The gradient to step along, float32 [P], made of the noised one and the penalties'."""
        return gradient

    def pull(self, task: Task, lr: float) -> None:
        """Changes the trained parameters in place after a step of learning rate ``lr``."""
