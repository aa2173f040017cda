"""``mask`` at a site: the task's loss is over the stage's own labels.

The formula: ``llmchain_fl/guards/mask.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import SAME, WireError
from llmchain_fl.core.guards.site_guard import Settings, SiteGuard
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.tasks.base import Output, Task
from llmchain_fl.core.tasks.spec import StageLabels


class MaskSite(SiteGuard):
    """Takes the labels that the round does not teach out of the softmax, or lets them count for less."""

    bounds: ClassVar[Mapping[str, Bound]] = {"others": Range(0, 1)}

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        super().__init__(settings, payload)
        self._others = float(settings["others"])

    def restrict(self, task: Task, output: Output, labels: StageLabels | None) -> Output:
        """See :func:`restricted`.

        Raises:
            WireError: the work description does not say which labels the stage has, or the task has none.
        """
        if labels is None or output.logits.dim() != 2:
            raise WireError(
                "the task does not say which labels are of the stage",
                remedy=SAME,
            )
        return restricted(output, labels, self._others)


def restricted(output: Output, labels: StageLabels, others: float = 0.0) -> Output:
    """The output of which cross entropy is the masked loss; each row of itself, ``labels`` and ``others`` alone.

    Logits [n, L], targets [n]. Labels that a record is not judged among are lowered by -log ``others``. A record that
    does not count gets constants, whose cross entropy and gradient are exactly zero whatever its logits are.
    """
    logits, targets = output.logits, output.targets
    size, nothing = logits.shape[-1], torch.full_like(logits, -torch.inf)
    own = _marked(labels.own, size, logits.device)
    seen = own | _marked(labels.earlier, size, logits.device)
    place = targets.clamp(0, size - 1)
    known = (targets >= 0) & (targets < size)
    counts = known & seen[place]
    candidates = torch.where((known & own[place])[:, None], own, seen)
    faint = logits + math.log(others) if others > 0 else nothing
    silent = torch.where(_marked(labels.own[:1], size, logits.device), torch.zeros_like(logits), nothing)
    masked = torch.where(counts[:, None], torch.where(candidates, logits, faint), silent)
    return Output(masked, torch.where(counts, targets, labels.own[0]), output.weight)


def _marked(labels: Sequence[int], size: int, device: torch.device) -> Tensor:
    """bool [size]: True at ``labels``."""
    marked = torch.zeros(size, dtype=torch.bool, device=device)
    marked[list(labels)] = True
    return marked
