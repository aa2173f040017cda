"""``agem`` at a site: no step that makes the reference worse.

The formula: ``llmchain_fl/guards/agem.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from llmchain_fl.core.adapter.resident import State
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import teacher
from llmchain_fl.core.guards.public_records import PublicSample
from llmchain_fl.core.guards.site_guard import Settings, SiteGuard
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.tasks.base import Task

RECORDS, TEACHER = "agem-records", "agem-teacher"
TEMPERATURE = 2.0


class AgemSite(SiteGuard):
    """Projects gradient and step."""

    bounds: ClassVar[Mapping[str, Bound]] = {"strength": Range(0, 1), "batch": Range(1, 10_000)}

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        self._strength = float(settings["strength"])
        self._sample = PublicSample(RECORDS, payload, int(settings["batch"]))
        self._teacher, self._scale = teacher.received(TEACHER, payload)
        self._state: State | None = None
        self._before: tuple[Tensor, Tensor] | None = None

    def steer(self, task: Task, gradient: Tensor) -> Tensor:
        """The gradient without what works against the reference."""
        if not self._sample or self._strength == 0:
            return gradient
        reference = self._reference(task)
        self._before = task.resident.trained.clone(), reference
        return projected(gradient, reference, self._strength)

    def pull(self, task: Task, lr: float) -> None:
        """The step without what works against the reference: a step goes against the gradient, so with its sign."""
        if self._before is None:
            return
        before, reference = self._before
        step = before - task.resident.trained
        turned = projected(step, reference, self._strength)
        if turned is not step:
            task.resident.trained.copy_(before - turned)

    def _reference(self, task: Task) -> Tensor:
        """g_ref, float32 [P]."""
        examples = self._sample.examples(task, answered=not self._teacher)
        index = self._sample.next_rows(examples)
        output = task.forward(examples, index)
        if self._teacher:
            if self._state is None:
                self._state = teacher.state_of(task.resident, self._teacher, self._scale)
            with torch.no_grad(), task.resident.swapped(self._state):
                taught = task.forward(examples, index)
            loss = examples.mean(task.divergence(output, taught, TEMPERATURE), index)
        else:
            loss = examples.mean(task.losses(output), index)
        parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])


def projected(gradient: Tensor, reference: Tensor, strength: float) -> Tensor:
    """Eq. 11: ``gradient`` without ``strength`` times its part against ``reference``; itself where there is none."""
    along = torch.dot(gradient.double(), reference.double())
    length = torch.dot(reference.double(), reference.double())
    if not (along < 0 and length > 0):
        return gradient
    return (gradient.double() - strength * along / length * reference.double()).to(gradient.dtype)
