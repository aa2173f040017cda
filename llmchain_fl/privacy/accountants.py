"""The two accountants of Google's ``dp_accounting``, which do not share a line: merged events and delta -> epsilon.

"pld": privacy loss distributions (Doroshenko et al. 2022, arXiv 2207.04380), the figure to report. "rdp": Renyi
(Mironov 2017, arXiv 1702.07476), looser, the cross-check. Both are upper bounds for neighbours that differ by adding or
removing one unit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant

from llmchain_fl.privacy.events import Event

HOPELESS = 2000.0
"""From here on the Renyi bound is reported for "pld" too: nobody needs its digits, and exp() would overflow."""

_FINEST, _COARSEST, _CELLS = 2.0**-16, 2.0**-10, 1e5
_ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512)
_Piece = tuple[float, float, int]


def _rdp(events: tuple[Event, ...], delta: float, orders: Sequence[float] | None = None) -> float:
    accountant = RdpAccountant(orders)
    with _without_remarks():
        for event in events:
            gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian)
            accountant.compose(gaussian if event.kind == "gaussian" else sampled, event.steps)
        return float(accountant.get_epsilon(delta))


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
    interval = _grid(pieces, rough)
    parts = (_step_pld(q, z, interval).self_compose(steps) for q, z, steps in pieces)
    total = next(parts)
    for part in parts:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _pieces(events: tuple[Event, ...]) -> list[_Piece]:
    """(q, z, steps) of what is composed on the grid. All "gaussian" events are one, exactly.

    Gaussian releases with multipliers z_1, ..., z_k are together one Gaussian release with z = (sum 1 / z_i^2)^(-1/2)
    (Dong, Roth, Su 2022, arXiv 1905.02383, corollary 2: mu-GDP composes as the root of the sum of squares).
    """
    pieces = [(e.sampling_rate, e.noise_multiplier, e.steps) for e in events if e.kind != "gaussian"]
    precision = sum(e.steps / e.noise_multiplier**2 for e in events if e.kind == "gaussian")
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
