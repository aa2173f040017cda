"""Who goes when, in larger clubs and sparse graphs: patterns by chance."""

from __future__ import annotations

import random

import pytest

from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.secure_sum import Pattern
from llmchain_fl.secure_sum import Opened

LARGER = [
    (6, 4, 4, {}),
    (6, 5, 5, {"colluders": 2}),
    (7, 4, 6, {"survivors": 6}),
    (8, 5, 5, {}),
    (8, 3, 6, {"all_pairs": 3, "neighbours": 4}),
]


def must_open(pattern: Pattern, threshold: int, floor: int) -> bool:
    """Whether enough are there at each step."""
    left = [sum(comes > step for comes in pattern.values()) for step in range(3)]
    return left[0] >= floor and left[1] >= floor and left[2] >= threshold


@pytest.mark.parametrize(("count", "threshold", "floor", "policy"), LARGER)
def test_patterns_by_chance_give_the_exact_sum_or_none(  # type: ignore[no-untyped-def]
    make_club, count: int, threshold: int, floor: int, policy: dict[str, int]
) -> None:
    club, draw, sums = make_club(count, **policy), random.Random(count), 0
    names = sorted(club.members)
    for number in range(10):
        comes = dict(zip(names, draw.choices(range(4), (1, 1, 2, 8 if number else 10**9), k=count), strict=True))
        numbers = drill.some_numbers(names, seed=number)
        drill.give_keys(club)
        drill.give_shares(club, [name for name in names if comes[name] > 0])
        drill.upload(club, [name for name in names if comes[name] > 1], numbers)
        drill.confirm(club, [name for name in names if comes[name] > 2])
        drill.unmask(club, [name for name in names if comes[name] > 2])
        opened = club.server.opened()
        if "neighbours" not in policy:
            assert isinstance(opened, Opened) is must_open(comes, threshold, floor)
        if isinstance(opened, Opened):
            assert (opened.total == sum(numbers[name] for name in opened.sites)).all()
            assert len(opened.sites) >= floor
            sums += 1
        drill.next_round(club)
    assert sums > 0
