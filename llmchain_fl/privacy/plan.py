"""The one frozen value that both the private step and the accountant read, so that the two cannot drift apart.

A plan is public: it may be printed, sent to a server and written into a report. Therefore nothing in it may depend on
a private count. In particular ``sampling_rate``, ``steps_per_round`` and ``divisor`` are chosen constants, never
"batch size / number of records here".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real

from llmchain_fl.errors import PrivacyError

UNITS: dict[str, str] = {
    "record": "adding or removing one record of the training data",
}
"""What one privacy unit is. A unit that is not here has no clipping rule yet and is refused."""

ADJACENCIES: dict[str, str] = {
    "add-or-remove-one": "the two data sets differ by the presence of one unit; sensitivity of the clipped sum is C",
}
"""Which data sets count as neighbours. Replace-one would need sensitivity 2C, so it is not a synonym."""

MIN_CLIP_NORM = 1e-12
"""Below this, squares of float32 gradients underflow and the clipped norm could no longer be promised."""

_REALS: dict[str, tuple[Callable[[float], bool], str]] = {
    "sampling_rate": (lambda q: 0 < q <= 1, "0 < q <= 1"),
    "noise_multiplier": (lambda z: z >= 0, "z >= 0 and finite"),
    "clip_norm": (lambda c: c >= MIN_CLIP_NORM, f"C >= {MIN_CLIP_NORM:g} and finite"),
    "divisor": (lambda b: b > 0, "> 0 and finite"),
    "delta": (lambda d: 0 < d < 1, "0 < delta < 1"),
}
_TABLES: dict[str, dict[str, str]] = {"unit": UNITS, "adjacency": ADJACENCIES}


@dataclass(frozen=True)
class PrivacyPlan:
    """How one site's rounds are made private.

    One step draws each unit with probability q, clips each unit's gradient to C, sums, adds Gaussian noise of standard
    deviation z * C to the sum, and divides by ``divisor`` (Abadi et al. 2016, arXiv 1607.00133, algorithm 1, with
    Poisson sampling and a fixed divisor instead of the drawn lot size).

    ======================================  ==========================================================
    edge case                               result
    ======================================  ==========================================================
    several fields out of bounds            one :class:`PrivacyError` that lists them all
    ``noise_multiplier`` = 0                allowed, ``is_private`` is False (epsilon is infinite)
    NaN, infinity, bool, text for a number  refused
    1 where 1.0 is meant, numpy scalars     stored as the plain Python number: same digest
    ======================================  ==========================================================

    Raises:
        PrivacyError: listing every fault, each with its value and bound.
    """

    sampling_rate: float
    """q: chance of each unit to be in a step's batch, 0 < q <= 1."""
    noise_multiplier: float
    """z: noise standard deviation in units of C; 0 = no privacy."""
    clip_norm: float
    """C: largest L2 norm of one unit's contribution to the sum."""
    steps_per_round: int
    """Optimiser steps that a site takes in one round, the same for every site."""
    divisor: float
    """Expected batch size: a public constant by which the noisy sum is divided."""
    delta: float
    """The delta at which epsilon is stated."""
    unit: str = "record"
    """Privacy unit, one of UNITS."""
    adjacency: str = "add-or-remove-one"
    """Neighbouring relation, one of ADJACENCIES."""

    def __post_init__(self) -> None:
        faults = [_real_fault(name, getattr(self, name)) for name in _REALS]
        faults.append(_steps_fault(self.steps_per_round))
        faults += [_table_fault(name, getattr(self, name)) for name in _TABLES]
        _refuse([fault for fault in faults if fault])
        for name in _REALS:
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "steps_per_round", int(self.steps_per_round))

    @property
    def noise_std(self) -> float:
        """z * C: standard deviation of the noise on the clipped SUM, before the division by ``divisor``."""
        return self.noise_multiplier * self.clip_norm

    @property
    def is_private(self) -> bool:
        """False when there is no noise: clipping alone gives no finite epsilon."""
        return self.noise_multiplier > 0

    def to_dict(self) -> dict[str, str | int | float]:
        """The plan as plain scalars, fit for a message or a JSON file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> PrivacyPlan:
        """Rebuild a plan from :meth:`to_dict`; every field must be there and nothing else.

        Raises:
            PrivacyError: for missing, unknown or faulty fields.
        """
        names = {field.name for field in fields(cls)}
        faults = [f"{name} is missing" for name in sorted(names - set(values))]
        faults += [f"{name} is not a field of a privacy plan" for name in sorted(set(values) - names)]
        _refuse(faults)
        return cls(**dict(values))  # type: ignore[arg-type]

    def digest(self) -> str:
        """SHA-256 (hex) over canonical JSON: equal plans, and only they, have equal digests."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _real_fault(name: str, value: object) -> str | None:
    holds, bound = _REALS[name]
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"{name} is {value!r}, must be a number with {bound}"
    number = float(value)
    return None if math.isfinite(number) and holds(number) else f"{name} is {number!r}, must be {bound}"


def _steps_fault(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        return f"steps_per_round is {value!r}, must be a whole number >= 1"
    return None


def _table_fault(name: str, value: object) -> str | None:
    table = _TABLES[name]
    if isinstance(value, str) and value in table:
        return None
    return f"{name} is {value!r}, must be one of {', '.join(sorted(table))}"


def _refuse(faults: list[str]) -> None:
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        listing = "\n".join(f"  * {fault}" for fault in faults)
        raise PrivacyError(f"the privacy plan has {count}:\n{listing}", remedy="correct them; nothing was trained")
