"""The same question asked of a real model: do people's gradients really not depend on who else is in the batch?

Clipping bounds what a person adds only if the others' gradients stay what they were. In a language model they may not:
texts of one batch are padded to the longest, a loss may average over the batch, and a matrix product of another shape
rounds differently. In float32 that is noise of about 1e-6; in half precision it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from client.gradients import GradientFn, LossFn, gradient_of
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.privacy.audit.finding import Finding, judge
from simulations.audit.practice import Floats, plan_for

TOLERANCE = 1e-3
"""Allowed change of all others together, in units of C: the noise protects against it with a multiplier of 1,000 z."""


def own_model(
    task: Task,
    examples: Examples,
    units: Units,
    micro_batch: int,
    clip_norm: float,
    watched: int = 8,
    guards: SiteGuards | None = None,
) -> list[Finding]:
    """Sums of clipped gradients (no noise) of everybody, of everybody but one, and of that one alone.

    Give it public or made-up records: the findings are functions of them. The resident should hold a trained adapter
    or a random one; at the start of LoRA many gradients are zero.

    Args:
        task: over the model that will train.
        examples: records, of lengths as they will be in practice.
        units: whose they are, at least two.
        micro_batch: as in the run.
        clip_norm: C, best below the usual gradient norm, so that everybody's gradient is clipped.
        watched: how many people are left out, one after the other; among them those with the longest records.
        guards: of the run, of which some stand inside the loss.
    """

    examples.fix(Shape(micro_batch, max(map(examples.length, range(len(examples))))))

    def loss(index: Sequence[int]) -> Tensor:
        output = task.forward(examples, index)
        losses = task.losses(output)
        return losses if guards is None else losses + guards.example_loss(task, examples, index, output)

    with gradient_of(task.resident, examples, micro_batch, plan_for(1.0, 0.0, clip=clip_norm)) as gradient:
        moved, others = _changes(gradient, loss, units, _to_watch(examples, units, watched))
    return _judged(moved / clip_norm, others / clip_norm, len(units))


def _judged(moved: Floats, others: Floats, people: int) -> list[Finding]:
    """Both in units of C, one number for each person who was left out."""
    count = f"{people} people, {len(moved)} of them left out in turn"
    words = (
        f"Change of all that the others add, by one person, over the clip norm; {count}. Above the bound: train in "
        "float32, or with one record in a forward pass."
    )
    allowed = f"As for the practice site; {count}."
    return [
        judge("own model: neighbours", moved.max(), (0.0, 1 + TOLERANCE), allowed),
        judge("own model: others untouched", others.max(), (0.0, TOLERANCE), words),
    ]


def _to_watch(examples: Examples, units: Units, watched: int) -> list[int]:
    longest = [max(examples.length(int(record)) for record in records) for records in units.members]
    order = np.argsort(longest, kind="stable")[::-1]
    picked = [*order[: (watched + 1) // 2], *order[len(order) - watched // 2 :]]
    return sorted({int(unit) for unit in picked})


def _changes(gradient: GradientFn, loss: LossFn, units: Units, watched: Sequence[int]) -> tuple[Floats, Floats]:
    def total(chosen: Sequence[int]) -> Floats:
        batch = [units.members[unit] for unit in chosen]
        vector: Floats = gradient(batch, loss).double().cpu().numpy()
        return vector

    everybody = list(range(len(units)))
    whole = total(everybody)
    gaps = [whole - total([unit for unit in everybody if unit != person]) for person in watched]
    rest = [gap - total([person]) for gap, person in zip(gaps, watched, strict=True)]
    return np.linalg.norm(gaps, axis=1), np.linalg.norm(rest, axis=1)
