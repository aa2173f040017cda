"""``distill``: stay near the outputs of the last consolidated adapter.

Learning without Forgetting (Li & Hoiem 2016, eq. 2-3), as self-distillation on the current batch:

    loss_i = CE_i + weight * T^2 * KL( softmax(z_old(x_i) / T) || softmax(z(x_i) / T) )

z_old: logits of the adapter that was serving when the last stage ended, over the whole public label list.
The teacher is a released adapter and the term stands inside the per-example loss, which is clipped and noised as a
whole: no extra epsilon. Clip norm C is shared between the two terms, so a large weight costs plasticity.

Where we differ: the paper distils old-task heads only; there is one label space here, so all of it.

===========================  ==========================================
case                         result
===========================  ==========================================
first stage (no teacher)     adds exactly zero
teacher = student            adds exactly zero loss and zero gradient
weight -> infinity           the outputs stay those of the teacher
===========================  ==========================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.tasks.base import Examples, Output, Task

PREFIX = "teacher."


class DistillServer:
    """Keeps the serving adapter of the last stage's end and sends it along."""

    def __init__(self, _settings: Mapping[str, float]) -> None:
        self._teacher: Arrays = {}

    def payload(self) -> Arrays:
        """The teacher, once there is one."""
        return {f"{PREFIX}{name}": value for name, value in self._teacher.items()}

    def after_aggregate(self, current: Arrays) -> Arrays:
        """Changes nothing."""
        return current

    def on_stage_end(self, current: Arrays, serving: Arrays) -> Arrays:
        """The serving adapter becomes the teacher."""
        self._teacher = dict(serving)
        return current

    def state(self) -> Arrays:
        """The teacher."""
        return dict(self._teacher)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The teacher."""
        self._teacher = dict(state)


class DistillSite:
    """Adds the distillation term to each record's loss."""

    def __init__(self, settings: Mapping[str, float], payload: Arrays) -> None:
        self._weight, self._temperature = settings["weight"], settings["temperature"]
        self._teacher = {name.removeprefix(PREFIX): value for name, value in payload.items() if name.startswith(PREFIX)}
        self._theta: Tensor | None = None

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor:
        """weight x T^2 KL(teacher || student) per record, float32 [n]; zeros without a teacher."""
        if not self._teacher:
            return torch.zeros(len(index), device=output.logits.device)
        with torch.no_grad(), task.resident.swapped(self._teacher_theta(task)):
            teacher = task.forward(examples, index)
        return self._weight * task.divergence(output, teacher, self._temperature)

    def _teacher_theta(self, task: Task) -> Tensor:
        """The teacher as a full parameter vector: the site's present one with the teacher's arrays laid over it."""
        if self._theta is None:
            keep = task.resident.theta.clone()
            task.resident.load(self._teacher)
            self._theta = task.resident.theta.clone()
            task.resident.theta.copy_(keep)
        return self._theta
