"""Page's CUSUM on windows of yes and no. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass

EDGE = 1e-4
"""Rates are kept so far from 0 and 1: a rate of 0 that is not one would be an alarm at the first yes."""


@dataclass
class Cusum:
    """A rise from a rate of at most ``before`` to one of at least ``after``.

        S_0 = 0,   S_t = max(0, S_{t-1} + x_t log(p1 / p0) + (n_t - x_t) log((1 - p1) / (1 - p0)))

    x_t yes of n_t texts, p0 = ``before``, p1 = ``after``; an alarm where S_t >= h (Page 1954, Biometrika 41; the log
    likelihood ratio as increment: Lorden 1971, Annals of Mathematical Statistics 42).

    Guarantee: while texts are yes independently with chance at most p0,

        P(an alarm within N windows) <= N e^-h,

    for exp of a sum of increments from any window on is a supermartingale that begins at 1, and reaches e^h with chance
    e^-h at most (Ville); there are N windows at which it can begin. h = log(M): one false alarm in M windows at most.

    | case | S |
    |---|---|
    | a window of no text | stays |
    | always no | 0 |
    | p0 = 0, p1 = 1 | kept ``EDGE`` away from both |

    Raises:
        ValueError: ``after`` is not above ``before``, or ``between`` is 1 or less.
    """

    before: float
    after: float
    between: float
    """M: windows among which there is one false alarm at most."""
    sum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.before < self.after <= 1 or self.between <= 1:
            raise ValueError("a rise needs two rates in 0 .. 1, and more than one window between false alarms")
        low = min(max(self.before, EDGE), 1 - 2 * EDGE)
        high = max(min(self.after, 1 - EDGE), 2 * EDGE)
        self._yes, self._no = math.log(high / low), math.log((1 - high) / (1 - low))
        self._bound = math.log(self.between)

    def see(self, yes: int, texts: int) -> float:
        """S / h after one more window; an alarm from 1 on."""
        self.sum = max(0.0, self.sum + yes * self._yes + (texts - yes) * self._no)
        return self.sum / self._bound

    def reset(self) -> None:
        """As at the beginning."""
        self.sum = 0.0
