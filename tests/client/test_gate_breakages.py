"""Each way to break the private mechanism, done to the real code, is found by the check that is there for it.

Here: the noise and where it comes from. ``test_gate_breakages_people.py``: clipping, passes, draws;
``test_gate_breakages_site.py``: ledger, register, memory, replies, refusals. ``benchmarks/bench_gate.py`` prints all
three tables.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client import gradients, rounds
from client.audit.gate import EFFORTS, run_check
from llmchain_fl.privacy import noise as noise_module
from llmchain_fl.privacy import sampling as sampling_module
from llmchain_fl.privacy.noise import SecureNoise, secure_uniform

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED, REAL_CALL, REAL_TRAIN = SecureNoise.added, gradients.PrivateGradient.__call__, rounds.train_round


# -- noise ------------------------------------------------------------------------------------------------------------


def noise_is(draw: Callable[[Any, torch.Tensor, float], torch.Tensor]) -> Break:
    """The noised sum comes from ``draw(noise object, values, std)`` wherever there is noise at all."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return draw(self, values, std).float() if std else values.float()

    return lambda patch: patch.setattr(SecureNoise, "added", added)


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def normal(values: torch.Tensor, std: float, generator: torch.Generator | None = None) -> torch.Tensor:
    return values + std * torch.randn(values.shape, generator=generator)


def one_stream_a_round(patch: Patch) -> None:
    patch.setattr(SecureNoise, "__init__", lambda self: setattr(self, "g", torch.Generator().manual_seed(1)))
    noise_is(lambda self, values, std: normal(values, std, self.g))(patch)


def one_stream_a_process(patch: Patch) -> None:
    generator = torch.Generator().manual_seed(1)
    noise_is(lambda self, values, std: normal(values, std, generator))(patch)


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

    return lambda patch: patch.setattr(rounds, "train_round", train)


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


# -- where randomness comes from --------------------------------------------------------------------------------------


def uniform_of(key: Callable[[], bytes], bits: int = 53) -> Break:
    def uniform(size: int) -> np.ndarray:
        cipher = noise_module.Cipher(noise_module.AES(key()), noise_module.CTR(bytes(16)))
        words = np.frombuffer(cipher.encryptor().update(bytes(8 * size)), dtype="<u8")
        return (words >> np.uint64(64 - bits)).astype(np.float64) * 2.0**-bits

    def apply(patch: Patch) -> None:
        patch.setattr(noise_module, "secure_uniform", uniform)
        patch.setattr(sampling_module, "secure_uniform", uniform)

    return apply


def one_key_for_all(patch: Patch) -> None:
    """A key is asked for once; the streams after it are made from it and a counter."""
    state: list[Any] = [b"", 0]

    def key() -> bytes:
        state[0] = state[0] or os.urandom(32)
        state[1] += 1
        return hashlib.sha256(state[0] + state[1].to_bytes(8, "big")).digest()

    uniform_of(key)(patch)


def clock() -> bytes:
    return hashlib.sha256(str(time.time_ns()).encode()).digest()


def half_of_it() -> bytes:
    return os.urandom(32)[:16] + bytes(16)


def key_and_clock() -> bytes:
    """A clock mixed in does no harm to the noise, and hides where it comes from."""
    return bytes(a ^ b for a, b in zip(os.urandom(32), clock(), strict=True))


# -- the table --------------------------------------------------------------------------------------------------------

DRAWS = "noise and draws"
BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no noise": (noise_is(lambda s, v, std: v), DRAWS, "noise size"),
    "half the noise": (noise_is(lambda s, v, std: REAL_ADDED(s, v, std / 2)), DRAWS, "noise size"),
    "noise 10 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.9 * std)), DRAWS, "noise size"),
    "noise 5 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.95 * std)), DRAWS, "noise size"),
    "noise 2 % low": (noise_is(lambda s, v, std: REAL_ADDED(s, v, 0.98 * std)), DRAWS, "noise size"),
    "noise in the first layer only": (noise_is(first_layer_only), DRAWS, "noise size"),
    "noise cut off at 3 sigma": (noise_is(cut_off), DRAWS, "noise tails"),
    "Laplace noise of the same size": (noise_is(laplace), DRAWS, "noise shape"),
    "neighbouring numbers share their noise": (noise_is(in_pairs), DRAWS, "noise repeats"),
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
    "same seed at each step": (
        noise_is(lambda s, v, std: normal(v, std, torch.Generator().manual_seed(1))),
        DRAWS,
        "noise re-use",
    ),
    "same seed at each round": (one_stream_a_round, DRAWS, "noise re-use"),
    "noise of torch's global generator": (noise_is(lambda s, v, std: normal(v, std)), DRAWS, "noise re-use"),
    "same seed after a restart": (one_stream_a_process, "restart", "noise re-use after a restart"),
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
    "a key of 16 bits": (uniform_of(lambda: os.urandom(2) + bytes(30)), "entropy", "keys of a round"),
    "a key of which half is used": (uniform_of(half_of_it), "entropy", "bits of a key without effect"),
    "a key from the clock": (uniform_of(clock), "entropy", "keys of a round"),
    "a clock beside the key": (uniform_of(key_and_clock), "entropy", "randomness beside the source"),
    "one key for all draws": (one_key_for_all, "entropy", "keys of a round"),
    "uniforms of 24 bits": (uniform_of(lambda: os.urandom(32), 24), "entropy", "digits of a uniform"),
    "scores with half the noise": (noise_is(lambda s, v, std: REAL_ADDED(s, v, std / 2)), "scores", "noise of scores"),
    "scores with a seed": (one_stream_a_round, "scores", "noise re-use in scores"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""


@pytest.fixture(autouse=True)
def _disk_that_does_not_flush(monkeypatch: Patch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_broken_mechanism_is_found_by_the_check_made_for_it(what: str, monkeypatch: Patch) -> None:
    apply, check, finding = BREAKAGES[what]
    apply(monkeypatch)
    failed = [found.name for found in run_check(check, EFFORTS["quick"]) if not found.passed]
    assert finding in failed


def test_the_canary_audit_refutes_noise_that_is_not_there(monkeypatch: Patch) -> None:
    BREAKAGES["no noise"][0](monkeypatch)
    failed = [found.name for found in run_check("canaries", EFFORTS["quick"]) if not found.passed]
    assert "canaries" in failed
