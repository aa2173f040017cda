"""Integer noise and the integer grid, by another road: laws by summation, and Python's own integers.

Each check is one of CHECKS, called as the gate calls its own. Statistics alarm at most once in 100,000 times on a
correct program (``finding.ALPHA``), by proven bounds; the rest are equalities and bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import integer_noise, integers
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.integers import Integers
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.audit import noise_law
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import ALPHA, Finding, judge
from simulations.audit.copies import in_a_copy
from simulations.audit.effort import Effort
from simulations.audit.integer_people import integer_sensitivity
from simulations.audit.second_accountant import second_epsilon
from simulations.audit.seeds import same_seeds

Floats = NDArray[np.float64]
Check = Callable[[Path, Effort], list[Finding]]

SMALL = (1, 2, 7)
"""Variances at which each value of the law is counted."""
Plans = tuple[tuple[float, int, int, int], ...]
PLANS: Plans = ((1.1, 10, 3, 5), (0.7, 12, 7, 10), (3.3, 10, 2, 2))
"""(z, k, m, n): noise multiplier, grid, fewest sites that are opened, sites."""
COARSE = ((0.249, 10, 3), (0.9, 8, 1), (60.0, 2, 2), (0.255, 10, 5000))
"""(z, k, m) whose sum has a variance below 2^16, or the last, whose shares have one below 16."""
NOISE = 12.0
"""Deviations of the sum's noise for which a word must have room; 2**-60 needs 10.95."""
DELTA = 1e-5
COSTS = ((0.3, 2.6, 30), (0.3, 1.6, 60), (0.05, 1.0, 200))
"""(q, z, steps) whose epsilon is counted twice."""


def exact_law(variance: int) -> tuple[Integers, Floats]:
    """(x, P[x]) of N_Z(0, s), by summation; what is left out has probability 1e-300."""
    reach = math.ceil(38 * math.sqrt(variance))
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x.astype(np.float64) ** 2) / (2 * variance))
    return x, weight / weight.sum()


def counted_law(drawn: Integers, variance: int, alpha: float, name: str) -> Finding:
    """n KL(seen || N_Z(0, s)) over the values that are expected at least once, all others being one.

    P[n KL >= t] <= exp(-t) (e t / (c - 1))^(c - 1) for c values and t > c - 1 (Agrawal 2020, arXiv 1904.02291).
    Measured: n KL over the t at which this is ``alpha``.
    """
    x, chance = exact_law(variance)
    often = chance * drawn.size >= 1
    count = np.array([int((drawn == value).sum()) for value in x[often]], dtype=np.float64)
    seen = np.append(count, drawn.size - count.sum())
    expected = np.append(chance[often], max(chance[~often].sum(), 1e-300)) * drawn.size
    there, free = seen > 0, len(seen) - 1
    measured = float((seen[there] * np.log(seen[there] / expected[there])).sum())
    limit = float(brentq(lambda t: free * (1 + math.log(t / free)) - t - math.log(alpha), free, 1e6))
    words = f"How far the counts of {len(seen)} values are from their exact law, as a share of what chance explains."
    return judge(name, measured / limit, (-1e-9, 1.0), words)


def shape(drawn: Integers, variance: int, alpha: float, name: str) -> Finding:
    """Largest gap to the exact distribution function; P[gap > t] <= 2 exp(-2 n t^2) (Massart 1990), for any law."""
    x, chance = exact_law(variance)
    seen = np.searchsorted(np.sort(drawn), x, "right") / drawn.size
    gap = float(np.abs(seen - np.cumsum(chance)).max())
    limit = math.sqrt(math.log(2 / alpha) / (2 * drawn.size))
    return judge(
        name, gap, (0.0, limit), f"Largest gap between the noise's distribution and its law, {drawn.size} draws."
    )


def share_law(folder: Path, effort: Effort, plans: Plans = PLANS) -> list[Finding]:
    """The law of one share, at small variances value by value, at those of real plans as a whole."""
    count, findings = 100 * effort.draws, []
    for variance in SMALL:
        drawn = integer_noise.discrete_gaussians(count, variance)
        findings.append(counted_law(drawn, variance, ALPHA / len(SMALL), f"share law (variance {variance})"))
    for z, bits, fewest, _ in plans:
        variance, alpha = _share(z, bits, fewest), ALPHA / len(plans)
        drawn = integer_noise.discrete_gaussians(count, variance)
        real, std, name = np.asarray(drawn, dtype=np.float64), math.sqrt(variance), f"({z:g}, {bits} bits)"
        tails, repeats = noise_law.noise_tails, noise_law.noise_repeats
        findings += [
            never(f"numbers that are not whole {name}", int(drawn.dtype != np.int64), "Type of the noise."),
            noise_law.noise_size(real, std, alpha, f"share size {name}"),
            shape(drawn, variance, alpha, f"share shape {name}"),
            replace(tails(real, std, alpha), name=f"share tails {name}"),
            replace(repeats(real[: 8 * effort.quiet], std, alpha), name=f"share repeats {name}"),
        ]
    return findings


