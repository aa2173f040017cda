"""What a stated noise setting is worth: the noise that it means, and the epsilon that this noise really gives.

A figure called "epsilon" in a configuration is a wish. The guarantee follows from three other things: how large the
noise is, how far one unit can move what is noised, and how often it is released. This file computes it for this
project's own mechanisms; ``explain_peers.py`` reads the same setting as Flower and NVFlare would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from llmchain_fl.core.errors import ConfigError, PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.planning.calibrate import LARGEST_TARGET, calibrate
from llmchain_fl.planning.forecast import HIGH
from llmchain_fl.privacy.gaussian import CLASSIC_HOLDS, classical_std, exact_std, gaussian_epsilon
from llmchain_fl.privacy.persons import MOST_RECORDS, person_epsilon

UNIT, NONE, ANOTHER = "unit or none", "update or none", "update or another"
"""What two data sets differ by: one unit; one site's update that came or did not (it moves what is sent by C); another
update in its place (by 2 C), which is what changing one person's records may do to it."""

_POSITIVE: tuple[Callable[[float], bool], str] = (lambda x: 0 < x < math.inf, "a finite number > 0")
_AT_LEAST_0: tuple[Callable[[float], bool], str] = (lambda x: 0 <= x < math.inf, "a finite number >= 0")
_REALS: dict[str, tuple[Callable[[float], bool], str]] = {
    "clip": _POSITIVE,
    "delta": (lambda x: 0 < x < 1, "in (0, 1)"),
    "sensitivity": _AT_LEAST_0,
    "epsilon": _POSITIVE,
    "noise_multiplier": _AT_LEAST_0,
    "sampling_rate": (lambda x: 0 < x <= 1, "in (0, 1]"),
    "fraction": (lambda x: 0 < x <= 1, "in (0, 1]"),
    "noise_var": _POSITIVE,
    "gamma": _POSITIVE,
}
_COUNTS = {
    "steps": 10**9,
    "rounds": 10**6,
    "sites": 10**9,
    "persons": 10**12,
    "records_per_person": MOST_RECORDS,
    "values": 10**12,
}
_NEEDED = ("clip", "delta")


@dataclass(frozen=True)
class Stated:
    """A noise setting as somebody wrote it down; None: not told.

    ==========================================  ==========================================
    edge case                                   result
    ==========================================  ==========================================
    neither ``epsilon`` nor a noise multiplier  refused: there is no noise to speak of
    several faults                              one :class:`ConfigError` that lists them all
    ``sensitivity`` not told                    the clip norm: what it should be
    ``sensitivity`` 0                           no noise at all
    ==========================================  ==========================================

    Raises:
        ConfigError: see the table; values out of bounds.
    """

    clip: float | None = None
    """C: largest L2 norm of what one unit adds."""
    delta: float | None = None
    sensitivity: float | None = None
    """S: what somebody says that a unit moves; noise is made for this."""
    epsilon: float | None = None
    """As stated, of one release."""
    noise_multiplier: float | None = None
    """z: standard deviation of the noise on the *sum*, in units of C."""
    sampling_rate: float = 1.0
    """q: chance of a unit to be in one step (this project's own mechanism)."""
    steps: int = 1
    """Optimiser steps of a round, each noised (this project's own mechanism)."""
    rounds: int = 1
    sites: int | None = None
    """How many sites' updates make a round."""
    persons: int | None = None
    """At the smallest site."""
    records_per_person: int = 1
    values: int | None = None
    """Numbers in one update."""
    fraction: float = 0.1
    noise_var: float = 0.1
    gamma: float = 1e-5
    """fraction, noise_var, gamma: of NVFlare's SVTPrivacy, with its defaults."""

    def __post_init__(self) -> None:
        faults = [f"--{_flag(name)} is missing" for name in _NEEDED if getattr(self, name) is None]
        faults += [fault for name in _REALS if (fault := _real_fault(name, getattr(self, name)))]
        faults += [fault for name in _COUNTS if (fault := _count_fault(name, getattr(self, name)))]
        if self.epsilon is None and self.noise_multiplier is None:
            faults.append("--epsilon or --noise-multiplier is missing: nothing says how large the noise is")
        if faults:
            raise ConfigError(faults, remedy="correct the lines above; see --help")

    @property
    def c(self) -> float:
        """The clip norm."""
        return float(self.clip or 0.0)

    @property
    def d(self) -> float:
        """The delta."""
        return float(self.delta or 0.0)

    @property
    def s(self) -> float:
        """The stated sensitivity; the clip norm where none is stated."""
        return self.c if self.sensitivity is None else float(self.sensitivity)

    @property
    def textbook_std(self) -> float | None:
        """Standard deviation that the classical formula makes of sensitivity, epsilon and delta."""
        return None if self.epsilon is None else classical_std(self.s, self.epsilon, self.d)

    def of_gaussian(self, mu: float, releases: int = 1) -> float:
        """Epsilon of ``releases`` Gaussian releases of signal-to-noise ratio ``mu`` that every unit is in."""
        return gaussian_epsilon(mu * math.sqrt(releases), self.d)


