"""Sums over each label's records: what the first rounds of a stage of new labels ask a site for in lockstep.

The loss of a record with label y and logits z is ``-z_y``. With z = W h + b its gradient is -h in the row of y and
zero elsewhere, so what a round brings is, for each label, the sum of the inputs h of that label's records. Units are
clipped, drawn and noised as in every other round (``client/lockstep.py``). What a person adds does not even depend on
the head that the server has sent.

==================================================  =======================================
case                                                result
==================================================  =======================================
a record of no label of the stage, guard ``mask``   adds exactly zero
a task whose logits are not one row a record        :class:`WireError`
==================================================  =======================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from client.lockstep import gradient_sum
from client.training import LocalResult
from llmchain_fl.core.errors import SAME, WireError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec


def class_sums(
    task: Task,
    examples: Examples,
    batches: Iterable[Batch],
    spec: TrainSpec,
    plan: PrivacyPlan | None,
    guards: SiteGuards,
    lr: float,
) -> LocalResult:
    """The round's direction, ``u_k = -g_k / b`` with the loss of this file; arguments and result as in lockstep."""
    return gradient_sum(task, examples, batches, spec, plan, guards, lr, inner_of(task, examples, guards))


def inner_of(task: Task, examples: Examples, guards: SiteGuards) -> Callable[[Sequence[int]], Tensor]:
    """Rows -> ``-z_y`` of each, float32 [n]."""

    def loss(index: Sequence[int]) -> Tensor:
        output = guards.restrict(task, task.forward(examples, index))
        if output.logits.dim() != 2 or output.targets.dim() != 1:
            raise WireError("only records with one label each have sums by label", remedy=SAME)
        return examples.weighted(-output.logits.gather(1, output.targets[:, None])[:, 0], index)

    return loss
