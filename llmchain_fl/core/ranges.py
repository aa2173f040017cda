"""Bounds of what travels, as tables: a spec names its fields' bounds, one function finds every fault."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from llmchain_fl.core.printable import printable


@dataclass(frozen=True)
class Range:
    """low <= x <= high; ``above``: low itself is out; ``below``: high itself is out."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a finite ``value`` lies in it."""
        inside = self.low <= value <= self.high
        return inside and not (self.above and value == self.low) and not (self.below and value == self.high)

    def __str__(self) -> str:
        low, high = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{low} {self.low:g} and {high} {self.high:g}"


Bound = Range | Collection[str]
"""A range of numbers, or the words that a text may be."""


def range_faults(spec: object, bounds: Mapping[str, Bound]) -> list[str]:
    """One line for each field of ``spec`` outside its bound.

    ==========================  ==================
    value                       fault
    ==========================  ==================
    NaN, infinity               yes
    a number of any size        compared exactly
    a text for a number         yes
    ==========================  ==================
    """
    return [fault for name, bound in bounds.items() if (fault := value_fault(name, getattr(spec, name), bound))]


def value_fault(name: str, value: object, bound: Bound) -> str:
    """Why ``value`` is outside its bound; "" where it is not."""
    if not isinstance(bound, Range):
        known = isinstance(value, str) and value in bound
        return "" if known else f"{name} is {_shown(value)}; it must be one of {', '.join(sorted(bound))}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = number and (isinstance(value, int) or math.isfinite(value)) and bound.holds(value)  # type: ignore[arg-type]
    return "" if good else f"{name} is {_shown(value)}; it must be {bound}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return printable(repr(value[:40]))
    return (
        repr(value)
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**30)
        else "no such number"
    )
