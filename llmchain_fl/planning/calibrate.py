"""Epsilon wanted -> noise multiplier."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event

MULTIPLIERS = (0.05, 1e4)
"""Where :func:`calibrate` looks for a noise multiplier."""

LARGEST_TARGET = 100.0
"""Above this, a target epsilon is no protection worth the noise."""


def calibrate(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    total_steps: int,
    accountant: str = "pld",
    tolerance: float = 0.01,
    kind: str = "poisson-gaussian",
) -> float:
    """Smallest noise multiplier, to within ``tolerance`` in epsilon, that keeps ``total_steps`` at or below the target.

    Between MULTIPLIERS (:func:`smallest_noise`). For the result z: target - tolerance <= epsilon(z) <= target.

    Raises:
        PrivacyError: target or tolerance out of bounds, a target that no multiplier in the range meets, or one that
            even the smallest multiplier stays below.
    """
    if not (0 < target_epsilon <= LARGEST_TARGET and tolerance > 0):
        raise PrivacyError(
            f"target epsilon {target_epsilon!r} with tolerance {tolerance!r}",
            remedy=f"0 < target <= {LARGEST_TARGET:g} and tolerance > 0",
        )

    def spent(z: float) -> float:
        return epsilon((Event(kind, sampling_rate, z, total_steps),), delta, accountant)

    return smallest_noise(spent, target_epsilon, tolerance)


def smallest_noise(spent: Callable[[float], float], target: float, tolerance: float = 0.01) -> float:
    """Smallest z, to within ``tolerance`` in epsilon, with ``spent(z) <= target``; ``spent`` falls as z rises.

    Epsilon is nearly a power of z, so every other guess is where the line through both ends, in logarithms, meets the
    middle of what is tolerated; the others halve the interval, so it shrinks whatever ``spent`` is.

    Raises:
        PrivacyError: no multiplier in MULTIPLIERS meets the target, or even the smallest stays below it.
    """
    spent, halve = cache(spent), False
    low, high = _bracket(spent, target)
    while target - spent(high) > tolerance:
        middle = math.sqrt(low * high)
        if not low < middle < high:
            raise PrivacyError(f"tolerance {tolerance!r} is finer than the accountant", remedy="take 0.001 or more")
        if not halve:
            middle = _guess(low, spent(low), high, spent(high), target - tolerance / 2) or middle
        low, high, halve = (low, middle, not halve) if spent(middle) <= target else (middle, high, not halve)
    return high


def _guess(low: float, above: float, high: float, below: float, wanted: float) -> float:
    """Where epsilon would be ``wanted``, a power of z that is ``above`` at low and ``below`` at high; 0: unknown."""
    if not (math.isfinite(above) and above > wanted > below > 0):
        return 0.0
    share = math.log(above / wanted) / math.log(above / below)
    z = low * (high / low) ** share
    return z if low < z < high else 0.0


def _bracket(spent: Callable[[float], float], target: float) -> tuple[float, float]:
    """(z that misses the target, z that keeps it), a factor of 2 apart."""
    z, (smallest, largest) = 1.0, MULTIPLIERS
    while spent(z) > target:
        z *= 2
        if z > largest:
            raise PrivacyError(
                f"no noise multiplier up to {largest:g} reaches epsilon {target!r}",
                remedy="allow a larger epsilon, fewer steps or a smaller sampling rate",
            )
    while spent(z / 2) <= target:
        z /= 2
        if z / 2 < smallest:
            raise PrivacyError(
                f"epsilon stays below {target!r} even with noise multiplier {z:g}",
                remedy="ask for a smaller epsilon, or set the noise multiplier yourself",
            )
    return z / 2, z
