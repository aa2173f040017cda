"""Broken here: the noise that several sites share.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.privacy import integer_noise
from llmchain_fl.core.privacy.noise import gaussians, secure_uniform

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_DRAW = integer_noise.discrete_gaussians
REAL_VARIANCE = integer_noise.share_variance
REAL_DRAWN = integer_noise._Law.drawn


def noise_is(draw: Callable[[int, int], np.ndarray]) -> Break:
    """The integer noise comes from ``draw(size, variance)``."""
    return lambda patch: patch.setattr(integer_noise, "discrete_gaussians", draw)


def share_is(give: Callable[[np.ndarray, int, int], np.ndarray]) -> Break:
    """What a site gives comes from ``give(total, box, variance)``."""
    return lambda patch: patch.setattr(integer_noise, "noised_share", give)


def variance_is(share: Callable[[float, int, int], int]) -> Break:
    """The variance of a share comes from ``share(z, bits, shares)``."""
    return lambda patch: patch.setattr(integer_noise, "share_variance", share)


def continuous(size: int, variance: int) -> np.ndarray:
    return gaussians(size, secure_uniform) * math.sqrt(variance)


def laplace(size: int, variance: int) -> np.ndarray:
    u = secure_uniform(size) - 0.5
    return np.rint(-np.sign(u) * np.log1p(-2 * np.abs(u)) * math.sqrt(variance / 2)).astype(np.int64)


def seeded(size: int, variance: int) -> np.ndarray:
    return np.rint(np.random.normal(scale=math.sqrt(variance), size=size)).astype(np.int64)


def of_one_key(patch: Patch) -> None:
    """A generator that this process was started with: its copies have the same."""
    draw = np.random.default_rng()
    noise_is(lambda size, variance: np.rint(draw.normal(scale=math.sqrt(variance), size=size)).astype(np.int64))(patch)


def kept(patch: Patch) -> None:
    """Drawn once for each size and variance."""
    before: dict[tuple[int, int], np.ndarray] = {}

    def draw(size: int, variance: int) -> np.ndarray:
        return before.setdefault((size, variance), REAL_DRAW(size, variance))

    noise_is(draw)(patch)


def repeated(size: int, variance: int) -> np.ndarray:
    return REAL_DRAW(min(size, 4096), variance)[np.arange(size) % 4096]


def both_zeros(patch: Patch) -> None:
    """0 is kept with either sign."""

    def drawn(self: Any, count: int, words: Any) -> np.ndarray:
        found = REAL_DRAWN(self, count, words)
        return np.repeat(found, np.where(found == 0, 2, 1))

    patch.setattr(integer_noise._Law, "drawn", drawn)


def always_accepted(patch: Patch) -> None:
    """The proposal itself, not the law."""
    patch.setattr(np, "exp", lambda values, exp=np.exp: np.minimum(1.0, 2 * exp(values)))


def box_after(total: np.ndarray, box: int, variance: int) -> np.ndarray:
    return np.clip(total + integer_noise.discrete_gaussians(total.size, variance), -box, box)


def no_box(total: np.ndarray, box: int, variance: int) -> np.ndarray:
    return total + integer_noise.discrete_gaussians(total.size, variance)


def float_share(z: float, bits: int, shares: int) -> int:
    return round(z * 2**bits / math.sqrt(shares)) ** 2


def rounded_down(z: float, bits: int, shares: int) -> int:
    return math.floor((Fraction(z) * 2**bits) ** 2 / shares)


def coarse(z: float, bits: int, shares: int) -> int:
    """Whatever the grid: the discrete Gaussian is taken for a continuous one."""
    wanted = (Fraction(z) * 2**bits) ** 2 / shares
    return -(-wanted.numerator // wanted.denominator)


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no noise": (
        noise_is(lambda n, s: np.zeros(n, dtype=np.int64)),
        "noise of the sum",
        "noise of the sum of 3 (z 1.1, 3 of 5)",
    ),
    "noise 10 % low": (
        noise_is(lambda n, s: REAL_DRAW(n, max(1, s * 81 // 100))),
        "share law",
        "share size (1.1, 10 bits)",
    ),
    "noise 3 % low": (
        noise_is(lambda n, s: REAL_DRAW(n, max(1, s * 94 // 100))),
        "share law",
        "share size (3.3, 10 bits)",
    ),
    "a share 10 % low": (
        variance_is(lambda z, bits, m: REAL_VARIANCE(0.9 * z, bits, m)),
        "noise of the sum",
        "sums with too little noise (z 0.7, 7 of 10)",
    ),
    "the noise shared among all sites, not the fewest": (
        variance_is(lambda z, bits, m: REAL_VARIANCE(z, bits, m + 2)),
        "noise of the sum",
        "noise of the sum of 3 (z 1.1, 3 of 5)",
    ),
    "each site adds the noise of the sum": (
        variance_is(lambda z, bits, m: REAL_VARIANCE(z, bits, 1)),
        "noise of the sum",
        "noise of the sum of 7 (z 0.7, 7 of 10)",
    ),
    "the share's variance rounded down": (
        variance_is(rounded_down),
        "noise of the sum",
        "sums with too little noise (z 1.1, 3 of 5)",
    ),
    "the share's deviation rounded to an integer": (
        variance_is(float_share),
        "noise of the sum",
        "sums with too little noise (z 1.1, 3 of 5)",
    ),
    "continuous noise, rounded": (
        noise_is(lambda n, s: np.rint(continuous(n, s)).astype(np.int64)),
        "share law",
        "share law (variance 1)",
    ),
    "continuous noise, not rounded": (
        noise_is(continuous),
        "share law",
        "numbers that are not whole (1.1, 10 bits)",
    ),
    "Laplace noise of the same size": (noise_is(laplace), "share law", "share shape (1.1, 10 bits)"),
    "noise cut off at 3 sigma": (
        noise_is(lambda n, s: np.clip(REAL_DRAW(n, s), -(3 * math.isqrt(s)), 3 * math.isqrt(s))),
        "share law",
        "share tails (1.1, 10 bits)",
    ),
    "zero drawn with both signs": (both_zeros, "share law", "share law (variance 1)"),
    "too many proposals accepted": (always_accepted, "share law", "share law (variance 7)"),
    "noise of numpy's seed": (noise_is(seeded), "integer noise is new", "integer noise re-use"),
    "noise of a generator that copies share": (of_one_key, "integer noise is new", "integer noise re-use"),
    "the same noise twice": (kept, "integer noise is new", "integer noise re-use"),
    "noise repeats after 4,096 numbers": (noise_is(repeated), "share law", "share repeats (1.1, 10 bits)"),
    "the box after the noise": (share_is(box_after), "box", "noise at the edge of the box"),
    "no box": (share_is(no_box), "box", "noise far above the box"),
    "a grid too coarse for the accountant": (
        variance_is(coarse),
        "noise of the sum",
        "grids too coarse for the accountant",
    ),
    "shares too small to be one law": (
        lambda patch: patch.setattr(integer_noise, "LEAST_SHARE", 1),
        "noise of the sum",
        "grids too coarse for the accountant",
    ),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