@dataclass(frozen=True)
class Reading:
    """The setting as one mechanism takes it."""

    name: str
    """Short, for a table."""
    call: str
    """As its framework calls it, with its arguments."""
    std: float | None
    """Of the noise on each value; None: it depends on what is not told."""
    on: str
    """What the noise is added to."""
    unit: str
    """Which two data sets are told apart: whom epsilon protects."""
    one: float
    """Epsilon of one round."""
    all: float
    """Epsilon of all rounds."""


def ours(stated: Stated) -> list[Reading]:
    """This project's mechanisms: with the noise multiplier told, or with the one that keeps epsilon over all rounds."""
    z = stated.noise_multiplier
    if z is None:
        z = _calibrated(stated)
    if z is None:
        return []
    call = f"noise_multiplier={z:.4g}" + ("" if stated.noise_multiplier is not None else ", calibrated to all rounds")
    call += f", clip_norm={stated.c:g}, sampling_rate={stated.sampling_rate:g}, steps_per_round={stated.steps}"
    both = (epsilon(_rounds(stated, z, n), stated.d) for n in (1, stated.rounds))
    readings = [Reading("llmchain-fl", f"unit person or record: {call}", z * stated.c, "sum of a step", UNIT, *both)]
    if stated.records_per_person > 1:
        k = stated.records_per_person
        both = (person_epsilon(_rounds(stated, z, n), k, stated.d) for n in (1, stated.rounds))
        call = f"unit record, for somebody with {k:,} records"
        readings.append(Reading("llmchain-fl", call, z * stated.c, "sum of a step", f"{k:,} records or none", *both))
    if stated.noise_multiplier is not None:
        both = (stated.of_gaussian(math.inf if z == 0 else 1 / z, n) for n in (1, stated.rounds))
        call = f"unit site: noise_multiplier={z:.4g}, clip_norm={stated.c:g}"
        readings.append(Reading("llmchain-fl", call, z * stated.c, "sum of a round", NONE, *both))
    return readings


def _rounds(stated: Stated, z: float, rounds: int) -> tuple[Event, ...]:
    return (Event("poisson-gaussian", stated.sampling_rate, z, stated.steps * rounds),)


def _calibrated(stated: Stated) -> float | None:
    target = stated.epsilon or 0.0
    if target > LARGEST_TARGET:
        return None
    try:
        return calibrate(target, stated.d, stated.sampling_rate, stated.steps * stated.rounds)
    except PrivacyError:
        return None


def warnings(stated: Stated) -> list[str]:
    """What a careful reader objects to in the setting itself, each as one or two sentences."""
    e, s, c, d = stated.epsilon, stated.s, stated.c, stated.d
    sentences = []
    if e is not None and s < c:
        times = "infinitely many" if s == 0 else f"{c / s:,.4g}"
        sentences.append(
            f"The noise is made for a change of {s:g}, but clipping to {c:g} lets a unit move its update by {c:g}: "
            f"{times} times as much. Sensitivity is no free choice; it follows from the clip norm."
        )
    if e is not None and e > CLASSIC_HOLDS:
        sentences.append(
            f"sqrt(2 ln(1.25 / delta)) S / epsilon is proven for epsilon <= {CLASSIC_HOLDS:g} only (Dwork & Roth 2014, "
            f"theorem A.1). Exactly epsilon {e:g} for a change of {c:g} needs a standard deviation of "
            f"{exact_std(c, e, d):.4g} (analytic Gaussian mechanism, Balle & Wang 2018)."
        )
    if e is not None and stated.rounds > 1:
        sentences.append(
            f"The stated epsilon is of one release. {stated.rounds:,} rounds release {stated.rounds:,} times, and "
            "nobody adds up unless an accountant does."
        )
    if stated.persons is not None and d >= 1 / stated.persons:
        sentences.append(f"Delta is not below 1 / {stated.persons:,}: publishing one person whole would satisfy it.")
    if e is not None and e > HIGH:
        sentences.append(f"An epsilon above {HIGH:g} proves little protection on its own.")
    return sentences


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _real_fault(name: str, value: object) -> str:
    holds, bound = _REALS[name]
    if value is None:
        return ""
    real = isinstance(value, Real) and not isinstance(value, bool)
    return "" if real and holds(float(value)) else f"--{_flag(name)} is {value!r}, must be {bound}"  # type: ignore[arg-type]


def _count_fault(name: str, value: object) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is None or (whole and 1 <= value <= _COUNTS[name]):  # type: ignore[operator]
        return ""
    return f"--{_flag(name)} is {value!r}, must be a whole number from 1 to {_COUNTS[name]:,}"