def _share(z: float, bits: int, fewest: int) -> int:
    """The variance of a share by our own arithmetic: the least s with m s >= (z 2^k)^2."""
    wanted = _claimed(z, bits) / fewest
    return -(-wanted.numerator // wanted.denominator)


def _claimed(z: float, bits: int) -> Fraction:
    """(z 2^k)^2, exactly."""
    std = Fraction(z) * (1 << bits)
    return std * std


def noise_of_the_sum(folder: Path, effort: Effort, plans: Plans = PLANS) -> list[Finding]:
    """Shares of m, m + 1, ... n sites added up: of the noise that is accounted, or more, never less."""
    findings, sums = [], sum(1 + members - fewest for _, _, fewest, members in plans)
    for z, bits, fewest, members in plans:
        variance, claimed = integer_noise.share_variance(z, bits, fewest), _claimed(z, bits)
        name = f"(z {z:g}, {fewest} of {members})"
        short = sum(sites * variance < claimed for sites in range(fewest, members + 1))
        findings.append(never(f"sums with too little noise {name}", short, "Numbers of sites, by exact arithmetic."))
        empty, box = np.zeros(8 * effort.quiet, dtype=np.int64), integers.reach(4) << bits
        shares = [integer_noise.noised_share(empty, box, variance) for _ in range(members)]
        for sites in range(fewest, members + 1):
            total = np.stack(shares[:sites]).sum(axis=0).astype(np.float64)
            std, alpha = math.sqrt(float(claimed) * sites / fewest), ALPHA / sums
            findings.append(noise_law.noise_size(total, std, alpha, f"noise of the sum of {sites} {name}"))
    accepted = 0
    for plan in COARSE:
        with suppress(PrivacyError):
            integer_noise.share_variance(*plan)
            accepted += 1
    return [*findings, never("grids too coarse for the accountant", accepted, "Plans for which there was a share.")]


def noise_is_new(folder: Path, effort: Effort) -> list[Finding]:
    """Calls, copies of this process and calls after them: all seeds set alike, never the same noise."""

    def draw() -> Floats:
        with same_seeds():
            shares = integer_noise.noised_share(np.zeros(effort.quiet, dtype=np.int64), 2**20, 10**6)
        return np.asarray(shares, dtype=np.float64)

    noises = [draw(), draw(), in_a_copy(draw), in_a_copy(draw), draw()]
    return [noise_law.noise_reuse(noises, name="integer noise re-use")]


def box(folder: Path, effort: Effort) -> list[Finding]:
    """Sums far beyond the box, at its edge, and within it: the noise is whole at each of them."""
    edge, variance, count = integers.reach(3) << 10, 10**6, 2 * effort.quiet
    findings = []
    for name, value in (("within", 100), ("at the edge of", edge), ("far above", 50 * edge), ("far below", -7 * edge)):
        share = integer_noise.noised_share(np.full(count, value, dtype=np.int64), edge, variance)
        noise = (share - min(max(value, -edge), edge)).astype(np.float64)
        findings.append(noise_law.noise_size(noise, 1000.0, ALPHA / 8, f"noise {name} the box"))
        findings.append(replace(noise_law.noise_shape(noise, 1000.0, ALPHA / 8), name=f"noise shape {name} the box"))
    return findings


def room(folder: Path, effort: Effort) -> list[Finding]:
    """Sums of all sites at the edge of their boxes, and of the bound of plain words: nothing wraps."""
    wrapped, plain = 0, 0
    for z, bits, fewest, members in PLANS:
        variance, edge = _share(z, bits, fewest), integers.reach(40) << bits
        width = integers.word_bits(members, edge, variance)
        for sign in (-1, 1):
            most = sign * (members * edge + math.ceil(NOISE * math.sqrt(members * variance)))
            wrapped += _signed(most % 2**width, width) != most
    for members in (1, 3, 10, 1000):
        for value in (-2.0, 2.0, 0.3):
            words = integers.to_words(np.full(1, value), 2.0, members)
            total = np.array([int(words[0]) * members % 2**32], dtype=np.uint32)
            plain += abs(float(integers.from_words(total, 2.0, members)[0]) / members - value) > members * 2.0**-30
    return [
        never("noised sums that wrap", wrapped, f"All sites at the edge of the box and {NOISE:g} deviations of noise."),
        never("plain sums that wrap", plain, "All sites at the bound, or within it."),
    ]


def _signed(word: int, bits: int) -> int:
    return word - 2**bits if word >= 2 ** (bits - 1) else word


def integer_accounts(folder: Path, effort: Effort) -> list[Finding]:
    """Epsilon on record of integer noise over that of a second accountant, and over that of the noise it is made from.

    A discrete Gaussian of variance V is a continuous one of variance V - 8 that is randomly rounded; V >= 2^16.
    """
    shares, made_from = [], []
    for q, z, steps in COSTS:
        booked = epsilon([Event("poisson-discrete-gaussian", q, z, steps)], DELTA)
        less = z * math.sqrt(1 - 8 / 2**16)
        shares.append(booked / second_epsilon([Event("poisson-gaussian", q, z, steps)], DELTA))
        made_from.append(booked / epsilon([Event("poisson-gaussian", q, less, steps)], DELTA))
    words = "Epsilon of integer noise over that of"
    return [
        judge("least epsilon of integer noise", min(shares), (1.0, 1.02), f"{words} a second accountant."),
        judge("largest epsilon of integer noise", max(shares), (1.0, 1.02), f"{words} a second accountant."),
        judge("epsilon of rounded noise", min(made_from), (1.0, 1.001), f"{words} the noise that is rounded."),
    ]


def of_plan(plan: PrivacyPlan) -> Mapping[str, Check]:
    """The checks of the integers that depend on a plan, of one whose sites share the noise."""
    own = ((plan.noise_multiplier, plan.grid, plan.shares, plan.members),)
    return {"own shares": partial(share_law, plans=own), "own sums": partial(noise_of_the_sum, plans=own)}


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "share law": share_law,
        "noise of the sum": noise_of_the_sum,
        "integer noise is new": noise_is_new,
        "integer sensitivity": integer_sensitivity,
        "box": box,
        "room": room,
        "integer accounts": integer_accounts,
    }
)
"""name -> a check, of ``gate.CHECKS``."""
