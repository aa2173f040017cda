"""Broken here: shared noise and the integers it hides.

Each fault is done to the real code; ``test_integer_breakages.py`` tries them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.privacy import accountants, integer_noise, integers
from llmchain_fl.core.privacy.noise import gaussians, secure_uniform

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_DRAW = integer_noise.discrete_gaussians
REAL_SHARE = integer_noise.noised_share
REAL_VARIANCE = integer_noise.share_variance
REAL_SUM = integers.clipped_integer_sum
REAL_LENGTH = integers.length_before
REAL_BITS = integers.word_bits
REAL_DRAWN = integer_noise._Law.drawn
REAL_STEP = accountants._step_rdp


def noise_is(draw: Callable[[int, int], np.ndarray]) -> Break:
    """The integer noise comes from ``draw(size, variance)``."""
    return lambda patch: patch.setattr(integer_noise, "discrete_gaussians", draw)


def share_is(give: Callable[[np.ndarray, int, int], np.ndarray]) -> Break:
    """What a site gives comes from ``give(total, box, variance)``."""
    return lambda patch: patch.setattr(integer_noise, "noised_share", give)


def variance_is(share: Callable[[float, int, int], int]) -> Break:
    """The variance of a share comes from ``share(z, bits, shares)``."""
    return lambda patch: patch.setattr(integer_noise, "share_variance", share)


def sum_is(total: Callable[[torch.Tensor, float, int], np.ndarray]) -> Break:
    """The integer sum comes from ``total(rows, C, bits)``."""
    return lambda patch: patch.setattr(integers, "clipped_integer_sum", lambda rows, c, bits: (total(rows, c, bits), 0))


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


def plain(rows: torch.Tensor, c: float, bits: int) -> torch.Tensor:
    """Each row clipped to C, in units of the grid, not rounded yet."""
    norms = rows.double().norm(dim=1, keepdim=True).clamp_min(1e-300)
    return torch.nan_to_num(rows.double() * (c / norms).clamp(max=1) * (2**bits / c))


def nearest(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return plain(rows, c, bits).round().sum(dim=0).numpy().astype(np.int64)


def away_from_zero(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    scaled = plain(rows, c, bits) * (REAL_LENGTH(rows.shape[1], bits) / 2**bits)
    return (scaled.sign() * scaled.abs().ceil()).sum(dim=0).numpy().astype(np.int64)


def after_summing(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return REAL_SUM(rows.sum(dim=0, keepdim=True), c, bits)[0]


def rounded_after_summing(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return plain(rows, c, bits).sum(dim=0).round().numpy().astype(np.int64)


def not_rounded(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return plain(rows, c, bits).sum(dim=0).numpy()


def not_a_number_is_one(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return REAL_SUM(torch.nan_to_num(rows, nan=c, posinf=c, neginf=-c), c, bits)[0] + 2**bits * int(rows.isnan().any())


def longer_for_many(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    """The clip norm follows the number of people."""
    return REAL_SUM(rows, c, bits)[0] if len(rows) < 2 else REAL_SUM(rows, 2 * c, bits)[0] * 2


def narrow(members: int, box: int, variance: int) -> int:
    return REAL_BITS(members, box, variance) - 1


def for_one_site(members: int, box: int, variance: int) -> int:
    return REAL_BITS(1, box, variance)


def plain_words_of_one(patch: Patch) -> None:
    patch.setattr(integers, "_levels", lambda bound, members: 2**31 - 1)


def booked_with(factor: float) -> Break:
    """The accountant is told another noise multiplier."""

    def apply(patch: Patch) -> None:
        patch.setattr(accountants, "_step_rdp", lambda kind, q, z, orders: REAL_STEP(kind, q, factor * z, orders))

    return apply


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
    "no test of the integer length": (sum_is(nearest), "integer sensitivity", "integer sensitivity"),
    "rounded away from zero": (sum_is(away_from_zero), "integer sensitivity", "integer sensitivity"),
    "clipped after summing": (sum_is(after_summing), "integer sensitivity", "changes that follow from others"),
    "rounded after summing": (sum_is(rounded_after_summing), "integer sensitivity", "changes that follow from others"),
    "not rounded": (sum_is(not_rounded), "integer sensitivity", "sums that are not whole"),
    "a record that is no number adds C everywhere": (
        sum_is(not_a_number_is_one),
        "integer sensitivity",
        "integer sensitivity",
    ),
    "a clip norm that follows the number of people": (
        sum_is(longer_for_many),
        "integer sensitivity",
        "integer sensitivity",
    ),
    "a word one bit too narrow": (
        lambda patch: patch.setattr(integers, "word_bits", narrow),
        "room",
        "noised sums that wrap",
    ),
    "a word that is wide enough for one site": (
        lambda patch: patch.setattr(integers, "word_bits", for_one_site),
        "room",
        "noised sums that wrap",
    ),
    "plain words as if there were one site": (plain_words_of_one, "room", "plain sums that wrap"),
    "booked with twice the noise": (booked_with(2.0), "integer accounts", "least epsilon of integer noise"),
    "booked with a tenth more noise": (booked_with(1.1), "integer accounts", "least epsilon of integer noise"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
