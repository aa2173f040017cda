"""The margin of chance of a score on n records, and of a change between two adapters on the same records. Numpy only.

95 % intervals with z = 1.96. They speak about other records of the same kind, not about other seeds of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959964


def share_half_width(share: float, n: int) -> float:
    """Half-width of the 95 % interval of a share ``p`` of ``n`` records: the farther end of Wilson's interval.

    ``c -/+ w`` with ``c = (p + z^2/2n) / (1 + z^2/n)`` and ``w = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)``; the
    result is ``|p - c| + w``, so that p -/+ it holds Wilson's interval (Wilson 1927; Brown, Cai and DasGupta 2001).
    The mean of any values from 0 to 1 has at most the variance of a share, so that it may be one.

    | case | value |
    |---|---|
    | p = 0 or 1 | above 0: about 3.84 / n |
    | p = 1/2, n large | 0.98 / sqrt(n) |
    | n = 0, or p is NaN | NaN |
    | p outside 0 to 1 by rounding | taken as 0 or 1 |
    """
    if n <= 0 or math.isnan(share):
        return math.nan
    p, square = min(max(share, 0.0), 1.0), Z * Z / n
    centre = (p + square / 2) / (1 + square)
    width = math.sqrt(p * (1 - p) * square + square * square / 4) / (1 + square)
    return abs(p - centre) + width


@dataclass(frozen=True)
class Change:
    """How much a mean over the same records rose, and the half-width of its 95 % interval."""

    value: float
    half_width: float

    @property
    def real(self) -> bool:
        """Whether chance alone hardly makes it: the interval leaves 0 out."""
        return abs(self.value) > self.half_width


def paired_change(before: NDArray[np.float64], after: NDArray[np.float64]) -> Change:
    """The change of a mean of values from 0 to 1 on the same n records, with the margin of chance of the pairs.

    d_i = after_i - before_i; value = mean d. Of right and wrong answers, the variance of d is McNemar's (1947). The
    interval is that of Agresti and Min (2005, Statistics in Medicine 24): two made-up records more, half a one better,
    half a one worse and one the same, so that with n' = n + 2

        c = sum d / n',   w = z sqrt((sum d^2 + 1) / n' - c^2) / sqrt(n'),   half_width = |value - c| + w

    | case | value |
    |---|---|
    | the same answers | 0, half-width about 1.96 / n: not 0, another record might differ |
    | all wrong, then all right | 1, half-width above 0 |
    | a record that is NaN on either side | counts as 0 there: it was not answered |
    | no record | NaN |
    | other lengths | ValueError |
    """
    if before.shape != after.shape:
        raise ValueError(f"{len(before)} records before, {len(after)} after")
    if not before.size:
        return Change(math.nan, math.nan)
    rise = np.nan_to_num(after, nan=0.0) - np.nan_to_num(before, nan=0.0)
    size, value = rise.size + 2, float(rise.mean())
    centre = float(rise.sum()) / size
    width = Z * math.sqrt(max((float(np.square(rise).sum()) + 1) / size - centre**2, 0.0) / size)
    return Change(value, abs(value - centre) + width)
