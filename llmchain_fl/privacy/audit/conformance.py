"""What one person may do to a release, and what may not happen at all. No statistics: equalities and bounds.

Each function compares two things that were *seen* (released updates) or told (the drawn batches, the ledger). The
tolerance is for float32 arithmetic only and stands in the finding.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.privacy.audit.finding import NEVER, Finding, judge

Floats = NDArray[np.float64]

ROUNDING = 1e-6
"""Relative error granted to a clipped row: ``clipped_sum`` promises C (1 + 1e-6)."""


def sensitivity(norms: Floats, clip_norm: float, setting: str) -> Finding:
    """max norm / C over the contributions ``norms`` of one person each; at most 1. NaN fails."""
    worst = float(np.max(norms)) / clip_norm
    words = f"Largest contribution of one person over the clip norm, {setting}."
    return judge("sensitivity", worst, (0.0, 1.0 + ROUNDING), words)


def interference(
    with_person: Floats, without: Floats, own: NDArray[np.bool_], clip_norm: float, tolerance: float
) -> tuple[Finding, Finding]:
    """Releases of D and of D minus one person, noise off, as sums before the public division.

    A person adds one clipped vector and touches nothing else: where only others stand the releases are equal, and they
    differ by at most C in all. Fails for clipping a whole batch, for a divisor that is a private count, and for a
    record that spoils the sum.

    Args:
        with_person: release of D, [P].
        without: release of D minus the person, [P].
        own: coordinates that the person's records touch, bool [P].
        clip_norm: C.
        tolerance: allowed difference elsewhere.
    """
    apart = with_person - without
    elsewhere = float(np.abs(apart[~own]).max(initial=0.0)) if np.isfinite(apart).all() else math.nan
    size = float(np.linalg.norm(apart)) / clip_norm
    return (
        judge("others untouched", elsewhere, (0.0, tolerance), "Largest change of what others added, by one person."),
        judge("neighbours", size, (0.0, 1.0 + ROUNDING), "Change of the release by one person, over the clip norm."),
    )


def used_once(drawn: NDArray[np.bool_], seen: Floats, tolerance: float, name: str = "used exactly once") -> Finding:
    """``seen``: how many full contributions of each unit a step's update holds, [T, n]; must equal ``drawn``.

    Fails for cut-off batches (a drawn unit is missing), for a unit drawn twice, and for a wrong divisor.
    """
    gap = float(np.abs(seen - drawn).max(initial=0.0)) if np.isfinite(seen).all() else math.nan
    words = "Largest gap between the people drawn and the people in the update (1 = somebody missing or twice)."
    return judge(name, gap, (0.0, tolerance), words)


def whole_numbers(seen: Floats, largest: int, tolerance: float) -> Finding:
    """Where the draw itself is secret: each entry of ``seen`` must be 0, 1, ..., ``largest``; 1 for a single step."""
    nearest = np.clip(np.round(seen), 0, largest)
    gap = float(np.abs(seen - nearest).max(initial=0.0)) if np.isfinite(seen).all() else math.nan
    words = "Largest gap to a whole contribution of one person per step (1 = somebody was used twice in one step)."
    return judge("at most once a step", gap, (0.0, tolerance), words)


def equal_counts(name: str, seen: float, stated: float, words: str) -> Finding:
    """Two counts that must be the same; measured: their difference."""
    return judge(name, seen - stated, NEVER, f"{words} Seen {seen:g}, on record {stated:g}.")


def never(name: str, happened: int, words: str) -> Finding:
    """Something that must not happen, counted."""
    return judge(name, happened, NEVER, words)
