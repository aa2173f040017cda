"""A score of a task as a value that travels with its numbers: nobody asks by name which way is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]
SHARE = "share"
"""Unit of a mean over records of values from 0 to 1."""


@dataclass(frozen=True)
class Metric:
    """One score of a task.

    Attributes:
        name: as in ``metrics.jsonl``.
        better: which way is better.
        unit: ``SHARE``, ``nats``, ``bits``, or empty for a plain number.
        bound: public upper bound of one record's score, lower bound 0: what a noised score is scaled by; inf: none.
    """

    name: str
    better: Better
    unit: str = ""
    bound: float = math.inf

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 where lower is: ``sign * value`` is always better when higher."""
        return 1.0 if self.better == "higher" else -1.0

    def gain(self, before: float, after: float) -> float:
        """How much better ``after`` is than ``before``; negative where it is worse."""
        return self.sign * (after - before)
