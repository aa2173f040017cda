"""Broken here: the noise: its size, its shape, its place.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from client import gradients, rounds
from client.local import train_round
from llmchain_fl.core.privacy.noise import SecureNoise, secure_uniform

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_CALL = gradients.PrivateGradient.__call__
REAL_TRAIN = train_round


def noise_is(draw: Callable[[Any, torch.Tensor, float], torch.Tensor]) -> Break:
    """The noised sum comes from ``draw(noise object, values, std)`` wherever there is noise at all."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return draw(self, values, std).float() if std else values.float()

    return lambda patch: patch.setattr(SecureNoise, "added", added)


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def cut_off(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    return values + (REAL_ADDED(self, values, std) - values).clamp(-3 * std, 3 * std)


def laplace(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    u = torch.from_numpy(secure_uniform(values.numel())) - 0.5
    return values - (std / 2**0.5) * (u.sign() * torch.log1p(-2 * u.abs())).float()


def first_layer_only(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    half = len(values) // 2
    return torch.cat([REAL_ADDED(self, values[:half], std).double(), values[half:]])


def in_pairs(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    noise, even = real(self, values, std).clone(), len(values) // 2 * 2
    noise[1:even:2] = noise[0:even:2]
    return values + noise


def last_like_first(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    noise, count = real(self, values, std).clone(), min(len(values) // 2, 600)
    noise[-count:] = noise[:count]
    return values + noise


def repeated(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    noise = real(self, values, std)
    return values + noise[torch.arange(len(values)) % 8192]


def stopped(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    return torch.cat([REAL_ADDED(self, values[:8192], std).double(), values[8192:]])


def correlated(patch: Patch) -> None:
    before: dict[int, torch.Tensor] = {}

    def draw(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        noise = real(self, values, std)
        old = before.get(len(values))
        before[len(values)] = noise
        return values + (noise if old is None else 0.995 * noise + 0.0998 * old)

    noise_is(draw)(patch)


def gradient_is(call: Callable[[Any, Any, Any], torch.Tensor]) -> Break:
    """The private gradient of a step comes from ``call(object, batch, loss)``."""
    return lambda patch: patch.setattr(gradients.PrivateGradient, "__call__", call)


def no_noise_for_nobody(self: Any, batch: Any, loss: Any) -> torch.Tensor:
    return REAL_CALL(self, batch, loss) if batch else torch.zeros_like(self._resident.trained)


def by_the_batch(patch: Patch) -> None:
    """Noise in proportion to how many were drawn."""

    def call(self: Any, batch: Any, loss: Any) -> torch.Tensor:
        plan = self._plan
        share = len(batch) / plan.divisor
        self._plan = replace(plan, noise_multiplier=plan.noise_multiplier * min(1.0, share)) if batch else plan
        try:
            return REAL_CALL(self, batch, loss)
        finally:
            self._plan = plan

    gradient_is(call)(patch)


def without_noise_if(holds: Callable[[Any, Any], bool]) -> Break:
    """Rounds whose (spec, guards) are such have no noise."""

    def train(task: Any, examples: Any, batches: Any, spec: Any, plan: Any, guards: Any, lr: float) -> Any:
        if plan is not None and holds(spec, guards):
            plan = replace(plan, noise_multiplier=0.0)
        return REAL_TRAIN(task, examples, batches, spec, plan, guards, lr)

    return lambda patch: patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)


def no_noise_late(patch: Patch) -> None:
    """From the 21st step of a round on."""

    def call(self: Any, batch: Any, loss: Any) -> torch.Tensor:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps > 20:
            self._plan = replace(self._plan, noise_multiplier=0.0)
        return REAL_CALL(self, batch, loss)

    gradient_is(call)(patch)


def grid_of_the_sum(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """The grid follows the largest sum: a private number."""
    noised = values.double() + real(self, values, std)
    step = 2.0 ** (torch.floor(torch.log2(values.abs().max().double() + std)) - 12)
    return torch.round(noised / step) * step


def noise_where_somebody_is(patch: Patch) -> None:
    """Numbers in which nobody has a part get no noise."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return torch.where(values != 0, REAL_ADDED(self, values, std), values.float())

    patch.setattr(SecureNoise, "added", added)


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no noise": (noise_is(lambda s, v, std: v), "noise and draws", "noise size"),
    "half the noise": (noise_is(lambda s, v, std: REAL_ADDED(s, v, std / 2)), "noise and draws", "noise size"),
    "noise 10 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.9 * std)), "noise and draws", "noise size"),
    "noise 5 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.95 * std)), "noise and draws", "noise size"),
    "noise 2 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.98 * std)), "noise and draws", "noise size"),
    "noise in the first layer only": (noise_is(first_layer_only), "noise and draws", "noise size"),
    "noise cut off at 3 sigma": (noise_is(cut_off), "noise and draws", "noise tails"),
    "Laplace noise of the same size": (noise_is(laplace), "noise and draws", "noise shape"),
    "neighbouring numbers share their noise": (noise_is(in_pairs), "noise and draws", "noise repeats"),
    "the last 600 numbers repeat the first 600's noise": (
        noise_is(last_like_first),
        "own noise: sgd",
        "noise repeats (sgd)",
    ),
    "noise repeats after 8,192 numbers": (noise_is(repeated), "own noise: sgd", "noise repeats (sgd)"),
    "noise stops after 8,192 numbers": (noise_is(stopped), "own noise: sgd", "noise size (sgd)"),
    "noise correlated 0.1 with the step before": (correlated, "own noise: sgd", "noise size (sgd)"),
    "noise in proportion to the batch": (by_the_batch, "own noise: adam", "noise size beside a person (adam)"),
    "no noise with momentum": (
        without_noise_if(lambda spec, guards: spec.optimizer == "sgd" and spec.momentum > 0),
        "own noise: momentum, guards",
        "noise size (momentum, guards)",
    ),
    "no noise with adam": (
        without_noise_if(lambda spec, guards: spec.optimizer == "adam"),
        "own noise: adam",
        "noise size (adam)",
    ),
    "no noise with a guard": (
        without_noise_if(lambda spec, guards: bool(guards._guards)),
        "own noise: adam, guards",
        "noise size (adam, guards)",
    ),
    "no noise in rounds of more than 20 steps": (
        without_noise_if(lambda spec, guards: spec.steps > 20),
        "own noise: adam",
        "noise size (adam)",
    ),
    "no noise from the 21st step on": (no_noise_late, "own noise: adam", "noise size (adam)"),
    "float32 noise, no grid": (
        noise_is(lambda s, v, std: v + s.sample(v.numel(), std)),
        "telling bits",
        "telling bits",
    ),
    "the grid follows the sum": (noise_is(grid_of_the_sum), "own noise: sgd", "last digits of the grid (sgd)"),
    "no noise on empty batches": (
        gradient_is(no_noise_for_nobody),
        "empty steps",
        "noise when hardly anybody is drawn",
    ),
    "noise only where somebody has a part": (noise_where_somebody_is, "noise and draws", "noise size"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = ("the grid follows the sum",)
"""What no check found when the list was first tried."""
