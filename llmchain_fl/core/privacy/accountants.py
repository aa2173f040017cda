"""The two accountants of Google's ``dp_accounting``, which do not share a line: merged events and delta -> epsilon.

"pld": privacy loss distributions (Doroshenko et al. 2022, arXiv 2207.04380), the figure to report. "rdp": Renyi
(Mironov 2017, arXiv 1702.07476), looser, the cross-check. Both are upper bounds for neighbours that differ by adding or
removing one unit.

Their libraries raise, overflow or take minutes at numbers that no honest plan has, so :func:`compose` meets them first:

=====================================================  =================================================================
events                                                 counted as
=====================================================  =================================================================
z above MOST_NOISE                                     MOST_NOISE: to the safe side
q below LEAST_RATE, q above 1 - LEAST_RATE             LEAST_RATE, 1: to the safe side
more than MOST_PIECES different ones                   by "rdp" at few orders, looser: minutes otherwise
more than MOST_COMPOSED sampled steps                  by "rdp", also for "pld"
integer noise                                          continuous noise of a little less: :func:`_within`
whatever the library cannot do all the same            :class:`PrivacyError`
=====================================================  =================================================================
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import dp_accounting
import numpy as np
import numpy.typing as npt
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.events import DISCRETE, UNSAMPLED, Event, merge

MOST_NOISE = 1e6
LEAST_RATE = 1e-12
MOST_PIECES = 100
MOST_COMPOSED = 10**6

HOPELESS = 2000.0
"""From here on the Renyi bound is reported for "pld" too: nobody needs its digits, and exp() would overflow."""

_FINEST, _COARSEST, _CELLS = 2.0**-16, 2.0**-10, 1e5
_ORDERS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0, 512.0)
_ALL_ORDERS = tuple(map(float, RdpAccountant().orders))
_ROUNDED = 1 - 2.0**-13
_Piece = tuple[float, float, int]
_Floats = npt.NDArray[np.float64]


def compose(events: Sequence[Event], delta: float, accountant: str) -> float:
    """Epsilon of ``events`` by one of ACCOUNTANTS; see the table of the module. 0 <= epsilon <= infinity.

    Raises:
        PrivacyError: the accountant came to no number.
    """
    within = merge([_within(event) for event in events])
    try:
        with np.errstate(all="ignore"):
            epsilon = ACCOUNTANTS[accountant](within, delta)
    except Exception as fault:
        raise _no_number(type(fault).__name__, accountant) from fault
    if math.isnan(epsilon):
        raise _no_number("not a number", accountant)
    return max(0.0, epsilon)


def _within(event: Event) -> Event:
    """The event inside the limits of the module's table; integer noise as continuous noise that costs no less:

        (poisson-)discrete-gaussian, z   ->   (poisson-)gaussian, z (1 - 2^-13)

    The integers are a random rounding of that noise. N_Z(c, w), c any real: P[x] ~ exp(-(x - c)^2 / (2 w)), x whole.
    For w >= 8 these terms add up to sqrt(2 pi w) within a factor 1 +- e, whatever c is; e = 2.0001 exp(-2 pi^2 8) is
    below 1e-68 (Poisson summation). So, as Gaussians convolve, up to a factor within exp(+-3 e) at each integer,

    1. N_Z(0, s) + N_Z(0, s') is N_Z(0, s + s') if s s' / (s + s') >= 8, as for s, s' >= 16 (LEAST_SHARE): m shares are
       one noise (closer bounds: Kairouz, Liu & Steinke 2021, arXiv 2102.06387);
    2. x is N_Z(D, V) if y ~ N(D, V - 8) and then x ~ N_Z(y, 8), entry by entry. V: the variance of the opened sum, D:
       what all units add up to, whole numbers.

    The rounding sees y alone. So what an accountant says of y, over any draws and adaptive steps, holds of x:
    continuous noise of variance V - 8 >= z^2 S^2 (1 - 2^-13), as V >= z^2 S^2 and V >= 2^16 (LEAST_TOTAL). The factors
    of T steps of d entries are within exp(+-t), t = 3 e m d T; (epsilon, delta) of y is (epsilon + 2 t, e^t delta) for
    x. With m <= 2^16 and d, T <= 10^9 t is below 1e-44; the root leaves half of 2^-13 over.
    """
    kind, least = (DISCRETE[event.kind], _ROUNDED) if event.kind in DISCRETE else (event.kind, 1.0)
    rate = 1.0 if event.sampling_rate > 1 - LEAST_RATE else max(event.sampling_rate, LEAST_RATE)
    return Event(kind, rate, min(least * event.noise_multiplier, MOST_NOISE), event.steps)


def _no_number(why: str, accountant: str) -> PrivacyError:
    return PrivacyError(
        f"the accountant {accountant} comes to no epsilon for these releases ({why})",
        remedy="nothing was spent; ask for a noise multiplier, a sampling rate and a delta that are not extreme",
    )


def _rdp(events: tuple[Event, ...], delta: float, orders: tuple[float, ...] = ()) -> float:
    """Renyi divergences of all steps added up at each order; the smallest epsilon that follows from one of them."""
    orders = orders or (_ORDERS if len(events) > MOST_PIECES else _ALL_ORDERS)
    total = np.zeros(len(orders))
    for event in events:
        total += event.steps * _step_rdp(event.kind, event.sampling_rate, event.noise_multiplier, orders)
    return float(compute_epsilon(orders, total, delta)[0])


@lru_cache(maxsize=4096)
def _step_rdp(kind: str, sampling_rate: float, noise_multiplier: float, orders: tuple[float, ...]) -> _Floats:
    """Renyi divergence of one step at each order; infinity at an order at which the library comes to no bound.

    A divergence below 0 is none: the library would make epsilon 0 of it.
    """
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    accountant = RdpAccountant(orders)
    with _without_remarks():
        accountant.compose(
            gaussian if kind in UNSAMPLED else dp_accounting.PoissonSampledDpEvent(sampling_rate, gaussian)
        )
    divergences = np.asarray(accountant.rdp, dtype=np.float64)
    return np.where(divergences >= 0, divergences, np.inf)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep dp_accounting's warnings about left-out Renyi orders off the terminal: the bound over the others holds."""
    logger, silence = logging.getLogger("absl"), lambda record: False
    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)


