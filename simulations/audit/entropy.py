"""Where the randomness comes from: the system's source, 32 bytes a draw, all of them used, and nothing else.

Statistics cannot see a key of 16 bits, nor one made from the clock: its stream looks as random as any. So the source is
taken apart. ``os.urandom`` is replaced by one whose answers are known, while a practice site plays a round:

* asked for 32 bytes for every stretch of noise and for the draw of every step;
* the same answers give the same update, bit for bit: no clock, no process number, no generator beside it;
* other answers give another update, and so does an answer of which a single bit is another, whichever bit it is.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom

from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.sampling import secret_uniform
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge
from simulations.audit.effort import Effort
from simulations.audit.practice import Floats, PracticeSite, one_hot, plan_for
from simulations.audit.seeds import same_seeds

KEY = 32
"""Bytes of a key of AES-256."""
STRETCH = 8192
"""Most numbers that one key may serve."""
STEPS, WIDTH, UNIFORMS = 3, 3 * STRETCH, 1000
Source = Callable[[int], bytes]


class Recorded:
    """Answers that follow from ``label`` and the number of the call; what was asked for is kept."""

    def __init__(self, label: str, *, flipped: int | None = None) -> None:
        self.asked: list[int] = []
        self._label, self._flipped = label, flipped

    def __call__(self, size: int) -> bytes:
        """``size`` bytes; ``flipped``: this bit of each answer is the other one."""
        self.asked.append(size)
        answer = bytearray(hashlib.shake_256(f"{self._label} {len(self.asked)}".encode()).digest(size))
        if self._flipped is not None and size > self._flipped // 8:
            answer[self._flipped // 8] ^= 1 << self._flipped % 8
        return bytes(answer)


@contextmanager
def source_is(source: Source) -> Iterator[None]:
    """While it is open, ``os.urandom`` is ``source``."""
    real = os.urandom
    os.urandom = source
    try:
        yield
    finally:
        os.urandom = real


def entropy(folder: Path, effort: Effort) -> list[Finding]:
    """A round under known answers, and the two functions that draw, bit by bit."""
    sources = [Recorded("a"), Recorded("a"), Recorded("b")]
    updates = []
    for number, source in enumerate(sources):
        updates.append(_round(folder / str(number), source))
        time.sleep(0.002)  # a clock has moved on
    keys = sum(size == KEY for size in sources[0].asked)
    wanted = STEPS * (1 + -(-WIDTH // STRETCH))
    others = _differ(updates[0], updates[2])
    return [
        judge("keys of a round", keys, (wanted, np.inf), f"Keys of {KEY} bytes asked for in a round of {STEPS} steps."),
        never("shorter keys", sum(size < 12 for size in sources[0].asked), "Answers of less than 12 bytes asked for."),
        never("randomness beside the source", int(_differ(*updates[:2]) > 0), "Updates that differ with equal keys."),
        judge("other keys, other noise", others, (0.999, 1.0), "Share of numbers that differ with other keys."),
        never("bits of a key without effect", _dead_bits(), f"Of {8 * KEY} bits, in noise and in draws."),
        _digits(),
    ]


def _round(folder: Path, source: Source) -> Floats:
    """The update of a site's first round, all seeds alike and the source known; the ledger's own keys are not."""
    site = PracticeSite(
        folder, "entropy", one_hot(8, WIDTH, 0.0), [f"p{i}" for i in range(8)], plan_for(0.5, 1.0, STEPS)
    )
    site.ledger.reserve(site.release(site.told(1)), [(site.parts[0].group, site.parts[0].records.names)])
    with same_seeds(), source_is(source):
        return site.play().update


def _differ(one: Floats, other: Floats) -> float:
    return float(np.mean(one != other))


def _digits() -> Finding:
    """A uniform is a multiple of 2^-53, each as likely: coarser ones would cut the noise off early, and tell more."""
    whole = np.asarray(secret_uniform(UNIFORMS)) * 2.0**53
    odd = int((whole % 2).sum()) if bool((whole == np.round(whole)).all()) else 0
    low, high = (float(binom.ppf(level, UNIFORMS, 0.5)) for level in (ALPHA / 2, 1 - ALPHA / 2))
    return judge("digits of a uniform", odd, (low, high), f"Odd multiples of 2^-53 among {UNIFORMS} uniforms.")


def _dead_bits() -> int:
    """Bits of the key that change nothing, of the noise and of the draws."""

    def noise() -> Floats:
        return np.asarray(SecureNoise().added(torch.zeros(4), 1.0).double().numpy())

    def draws() -> Floats:
        return np.asarray(secret_uniform(4))

    dead = 0
    for draw in (noise, draws):
        with source_is(Recorded("bits")):
            usual = draw()
        for bit in range(8 * KEY):
            with source_is(Recorded("bits", flipped=bit)):
                dead += bool(np.array_equal(draw(), usual))
    return dead
