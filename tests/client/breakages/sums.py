"""Broken here: what one person adds to a sum: clipping, names, divisors.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client import class_sums, dataset, gradients, outbox, rounds
from client.local import train_round
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.units import Units
from simulations.audit import people

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_SUM = gradients.clipped_sum
REAL_CALL = gradients.PrivateGradient.__call__
REAL_TRAIN = train_round
REAL_GRADIENT = class_sums.gradient_sum


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def gradient_is(call: Callable[[Any, Any, Any], torch.Tensor]) -> Break:
    """The private gradient of a step comes from ``call(object, batch, loss)``."""
    return lambda patch: patch.setattr(gradients.PrivateGradient, "__call__", call)


def sum_is(clip: Callable[[torch.Tensor, float], torch.Tensor]) -> Break:
    """The clipped sum comes from ``clip(rows, C)``."""

    def apply(patch: Patch) -> None:
        for module in (gradients, people):
            patch.setattr(module, "clipped_sum", lambda rows, norm: (clip(rows, norm), 0))

    return apply


def naive(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return ((norm / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp(max=1) * rows).sum(dim=0).float()


def whole_batch(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return naive(rows.sum(dim=0, keepdim=True), norm)


def by_layer(rows: torch.Tensor, norm: float) -> torch.Tensor:
    half = rows.shape[1] // 2
    return torch.cat([REAL_SUM(rows[:, :half], norm)[0], REAL_SUM(rows[:, half:], norm)[0]])


def largest_entry(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return (rows * (norm / rows.abs().amax(dim=1, keepdim=True).clamp_min(norm))).nan_to_num().sum(dim=0)


def by_record(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, [np.array([record]) for unit in batch for record in unit], loss)


def pass_by_pass(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, [part for unit in batch for part in np.split(unit, range(10, len(unit), 10))], loss)


def realised_size(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, batch, loss) * (self._plan.divisor / max(len(batch), 1))


def private_divisor(patch: Patch) -> None:
    def train(task: Any, examples: Any, batches: Any, spec: Any, *rest: Any) -> Any:
        divisor = max(len(examples), 1) * spec.sampling_rate
        return REAL_TRAIN(task, examples, batches, replace(spec, batch_size=divisor), *rest)

    patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)


def clipped_for_three_steps(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    self.steps = getattr(self, "steps", 0) + 1
    if self.steps == 4:
        plan = self._plan
        self._plan = replace(plan, clip_norm=1e3 * plan.clip_norm, noise_multiplier=plan.noise_multiplier / 1e3)
    return REAL_CALL(self, batch, loss)


def in_float32(rows: torch.Tensor, norm: float) -> torch.Tensor:
    return naive(rows.float().nan_to_num(0.0, 0.0, 0.0), norm)


def clip_of_the_task(patch: Patch) -> None:
    """C is what the task says, if it says something; the noise stays that of the plan."""
    real = train_round
    seen: list[float] = []
    real_load = rounds.trial.load

    def load(resident: Any, task: Any, own: Any) -> None:
        seen[:] = [task.clip]
        real_load(resident, task, own)

    def train(task: Any, examples: Any, batches: Any, spec: Any, plan: Any, *rest: Any) -> Any:
        if plan is not None and seen and seen[0]:
            noise = plan.noise_multiplier * plan.clip_norm / seen[0]
            plan = replace(plan, clip_norm=seen[0], noise_multiplier=noise)
        return real(task, examples, batches, spec, plan, *rest)

    patch.setattr(rounds.trial, "load", load)
    patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)


def sums_with(changed: Callable[[Any], Any]) -> Break:
    """Sums by label are made under another plan than that of the work."""

    def made(task: Any, examples: Any, batches: Any, spec: Any, plan: Any, *rest: Any) -> Any:
        return REAL_GRADIENT(task, examples, batches, spec, changed(plan), *rest)

    return lambda patch: patch.setattr(class_sums, "gradient_sum", made)


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no clipping": (sum_is(lambda rows, norm: rows.float().sum(dim=0)), "sensitivity", "sensitivity"),
    "the whole batch clipped at once": (sum_is(whole_batch), "neighbours", "others untouched (8 records)"),
    "each layer clipped by itself": (sum_is(by_layer), "sensitivity", "sensitivity"),
    "the largest entry clipped": (sum_is(largest_entry), "sensitivity", "sensitivity"),
    "each record clipped, not each person": (gradient_is(by_record), "neighbours", "neighbours (8 records)"),
    "a large person clipped pass by pass": (gradient_is(pass_by_pass), "neighbours", "neighbours (64 records)"),
    "people taken for records": (
        lambda patch: patch.setattr(Units, "of_people", lambda people: Units.of_records(len(people))),
        "neighbours",
        "neighbours (8 records)",
    ),
    "the person column ignored": (
        lambda patch: patch.setattr(Units, "of_people", lambda people: Units.of_records(len(people))),
        "own people: ordinary",
        "neighbours (distilled, ordinary arrays)",
    ),
    "names not normalised": (
        lambda patch: patch.setattr(dataset, "same_person", lambda name: name),
        "own people: ordinary",
        "neighbours (distilled, ordinary arrays)",
    ),
    "clipped in bfloat16": (sum_is(lambda rows, norm: naive(rows.bfloat16(), norm)), "sensitivity", "sensitivity"),
    "clipped and added in float32": (sum_is(in_float32), "sensitivity", "sum of a crowd"),
    "clipped in the first three steps only": (
        gradient_is(clipped_for_three_steps),
        "noise and draws",
        "at most once a step",
    ),
    "clipped at what the task says": (
        clip_of_the_task,
        "own people: ordinary",
        "neighbours (distilled, ordinary arrays)",
    ),
    "a NaN record spoils the sum": (sum_is(naive), "neighbours", "others untouched (nan)"),
    "divided by the private number of records": (private_divisor, "neighbours", "others untouched (1 records)"),
    "divided by the size of the batch": (gradient_is(realised_size), "neighbours", "others untouched (1 records)"),
    "a whole update not clipped": (
        lambda patch: patch.setattr(outbox, "clipped", lambda delta, norm: delta),
        "whole updates",
        "sensitivity",
    ),
    "sums by label not clipped": (
        sums_with(lambda plan: replace(plan, clip_norm=9 * plan.clip_norm, noise_multiplier=plan.noise_multiplier / 9)),
        "own people: sums by label",
        "neighbours (sums by label, ordinary arrays)",
    ),
    "sums by label with half of the noise": (
        sums_with(lambda plan: replace(plan, noise_multiplier=plan.noise_multiplier / 2)),
        "own noise: sums by label",
        "noise size (sums by label)",
    ),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = (
    "clipped at what the task says",
    "sums by label not clipped",
    "sums by label with half of the noise",
)
"""What no check found when the list was first tried."""
