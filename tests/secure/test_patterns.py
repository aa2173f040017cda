"""Who goes when: each member is gone before its shares, before its upload, before it unmasks, or stays."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.secure_sum import Pattern
from llmchain_fl.secure_sum import Opened

POLICIES = [
    (3, 2, 2, {}, 10),
    (3, 2, 3, {"min_peers": 3}, 4),
    (3, 3, 3, {"colluders": 1}, 1),
    (4, 3, 3, {}, 13),
    (5, 3, 3, {}, 106),
]


def must_open(pattern: Pattern, threshold: int, floor: int) -> bool:
    """Whether enough are there at each step."""
    left = [sum(comes > step for comes in pattern.values()) for step in range(3)]
    return left[0] >= floor and left[1] >= floor and left[2] >= threshold


@pytest.mark.parametrize(("count", "threshold", "floor", "policy", "expected"), POLICIES)
def test_every_pattern_gives_the_exact_sum_or_none(
    folder: Path, count: int, threshold: int, floor: int, policy: dict[str, int], expected: int
) -> None:
    names = [f"site-{number:02}" for number in range(count)]
    numbers, sums, patterns = drill.some_numbers(names), 0, set()
    for pattern, opened in drill.every_pattern(folder, count, numbers, random.Random(1), **policy):
        patterns.add(tuple(pattern.values()))
        assert isinstance(opened, Opened) is must_open(pattern, threshold, floor), pattern
        if isinstance(opened, Opened):
            assert opened.sites == tuple(name for name in names if pattern[name] > 1)
            assert (opened.total == sum(numbers[name] for name in opened.sites)).all()
            sums += 1
    assert len(patterns) == 4**count
    assert sums == expected
