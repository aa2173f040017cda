"""Whatever the task, one person moves the sum by at most C; and what would break that is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client.gradients import PrivateGradient
from client.step import loss_of
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.core.tasks.passes import Shape

C = 0.5
NEW = ("regression", "ranking", "masked-lm", "plain-text")


@pytest.mark.parametrize("kind", sorted(TASKS, key=lambda name: name not in NEW))
@pytest.mark.part(5)
def test_a_person_with_64_rows_moves_the_sum_by_at_most_the_clip_norm(small: Any, kind: str) -> None:
    task = small.task(kind, windows=3, trained=("lora_B",))
    examples = task.encode([small.record(kind, 1 + k % 7, seed=k) for k in range(66)])
    examples.fix(Shape(16, 16))
    plan = small.plan(unit="person", records_per_unit=64, clip_norm=C, noise_multiplier=0.0)
    private = PrivateGradient(task.resident, examples, plan, SecureNoise())
    try:
        loss = loss_of(task, examples, SiteGuards((), {}))
        other, person = examples.rows_of([0, 1]), examples.rows_of(range(2, 66))
        without, both = (private(batch, loss).clone() for batch in ([other], [other, person]))
    finally:
        private.close()
    moved = float((both - without).norm())
    assert 0.9 * C < moved <= C * (1 + 1e-5)


# -- what would break it -----------------------------------------------------------------------------------------------


def stranger_changes_a_row(task: Any, small: Any, kind: str) -> bool:
    """Whether what is computed of one record depends on who else is there."""
    own, other = small.record(kind, 4, seed=1), small.record(kind, 5, seed=2)
    alone, beside = task.encode([own]), task.encode([own, other])
    rows = alone.rows_of([0])
    if [alone.ids[row].tolist() for row in rows] != [beside.ids[row].tolist() for row in beside.rows_of([0])]:
        return True
    with torch.no_grad():
        one = task.losses(task.forward(alone, list(rows)))
        two = task.losses(task.forward(beside, range(len(beside))))[: len(rows)]
    return not torch.allclose(one, two, atol=1e-4)


def packed(task: Any) -> None:
    """Two persons in one row, as libraries pack texts for pre-training."""
    plain = task.encode

    def encode(rows: Any) -> Any:
        found = plain(rows)
        firsts = [found.ids[int(found.rows_of([record])[0])] for record in range(found.records)]
        joined = [np.concatenate(firsts[k : k + 2]) for k in range(0, len(firsts), 2)]
        return Examples(joined, np.zeros(len(joined), dtype=np.int64))

    task.encode = encode


def batch_mean(task: Any) -> None:
    plain = task.losses
    task.losses = lambda output: plain(output) / len(output.logits)


def in_batch_negatives(task: Any) -> None:
    """The other records' answers are wrong answers to this one."""
    plain = task.losses

    def losses(output: Any) -> torch.Tensor:
        own = plain(output)
        return own + torch.logsumexp(output.logits.flatten(1).mean(dim=1), dim=0)

    task.losses = losses


@pytest.mark.parametrize("kind", NEW)
def test_the_kinds_pass_where_each_breakage_is_seen(small: Any, kind: str) -> None:
    for breakage in (None, packed, batch_mean, in_batch_negatives):
        task = small.task(kind, windows=3)
        found = task if breakage is None else _broken(task, breakage)
        try:
            assert stranger_changes_a_row(found, small, kind) is (breakage is not None), breakage
        finally:
            vars(task).pop("encode", None)
            vars(task).pop("losses", None)


def _broken(task: Any, breakage: Callable[[Any], None]) -> Any:
    breakage(task)
    return task
