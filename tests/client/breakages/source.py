"""Broken here: where randomness comes from: keys, seeds, draws that repeat.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client import rounds
from llmchain_fl.core.privacy import noise as noise_module
from llmchain_fl.core.privacy import sampling as sampling_module
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.sampling import seeded_uniform

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]


def noise_is(draw: Callable[[Any, torch.Tensor, float], torch.Tensor]) -> Break:
    """The noised sum comes from ``draw(noise object, values, std)`` wherever there is noise at all."""

    def added(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        return draw(self, values, std).float() if std else values.float()

    return lambda patch: patch.setattr(SecureNoise, "added", added)


def normal(values: torch.Tensor, std: float, generator: torch.Generator | None = None) -> torch.Tensor:
    return values + std * torch.randn(values.shape, generator=generator)


def one_stream_a_round(patch: Patch) -> None:
    patch.setattr(SecureNoise, "__init__", lambda self: setattr(self, "g", torch.Generator().manual_seed(1)))
    noise_is(lambda self, values, std: normal(values, std, self.g))(patch)


def one_stream_a_process(patch: Patch) -> None:
    generator = torch.Generator().manual_seed(1)
    noise_is(lambda self, values, std: normal(values, std, generator))(patch)


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


def always(seed: int) -> Break:
    return lambda patch: patch.setattr(rounds, "_draws", lambda *told: seeded_uniform(seed, "s", 0))


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "a key of 16 bits": (uniform_of(lambda: os.urandom(2) + bytes(30)), "entropy", "keys of a round"),
    "a key of which half is used": (uniform_of(half_of_it), "entropy", "bits of a key without effect"),
    "a key from the clock": (uniform_of(clock), "entropy", "keys of a round"),
    "a clock beside the key": (uniform_of(key_and_clock), "entropy", "randomness beside the source"),
    "one key for all draws": (one_key_for_all, "entropy", "keys of a round"),
    "uniforms of 24 bits": (uniform_of(lambda: os.urandom(32), 24), "entropy", "digits of a uniform"),
    "same seed at each step": (
        noise_is(lambda s, v, std: normal(v, std, torch.Generator().manual_seed(1))),
        "noise and draws",
        "noise re-use",
    ),
    "same seed at each round": (one_stream_a_round, "noise and draws", "noise re-use"),
    "noise of torch's global generator": (
        noise_is(lambda s, v, std: normal(v, std)),
        "noise and draws",
        "noise re-use",
    ),
    "same seed after a restart": (one_stream_a_process, "restart", "noise re-use after a restart"),
    "the same draws at each round": (always(1), "noise and draws", "fresh draws"),
    "draws of the run's public seed": (
        lambda patch: patch.setattr(rounds, "_draws", lambda plan, seed, site, n: seeded_uniform(seed, site, n)),
        "noise and draws",
        "fresh draws",
    ),
    "scores with a seed": (one_stream_a_round, "scores", "noise re-use in scores"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = ("uniforms of 24 bits",)
"""What no check found when the list was first tried."""
