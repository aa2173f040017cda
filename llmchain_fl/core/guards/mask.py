"""``mask`` at a site: the task's loss is over the stage's own labels.

The formula: ``llmchain_fl/guards/mask.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmchain_fl.core.errors import WireError
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.tasks.base import Output, Task
from llmchain_fl.core.tasks.spec import StageLabels


class MaskSite(SiteGuard):
    """Takes the labels that the round does not teach out of the softmax."""

    def restrict(self, task: Task, output: Output, labels: StageLabels | None) -> Output:
        """See :func:`restricted`.

        Raises:
            WireError: the work description does not say which labels the stage has, or the task has none.
        """
        if labels is None or output.logits.dim() != 2:
            raise WireError(
                "the task does not say which labels are of the stage",
                remedy="server and site must run the same version",
            )
        return restricted(output, labels)


def restricted(output: Output, labels: StageLabels) -> Output:
    """The output of which cross entropy is the masked loss; each row of itself and ``labels`` alone.

    Logits [n, L], targets [n]. Labels that do not count for a record are minus infinity. A record that does not count
    gets constants, whose cross entropy and gradient are exactly zero whatever its logits are.
    """
    logits, targets = output.logits, output.targets
    size = logits.shape[-1]
    own = _marked(labels.own, size, logits.device)
    seen = own | _marked(labels.earlier, size, logits.device)
    place = targets.clamp(0, size - 1)
    known = (targets >= 0) & (targets < size)
    counts = known & seen[place]
    over = torch.where((known & own[place])[:, None], own, seen)
    first = torch.zeros_like(own)
    first[labels.own[0]] = True
    silent = torch.where(first & ~counts[:, None], 0.0, -torch.inf)
    found = torch.where(over & counts[:, None], logits, silent.to(logits.dtype))
    return Output(found, torch.where(counts, targets, labels.own[0]), output.weight)


def _marked(labels: Sequence[int], size: int, device: torch.device) -> Tensor:
    """bool [size]: True at ``labels``."""
    marked = torch.zeros(size, dtype=torch.bool, device=device)
    marked[list(labels)] = True
    return marked
