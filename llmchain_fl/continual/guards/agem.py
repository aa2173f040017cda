"""``agem``: no step that makes the reference worse.

A-GEM (Chaudhry et al. 2019, arXiv 1812.00420, eq. 11), on *public* reference records of the stages that have ended:

    g <- g - min(0, g . g_ref) / |g_ref|^2  g_ref  x strength               g: noised, with the penalties' gradients

g_ref: gradient of the mean loss of ``batch`` public records at the present adapter: the task's loss where they have
labels (or answers), else the divergence from the adapter that was serving at the last stage's end. It reads nothing
private and turns what is already noised: no epsilon. A reference on private records would be charged.

An optimiser with momentum or preconditioning (Adam) turns a projected gradient back. So after it the step itself is
projected the same way; under plain SGD that changes nothing.

strength is the share of the conflicting part that is taken out; 1 is A-GEM and the most there is.

==========================================  ============================================================
case                                        result
==========================================  ============================================================
first stage, or no reference yet            nothing
strength = 0                                nothing, bit for bit; no pass over the reference
strength = 1                                no step against the reference: step . g_ref <= 0 (to first order
                                            its loss does not grow)
g . g_ref >= 0                              g as it is
g_ref = 0 (student is the teacher)          g as it is
no public records in the run                ConfigError at the end of the first stage
==========================================  ============================================================

Where we differ: public reference instead of an episodic memory of private records; the step after an adaptive
optimiser is projected too; rows of a stage (column ``stage``) that has not ended are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llmchain_fl.adapter.resident import State
from llmchain_fl.adapter.value import Arrays
from llmchain_fl.continual.guards import teacher
from llmchain_fl.continual.guards.protocol import ServerGuard, Settings, SiteGuard, View
from llmchain_fl.continual.public_records import PublicSample, PublicShelf, of_ended
from llmchain_fl.errors import ConfigError
from llmchain_fl.tasks.base import Task

RECORDS, TEACHER = "agem-records", "agem-teacher"
TEMPERATURE = 2.0


class AgemServer(ServerGuard):
    """Hands the public records of the stages so far to the sites; with a teacher where they have no labels."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shelf = PublicShelf(RECORDS)
        self._teacher: Arrays = {}
        self._scale = 0.0

    def payload(self) -> Arrays:
        """Records, key of the draws, teacher."""
        return teacher.sent(TEACHER, self._teacher, self._scale) | self._shelf.arrays()

    def step(self, view: View, current: Arrays) -> Arrays:
        """The next round draws anew."""
        self._shelf.turn(view.seed, view.round + 1)
        return current

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """The reference of the next stage.

        Raises:
            ConfigError: the run has no public records, or none of a stage that has ended.
        """
        rows = of_ended(view.public_rows, view.stages, view.stage)
        if not rows:
            raise ConfigError(["the guard `agem` needs continual.public with records of the stages that have ended"])
        self._shelf.put(rows)
        labelled = all(is_labelled(row) for row in rows)
        self._teacher, self._scale = ({}, 0.0) if labelled else (dict(serving), view.scale)
        return current

    def state(self) -> Arrays:
        """The payload."""
        return self.payload()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The payload."""
        self._shelf.load(dict(state))
        self._teacher, self._scale = teacher.received(TEACHER, dict(state))


def is_labelled(row: Mapping[str, str]) -> bool:
    """Whether the task's loss can be taken on it: a label, or an answer."""
    return bool(row.get("label")) or bool(row.get("answer"))


class AgemSite(SiteGuard):
    """Projects gradient and step."""

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
        examples, index = self._sample.examples(task, answered=not self._teacher), self._sample.next()
        output = task.forward(examples, index)
        if self._teacher:
            if self._state is None:
                self._state = teacher.state_of(task.resident, self._teacher, self._scale)
            with torch.no_grad(), task.resident.swapped(self._state):
                taught = task.forward(examples, index)
            loss = task.divergence(output, taught, TEMPERATURE).mean()
        else:
            loss = task.losses(output).mean()
        parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])


def projected(gradient: Tensor, reference: Tensor, strength: float) -> Tensor:
    """Eq. 11: ``gradient`` without ``strength`` times its part against ``reference``; itself where there is none."""
    along = torch.dot(gradient.double(), reference.double())
    length = torch.dot(reference.double(), reference.double())
    if not (along < 0 and length > 0):
        return gradient
    return (gradient.double() - strength * along / length * reference.double()).to(gradient.dtype)
