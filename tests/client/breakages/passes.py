"""Broken here: records that go through the model together.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from client import gradients, steady
from llmchain_fl.core.frozen_prefix import FrozenPrefix
from llmchain_fl.core.guards.distill import DistillSite
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.tasks import base as tasks_base
from llmchain_fl.core.tasks.classification import Classification

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_CALL = gradients.PrivateGradient.__call__
REAL_PASSES = gradients.passes
REAL_RECORD = gradients.PrivateGradient._per_record
REAL_LOSSES = Classification.losses


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def gradient_is(call: Callable[[Any, Any, Any], torch.Tensor]) -> Break:
    """The private gradient of a step comes from ``call(object, batch, loss)``."""
    return lambda patch: patch.setattr(gradients.PrivateGradient, "__call__", call)


def rows_are(change: Callable[[Any, Any], torch.Tensor]) -> Break:
    """Gradients of a pass are ``change(rows, object)``."""

    def per_record(self: Any, index: Any, count: int, loss: Any) -> torch.Tensor:
        return change(REAL_RECORD(self, index, count, loss), self)

    return lambda patch: patch.setattr(gradients.PrivateGradient, "_per_record", per_record)


def all_rows_count(patch: Patch) -> None:
    """Rows that only fill a pass up are counted."""

    def passes(*told: Any) -> Any:
        return ((index, len(index)) for index, _ in REAL_PASSES(*told))

    patch.setattr(gradients, "passes", passes)


def to_the_longest(patch: Patch) -> None:
    """Padded to the longest record of the pass."""
    real = tasks_base.Examples.batch

    def batch(self: Any, index: Any, pad: int, device: Any) -> Any:
        return real(replace(self, shape=None), index, pad, device)

    patch.setattr(tasks_base.Examples, "batch", batch)


def by_length_again(patch: Patch) -> None:
    """Passes as without privacy: records of like length together, padded to the longest."""

    def passes(examples: Any, index: Any, batch: int) -> Any:
        rows = examples.shape.rows
        return ((part, count) for part, count in REAL_PASSES(replace(examples, shape=None), index, rows))

    patch.setattr(gradients, "passes", passes)
    to_the_longest(patch)


def a_pass_fails_as_a_whole(self: Any, index: Any, count: int, loss: Any) -> torch.Tensor:
    try:
        return self._pass(index, loss)[:count]
    except Exception:
        return torch.full((count, self._resident.trained.numel()), torch.nan)


def nobody_catches(self: Any, index: Any, count: int, loss: Any) -> torch.Tensor:
    return self._pass(index, loss)[:count]


def per_record_is(call: Callable[..., torch.Tensor]) -> Break:
    return lambda patch: patch.setattr(gradients.PrivateGradient, "_per_record", call)


def what_is_in_the_buffer(patch: Patch) -> None:
    """A record that raises leaves the row of whoever was there before."""

    def alone(self: Any, record: int, rows: int, loss: Any) -> torch.Tensor:
        try:
            return self._pass([record] * rows, loss)[0].clone()
        except Exception:
            return self._per_sample._buffer[0].clone()

    patch.setattr(gradients.PrivateGradient, "_alone", alone)


def over_the_mean(self: Any, output: Any) -> torch.Tensor:
    losses = REAL_LOSSES(self, output)
    return losses / losses.mean().detach()


def cached_by_row(patch: Patch) -> None:
    """Outputs of frozen layers are kept by the place in the pass; that they are replayed exactly is not tried."""

    real = FrozenPrefix.run

    def run(self: Any, ids: Any, mask: Any, kept: Any, index: Any, **told: Any) -> Any:
        return real(self, ids, mask, kept, list(range(len(index))), **told)

    patch.setattr(FrozenPrefix, "run", run)
    patch.setattr(FrozenPrefix, "prove", lambda self: None)


def first_part_only(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    """Units beyond those whose sums fit into memory are left out."""
    return REAL_CALL(self, batch[: self._open], loss)


def clipped_part_by_part(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    """Units beyond those whose sums fit into memory are not clipped."""
    plan, rest = self._plan, batch[self._open :]
    total = REAL_CALL(self, batch[: self._open], loss)
    if not rest:
        return total
    self._plan = replace(plan, clip_norm=1e6, noise_multiplier=0.0)
    try:
        return total + REAL_CALL(self, rest, loss)
    finally:
        self._plan = plan


def teacher_of_the_batch(patch: Patch) -> None:
    """A guard's loss inside the step depends on the mean over the pass."""

    real = DistillSite.example_loss

    def loss(self: Any, task: Any, examples: Any, index: Any, output: Any) -> Any:
        found = real(self, task, examples, index, output)
        return None if found is None else 50 * found * (1 + found.mean().detach())

    patch.setattr(DistillSite, "example_loss", loss)


def fails_with_its_fillers(patch: Patch) -> None:
    """A pass over frozen layers is filled up with records that nobody asked for, and fails if one of them does."""

    def computed(self: Any, examples: Any, missing: Any, asked: Any) -> Any:
        with torch.no_grad():
            return asked, self._pooled(examples, asked)

    patch.setattr(Classification, "_computed", computed)


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "units beyond the first part left out": (gradient_is(first_part_only), "used once", "a crowd in parts"),
    "units beyond the first part not clipped": (gradient_is(clipped_part_by_part), "used once", "a crowd in parts"),
    "a guard's loss over the mean of the pass": (
        teacher_of_the_batch,
        "own rows",
        "own model: others untouched (small)",
    ),
    "rows that fill a pass up are counted": (all_rows_count, "used once", "given batches used once"),
    "rows of a pass exchanged": (
        rows_are(lambda rows, _self: rows.roll(1, dims=0)),
        "own rows",
        "own model: others untouched (small)",
    ),
    "padded to the longest of the pass": (
        to_the_longest,
        "own rows",
        "own model: switched off by others (small)",
    ),
    "passes as without privacy": (
        by_length_again,
        "own rows",
        "own model: switched off by others (small)",
    ),
    "a pass fails as a whole": (per_record_is(a_pass_fails_as_a_whole), "neighbours", "others untouched (raises)"),
    "one record ends the round": (per_record_is(nobody_catches), "neighbours", "others untouched (raises)"),
    "a record that raises leaves another's row": (what_is_in_the_buffer, "neighbours", "others untouched (raises)"),
    "a loss over the mean of the batch": (
        lambda patch: patch.setattr(Classification, "losses", over_the_mean),
        "own rows",
        "own model: others untouched (small)",
    ),
    "half precision in batches": (
        lambda patch: patch.setattr(steady._Probe, "unlike", lambda *told: ""),
        "own rows",
        "rows that meet go unseen (small)",
    ),
    "kept outputs by place, not by record": (
        cached_by_row,
        "own people: kept outputs",
        "others untouched (kept outputs, ordinary arrays)",
    ),
    "a pass fails with the records that fill it up": (
        fails_with_its_fillers,
        "own people: head in lockstep",
        "others untouched (head in lockstep, ordinary arrays)",
    ),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = (
    "units beyond the first part left out",
    "units beyond the first part not clipped",
    "a guard's loss over the mean of the pass",
    "a pass fails as a whole",
    "kept outputs by place, not by record",
    "a pass fails with the records that fill it up",
)
"""What no check found when the list was first tried."""
