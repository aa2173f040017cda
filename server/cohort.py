"""Who is asked in a round, and with what weight."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence


def choose(sites: Sequence[str], size: int, seed: int, number: int) -> list[str]:
    """``size`` of ``sites`` for round ``number`` (0: all), in name order; a function of seed and round alone.

    Flower's own sampling uses the global generator over random node ids, which no two runs share.
    """
    ordered = sorted(sites)
    if size == 0 or size >= len(ordered):
        return ordered
    return sorted(random.Random(f"{seed}/{number}").sample(ordered, size))


def weights(sites: Iterable[str], values: Sequence[float]) -> Mapping[str, float]:
    """Public weight of each site, by name order; uniform if none are given. Never what a site reports."""
    ordered = sorted(sites)
    return dict(zip(ordered, values or [1.0] * len(ordered), strict=True))
