"""The halves of the guards that act at a site."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.spec import SITE_GUARDS, GuardSpec, site_half
from llmchain_fl.core.tasks.base import Examples, Output, Task
from llmchain_fl.core.tasks.spec import StageLabels

__all__ = ["SITE_GUARDS", "GuardSpec", "SiteGuards", "site_half"]


class SiteGuards:
    """The site halves of all guards of a run; see ``site_guard.py`` for where each hook stands in a step.

    ``labels``: those that the round teaches, for guards that ask.
    """

    def __init__(self, specs: Sequence[GuardSpec], payload: Arrays, labels: StageLabels | None = None) -> None:
        self._guards = [site_half(spec.name)(dict(spec.settings), payload) for spec in specs]
        self._labels = labels

    @property
    def restricts(self) -> bool:
        """Whether some records may have no loss, so that a round may rightly move nothing."""
        return any(guard.restricts for guard in self._guards)

    def restrict(self, task: Task, output: Output) -> Output:
        """Each guard restricts what the one before it left."""
        for guard in self._guards:
            output = guard.restrict(task, output, self._labels)
        return output

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor:
        """Sum over guards, float32 [n]."""
        total = torch.zeros(len(index), device=output.logits.device)
        for guard in self._guards:
            added = guard.example_loss(task, examples, index, output)
            total = total if added is None else total + added
        return total

    def penalty_gradient(self, task: Task) -> Tensor | None:
        """Gradient of the sum of all penalties, float32 [P]; None where no guard has one now."""
        total: Tensor | None = None
        for guard in self._guards:
            penalty = guard.penalty(task)
            if penalty is not None:
                total = penalty if total is None else total + penalty
        if total is None or not total.requires_grad:
            return None
        resident = task.resident
        trained = [resident.parameters[name] for name in resident.trained_names]
        gradients = torch.autograd.grad(total, trained, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, gradients, strict=True)]
        return torch.cat([part.reshape(-1) for part in parts])

    def steer(self, task: Task, gradient: Tensor) -> Tensor:
        """Each guard turns what the one before it made."""
        for guard in self._guards:
            gradient = guard.steer(task, gradient)
        return gradient

    def pull(self, task: Task, lr: float) -> None:
        """One after the other, in place."""
        for guard in self._guards:
            guard.pull(task, lr)
