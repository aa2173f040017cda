"""What a release is to an accountant: a mechanism with its public constants. No data, no counts, no epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from llmchain_fl.core.errors import PrivacyError

MOST_STEPS = 10**9
"""Most steps of one event; more of them are several events."""

KINDS: dict[str, str] = {
    "poisson-gaussian": "Gaussian noise z * C on a sum over a Poisson sample at rate q, composed over `steps` steps",
    "gaussian": "Gaussian noise z * S on a vector of L2 sensitivity S, everybody in it (q = 1), released `steps` times",
    "poisson-discrete-gaussian": "as poisson-gaussian, in integers: shares of discrete Gaussian noise on a whole sum",
    "discrete-gaussian": "as gaussian, in integers: shares of discrete Gaussian noise on a whole vector",
}
"""Kinds of release that can be accounted for; an unknown one is an error, never ignored."""

UNSAMPLED = frozenset({"gaussian", "discrete-gaussian"})
"""Kinds in which everybody takes part: q = 1."""

DISCRETE: dict[str, str] = {"poisson-discrete-gaussian": "poisson-gaussian", "discrete-gaussian": "gaussian"}
"""Kinds of integer noise, each with the continuous one that it is a rounding of. S: the largest L2 norm of the integer
vector by which one unit moves the sum; z^2 S^2: at most the variance of all shares (``share_variance``)."""


@dataclass(frozen=True)
class Event:
    """One release, as the accountants see it.

    Raises:
        PrivacyError: unknown kind, q outside (0, 1] (of UNSAMPLED: not 1), z negative or not finite, steps not a whole
            number from 1 to MOST_STEPS.
    """

    kind: str
    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PrivacyError(f"a release of kind {self.kind!r} has no accountant", remedy=f"kinds: {sorted(KINDS)}")
        q, z, steps = _real(self.sampling_rate), _real(self.noise_multiplier), self.steps
        whole = isinstance(steps, int) and not isinstance(steps, bool) and 1 <= steps <= MOST_STEPS
        if not (0 < q <= 1 and math.isfinite(z) and z >= 0 and whole):
            raise PrivacyError(
                f"no such release: q={q!r}, z={z!r}, steps={steps if whole else 'out of range'}",
                remedy=f"0 < q <= 1, z >= 0 and finite, steps a whole number from 1 to {MOST_STEPS}",
            )
        if self.kind in UNSAMPLED and q != 1:
            raise PrivacyError(
                f"no such release: a {self.kind!r} one with q={q!r}", remedy="q = 1: it is not sampled, nobody hides"
            )
        object.__setattr__(self, "sampling_rate", q)
        object.__setattr__(self, "noise_multiplier", z)


def merge(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events that differ only in ``steps`` become one with the sum of the steps; sorted, so that order is no matter.

    A sum above MOST_STEPS is several events.
    """
    steps: dict[tuple[str, float, float], int] = {}
    for event in events:
        key = (event.kind, event.sampling_rate, event.noise_multiplier)
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(Event(*key, count) for key in sorted(steps) for count in _counts(steps[key]))


def _counts(steps: int) -> list[int]:
    whole, rest = divmod(steps, MOST_STEPS)
    return [MOST_STEPS] * whole + [rest] * (rest > 0)


def _real(value: object) -> float:
    """``value`` as a float; NaN, which no range holds, for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
