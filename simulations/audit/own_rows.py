"""Rows of one pass: do they stay apart when a pass has many, and does the site notice a model in which they do not?

A site takes several records in a pass only where ``client/steady.py`` finds that rows are computed alike, bit for bit,
and that depends on the machine. So the private step is tried with six rows a pass here wherever it runs: under ordinary
arrays a machine may round rows differently within a thousandth of C; under arrays that overflow at padding it may round
them as it likes, but a record is switched off by its own padding alone. And ``steady`` is shown models in which rows do
meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from client.gradients import gradient_of
from client.steady import shape_for
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, Output, Task
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import open_work
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import Finding
from simulations.audit.effort import Effort
from simulations.audit.hostile_arrays import ARRAYS
from simulations.audit.model import own_model
from simulations.audit.own_guards import guard_arrays
from simulations.audit.own_people import CROWD
from simulations.audit.own_reading import CLIP, for_people
from simulations.audit.own_run import Setting
from simulations.audit.own_site import made_up_rows

ROWS = 6


def own_rows(folder: Path, effort: Effort, setting: Setting) -> list[Finding]:
    """The private step with ROWS rows a pass, each person left out in turn; then models that mix rows."""
    noiseless = for_people(setting)
    resident, task = noiseless.resident(), open_work(noiseless.work.resident, noiseless.work.task)[1]
    findings = []
    examples = task.encode(made_up_rows(noiseless.work.task, CROWD))
    for kind, check in (("ordinary", _kept_apart), ("overflowing", _switched_off)):
        resident.reset()
        resident.load(ARRAYS[kind](noiseless))
        findings += [_named(finding, setting.name) for finding in check(noiseless, task, examples)]
    resident.reset()
    return [*findings, _mixing_is_seen(noiseless, task)]


def _kept_apart(setting: Setting, task: Task, examples: Examples) -> list[Finding]:
    guards = SiteGuards(setting.work.guards, guard_arrays(setting.work))
    return own_model(task, examples, Units.of_people(CROWD), ROWS, CLIP, guards=guards)


def _switched_off(setting: Setting, task: Task, examples: Examples) -> list[Finding]:
    """Records that cannot be computed: of all, of all but one, of that one alone."""
    examples.fix(Shape(ROWS, setting.work.task.max_tokens))
    everybody = list(range(len(examples)))

    def off(index: Sequence[int]) -> int:
        with gradient_of(task.resident, examples, ROWS, setting.plan) as gradient:
            gradient([np.array([i]) for i in index], lambda part: task.losses(task.forward(examples, part)))
            return round(gradient.unusable * len(index))

    alone = [off([i]) for i in everybody]
    wrong = sum(off(everybody) - off([j for j in everybody if j != i]) != alone[i] for i in everybody)
    words = f"Records, of {len(examples)}, that are computed or not by who stands beside them."
    return [never("own model: switched off by others", wrong, f"{words} {sum(alone)} of them are not, by themselves.")]


def _named(finding: Finding, where: str) -> Finding:
    return Finding(f"{finding.name} ({where})", finding.passed, finding.measured, finding.allowed, finding.words)


def _over_the_mean(losses: Tensor) -> Tensor:
    return losses / losses.mean().detach()


def _by_position(losses: Tensor) -> Tensor:
    return losses * (1 + 2.0**-6 * torch.arange(len(losses), device=losses.device))


def _by_neighbour(losses: Tensor) -> Tensor:
    """As a kernel of half precision may round: the last bits of a row depend on what stands beside it."""
    return losses * (1 + 2.0**-6 * losses.detach().roll(1).frac())


def _batch_mean(losses: Tensor) -> Tensor:
    """As a library's own loss: the mean over the batch."""
    return losses / len(losses)


def _in_batch(losses: Tensor) -> Tensor:
    """As a ranking loss whose wrong answers are the other records of the batch."""
    return losses + torch.logsumexp(losses, dim=0)


MIXED: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "over the mean": _over_the_mean,
        "by position": _by_position,
        "by neighbour": _by_neighbour,
        "batch mean": _batch_mean,
        "in-batch negatives": _in_batch,
    }
)


class _Mixing:
    """A task whose losses depend on what stands beside a record."""

    def __init__(self, task: Task, mix: Callable[[Tensor], Tensor]) -> None:
        self._task, self._mix, self.forward = task, mix, task.forward

    def losses(self, output: Output) -> Tensor:
        """The task's own, mixed."""
        return self._mix(self._task.losses(output))


def _mixing_is_seen(setting: Setting, task: Task) -> Finding:
    unseen = [
        name
        for name, mix in MIXED.items()
        if shape_for(task.resident, _Mixing(task, mix), setting.work.task.max_tokens, ROWS).rows > 1  # type: ignore[arg-type]
    ]
    words = f"Of {len(MIXED)} models whose rows meet: those that are given more than one record a pass."
    return never(f"rows that meet go unseen ({setting.name})", len(unseen), words)
