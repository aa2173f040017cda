"""The one frozen value that both the private step and the accountant read, so that the two cannot drift apart.

A plan is public: it may be printed, sent to a server and written into a report. Therefore nothing in it may depend on
a private count. In particular ``sampling_rate``, ``steps_per_round`` and ``divisor`` are chosen constants, never
"batch size / number of records here".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral, Real

from llmchain_fl.core.errors import PrivacyError

UNITS: dict[str, str] = {
    "person": "adding or removing one person with all of that person's records at a site",
    "record": "adding or removing one record; somebody with k records is protected k times less",
    "site": "replacing all that one site sends by nothing; the noise is the server's, so the server is trusted",
}
"""What one privacy unit is. A unit that is not here has no clipping rule yet and is refused."""

STAGES: dict[str, str] = {
    "shared": "a unit may be in the data of several stages: all rounds add up",
    "disjoint": "a unit takes part in the first stage that meets it and is left out of all others: the largest counts",
}
"""How the rounds of several stages compose. ``disjoint`` is enforced at the site (``privacy/register.py``)."""

REHEARSALS: dict[str, str] = {
    "none": "a round draws units of its own stage only",
    "earlier": "a round draws kept units of earlier stages too; the groups of these stages pay for it again",
}
"""Whether units of earlier stages are trained on again (``client/rehearsal.py``)."""

ADJACENCIES: dict[str, str] = {
    "add-or-remove-one": "the two data sets differ by the presence of one unit; sensitivity of the clipped sum is C",
}
"""Which data sets count as neighbours. Replace-one would need sensitivity 2C, so it is not a synonym."""

MAX_CLIP_NORM = 1e6
"""Above this, sums of clipped gradients could leave float32 before the noise is added, and a refusal would tell it."""

MOST_RECORDS = 10_000
"""Upper bound of ``records_per_unit``."""

MOST_GRID = 20
"""Largest k: above, float64 would not hold the sums (``integers.py``)."""

MOST_SITES = 2**16
"""Upper bound of ``shares`` and ``members``."""

MIN_CLIP_NORM = 1e-12
"""Below this, squares of float32 gradients underflow and the clipped norm could no longer be promised."""

_REALS: dict[str, tuple[Callable[[float], bool], str]] = {
    "sampling_rate": (lambda q: 0 < q <= 1, "0 < q <= 1"),
    "noise_multiplier": (lambda z: z >= 0, "z >= 0 and finite"),
    "clip_norm": (lambda c: MIN_CLIP_NORM <= c <= MAX_CLIP_NORM, f">= {MIN_CLIP_NORM:g} and <= {MAX_CLIP_NORM:g}"),
    "divisor": (lambda b: b > 0, "> 0 and finite"),
    "delta": (lambda d: 0 < d < 1, "0 < delta < 1"),
    "score_noise": (lambda z: z >= 0, "z >= 0 and finite"),
}
_COUNTS: dict[str, int] = {
    "steps_per_round": 10**9,
    "records_per_unit": MOST_RECORDS,
    "shares": MOST_SITES,
    "members": MOST_SITES,
    "grid": MOST_GRID,
}
_TABLES: dict[str, dict[str, str]] = {
    "unit": UNITS,
    "adjacency": ADJACENCIES,
    "stages": STAGES,
    "rehearsal": REHEARSALS,
}


@dataclass(frozen=True)
class PrivacyPlan:
    """How one site's rounds are made private.

    One step draws each unit with probability q, sums the gradients of at most ``records_per_unit`` of its records,
    clips that sum to C, sums over units, adds Gaussian noise of standard deviation z * C, and divides by ``divisor``
    (Abadi et al. 2016, arXiv 1607.00133, algorithm 1, with Poisson sampling and a fixed divisor instead of the drawn
    lot size; units of several records as in Charles et al. 2024, arXiv 2407.07737, "user-level sampling").

    With unit ``site`` the site clips its whole update of a round to C and the server adds the noise: one round is one
    release (q = 1, 1 step), and ``divisor`` is the least number of sites whose updates make a round.

    With m = ``shares`` above 1 the noise is that of the *opened sum* of at least m of at most ``members`` sites: each
    adds integer noise of variance (z 2^k)^2 / m on a grid on which C is 2^k units, k = ``grid``, and nobody but they
    knows a single site's sum (``core/secure/``). Of more sites there is more noise; of fewer no sum is opened.

    ======================================  ==========================================================
    edge case                               result
    ======================================  ==========================================================
    several fields out of bounds            one :class:`PrivacyError` that lists them all
    unit ``record``, several records each   refused: one record is one unit
    unit ``site``, q or steps other than 1  refused
    shared noise and several steps a round  refused: a person moves a site's later steps through the earlier ones, and
                                            the others' noise is added only to what comes at the end
    shared noise without a grid, a grid     refused
    without shared noise, ``members`` below
    ``shares``
    disjoint stages or noised scores with   refused: the site could not tell whose records they are
    another unit than ``person``
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
    unit: str = "person"
    """Privacy unit, one of UNITS."""
    adjacency: str = "add-or-remove-one"
    """Neighbouring relation, one of ADJACENCIES."""
    records_per_unit: int = 1
    """Most records of one unit in one step; more of them are drawn from secretly. It bounds work, not privacy."""
    stages: str = "shared"
    """How stages compose, one of STAGES."""
    score_noise: float = 0.0
    """Noise multiplier of the scores that sites send; 0: sites send none."""
    rehearsal: str = "none"
    """Whether earlier stages are drawn from again, one of REHEARSALS."""
    shares: int = 1
    """m: sites whose noise makes up z together; 1: each adds all of it."""
    members: int = 1
    """Most sites whose sums are opened together."""
    grid: int = 0
    """k: C is 2^k units of the integer grid of shared noise; 0: no grid, the noise is a site's own."""

    def __post_init__(self) -> None:
        faults = [_real_fault(name, getattr(self, name)) for name in _REALS]
        faults += [_count_fault(name, getattr(self, name), least=name != "grid") for name in _COUNTS]
        faults += [_table_fault(name, getattr(self, name)) for name in _TABLES]
        if self.unit == "record" and self.records_per_unit != 1:
            faults.append(f"records_per_unit is {self.records_per_unit!r}, must be 1 for the unit record")
        if self.unit != "person" and (self.stages != "shared" or self.score_noise):
            faults.append('stages = "disjoint" and score_noise need the unit person: only persons can be told apart')
        if self.unit == "site" and (self.sampling_rate, self.steps_per_round) != (1, 1):
            faults.append("sampling_rate and steps_per_round must be 1 for the unit site: one round, one release")
        faults += self._sharing_faults() if not any(faults) else []
        refuse([fault for fault in faults if fault])
        for name in _REALS:
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in _COUNTS:
            object.__setattr__(self, name, int(getattr(self, name)))

    def _sharing_faults(self) -> list[str]:
        faults: list[str] = []
        if (self.shares > 1) != (self.grid > 0) or self.members < self.shares:
            faults.append(
                f"shares = {self.shares}, members = {self.members}, grid = {self.grid}: shared noise needs a grid and "
                "members >= shares, noise of a site's own has none of them"
            )
        if self.shares > 1 and self.steps_per_round > 1:
            faults.append(
                f"steps_per_round is {self.steps_per_round} with shared noise, must be 1: a person moves the later "
                "steps of a site through the earlier ones, and the noise of the others comes only at the end"
            )
        return faults

    @property
    def is_shared(self) -> bool:
        """Whether the noise is that of the sum of several sites."""
        return self.shares > 1

    def counted(self, trusted: int, listed: int = 0) -> int:
        """How many others' shares stand in every opened sum, untold, if ``trusted`` of the others never tell theirs.

            max(0, min(h, P - 1) - (P - m)),      h = ``trusted``, P = ``listed`` sites (0: ``members``), m = ``shares``

        P: all that can be in a sum with this site, itself included. Which m of them are in it, drop-outs or a server
        that invites others decide: up to P - m of the trusted ones are not. With all others trusted: m - 1.
        """
        listed = listed or self.members
        return max(0, min(trusted, listed - 1) - (listed - self.shares))

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


def _count_fault(name: str, value: object, least: int = 1) -> str | None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= _COUNTS[name]:
        return f"{name} is {value!r}, must be a whole number >= {least} and <= {_COUNTS[name]}"
    return None


def _table_fault(name: str, value: object) -> str | None:
    table = _TABLES[name]
    if isinstance(value, str) and value in table:
        return None
    return f"{name} is {value!r}, must be one of {', '.join(sorted(table))}"


def refuse(faults: list[str]) -> None:
    """Raise where there is a fault, with all of them."""
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        listing = "\n".join(f"  * {fault}" for fault in faults)
        raise PrivacyError(f"the privacy plan has {count}:\n{listing}", remedy="correct them; nothing was trained")
