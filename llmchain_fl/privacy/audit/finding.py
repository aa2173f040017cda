"""What one check of the gate says, in a form that a data-protection officer can read."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 1e-5
"""Chance that a *correct* program fails one statistical check. With ten such checks, 1,000 runs of the whole gate on
correct code raise 0.1 alarms on average."""

NEVER = 0.0, 0.0
"""Allowed range of a count of things that must not happen at all."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check.
        passed: whether ``measured`` lies in the closed range ``allowed``.
        measured: what was seen.
        allowed: smallest and largest value that a correct program may show.
        words: what was measured and what it means, one or two sentences.
    """

    name: str
    passed: bool
    measured: float
    allowed: tuple[float, float]
    words: str

    def __str__(self) -> str:
        low, high = self.allowed
        mark = "pass" if self.passed else "FAIL"
        return f"{mark}  {self.name}: {self.measured:.8g} (allowed {low:.8g} to {high:.8g}). {self.words}"


def judge(name: str, measured: float, allowed: tuple[float, float], words: str) -> Finding:
    """A finding; passed when ``measured`` is in the range, bounds included. NaN never passes."""
    measured = float(measured)
    passed = not math.isnan(measured) and allowed[0] <= measured <= allowed[1]
    return Finding(name, passed, measured, (float(allowed[0]), float(allowed[1])), words)
