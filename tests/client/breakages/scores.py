"""Broken here: noised scores and rehearsal.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client import rehearsal, rounds, scores
from llmchain_fl.core.privacy import scores as scores_module
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.units import Units

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_MEANS = scores.unit_means


def noise_is(draw: Callable[[Any, torch.Tensor, float], torch.Tensor]) -> Break:
    """The noised sum comes from ``draw(noise object, values, std)`` wherever there is noise at all."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return draw(self, values, std).float() if std else values.float()

    return lambda patch: patch.setattr(SecureNoise, "added", added)


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def count_without_noise(patch: Patch) -> None:
    """Noise on the sum of votes, none on how many there are."""

    def mean(values: Any, multiplier: float, noise: Any) -> float:
        kept = np.clip(values[np.isfinite(values)], 0.0, 1.0)
        above = torch.tensor([float((kept - 0.5).sum())], dtype=torch.float64)
        noised = float(noise.added(above, multiplier * scores_module.SENSITIVITY)[0])
        return float(min(1.0, max(0.0, 0.5 + noised / max(float(len(kept)), 1.0))))

    patch.setattr(scores, "noised_mean", mean)


def not_cut(patch: Patch) -> None:
    """A score above 1 counts as it is."""

    def mean(values: Any, multiplier: float, noise: Any) -> float:
        kept = values[np.isfinite(values)]
        exact = torch.tensor([float((kept - 0.5).sum()), 0.5 * len(kept)], dtype=torch.float64)
        above, half = noise.added(exact, multiplier * scores_module.SENSITIVITY).tolist()
        return float(min(1.0, max(0.0, 0.5 + above / max(2.0 * half, 1.0))))

    patch.setattr(scores, "noised_mean", mean)


def half_where_nobody_votes(patch: Patch) -> None:
    """A stage without records gets exactly 1/2: whoever reads it knows."""
    real = scores.noised_mean
    patch.setattr(scores, "noised_mean", lambda values, z, noise: real(values, z, noise) if len(values) else 0.5)


def same_records_are_others(patch: Patch) -> None:
    """A record is another one in each stage."""
    real, calls = rehearsal.marks, [0]

    def marks(examples: Any) -> Any:
        calls[0] += 1
        return ((tokens, target, 1000 * calls[0] + n) for tokens, target, n in real(examples))

    patch.setattr(rehearsal, "marks", marks)


def left_out_are_drawn(patch: Patch) -> None:
    real = rounds.mixed
    patch.setattr(rounds, "mixed", lambda parts, allowed: real(parts, [np.ones_like(mask) for mask in allowed]))


def kept_by_a_public_key(patch: Patch) -> None:
    real = rehearsal.chosen
    patch.setattr(rehearsal, "chosen", lambda key, *rest: real(b"public", *rest))


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "each record has a vote in scores": (
        lambda patch: patch.setattr(
            scores, "unit_means", lambda values, units: REAL_MEANS(values, Units.of_records(len(values)))
        ),
        "scores",
        "one person, one vote",
    ),
    "scores of which the count has no noise": (count_without_noise, "scores", "noise of scores"),
    "a score above 1 counts as it is": (not_cut, "scores", "a vote beyond 1"),
    "a stage without records has no noise": (half_where_nobody_votes, "scores", "nobody's score"),
    "the same record counted in each stage": (same_records_are_others, "counted once", "counted once over stages"),
    "people left out are drawn all the same": (left_out_are_drawn, "taking part", "others' people in a round"),
    "who is rehearsed follows from a public key": (kept_by_a_public_key, "counted once", "kept by a secret"),
    "scores with half the noise": (noise_is(lambda s, v, std: REAL_ADDED(s, v, std / 2)), "scores", "noise of scores"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = (
    "scores of which the count has no noise",
    "a score above 1 counts as it is",
    "a stage without records has no noise",
    "who is rehearsed follows from a public key",
)
"""What no check found when the list was first tried."""