def _pld(events: tuple[Event, ...], delta: float) -> float:
    rough = _rdp(events, delta, _ORDERS)
    if rough > HOPELESS:
        return rough
    pieces = _pieces(events)
    if len(pieces) > MOST_PIECES or sum(steps for *_, steps in pieces) > MOST_COMPOSED:
        return _rdp(events, delta)
    interval = _grid(pieces, rough)
    parts = (_step_pld(q, z, interval).self_compose(steps) for q, z, steps in pieces)
    total = next(parts)
    for part in parts:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _pieces(events: tuple[Event, ...]) -> list[_Piece]:
    """(q, z, steps) of what is composed on the grid. All events that are not sampled are one, exactly.

    Gaussian releases with multipliers z_1, ..., z_k are together one Gaussian release with z = (sum 1 / z_i^2)^(-1/2)
    (Dong, Roth, Su 2022, arXiv 1905.02383, corollary 2: mu-GDP composes as the root of the sum of squares).
    """
    pieces = [(e.sampling_rate, e.noise_multiplier, e.steps) for e in events if e.sampling_rate < 1]
    precision = sum(e.steps / e.noise_multiplier**2 for e in events if e.sampling_rate == 1)
    return [*pieces, (1.0, 1 / math.sqrt(precision), 1)] if precision else pieces


def _grid(pieces: Sequence[_Piece], rough: float) -> float:
    """Width of the PLD's cells, a power of 2 so that neighbours share their one-step distributions.

    A cell of width w adds about w * sqrt(steps) to the spread of the loss; keep that below 1 % of the answer (known
    as ``rough``), but no more than about _CELLS cells for one step or for the whole.
    """
    z = min(piece[1] for piece in pieces)
    wanted = min(_COARSEST, rough / (100 * math.sqrt(sum(piece[2] for piece in pieces))))
    affordable = max(_FINEST, rough / _CELLS, (0.5 / z**2 + 10 / z) / _CELLS)
    return float(2.0 ** math.floor(math.log2(max(wanted, affordable))))


@lru_cache(maxsize=64)
def _step_pld(sampling_rate: float, noise_multiplier: float, interval: float) -> Any:
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=interval
    )


ACCOUNTANTS: dict[str, Callable[[tuple[Event, ...], float], float]] = {"pld": _pld, "rdp": _rdp}
"""name -> function of (merged events, delta); each an upper bound on its own."""
