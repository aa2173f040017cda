"""What a person adds to a step is a function of that person's records and of public constants, for any arrays.

Over bases, tasks and guards, hostile arrays, rows of a pass, and who else is there: the noise-free sum is what each
person adds alone, and one person more or less moves it by at most C (1 + 1e-6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LENGTHS = st.integers(2, 16)
CHECKS = [HealthCheck.function_scoped_fixture]


@dataclass(frozen=True)
class Crowd:
    """Who is drawn: for each person the lengths of their records; ``who`` is the one that comes or goes."""

    people: tuple[tuple[int, ...], ...]
    who: int
    arrays: str = "ordinary"
    rows: int = 4
    clip: float = 0.3
    open_bytes: int = 2**26
    seed: int = 1


@st.composite
def crowds(draw: Any) -> Crowd:
    """One person with up to 64 records, somewhere among others."""
    one = st.one_of(st.lists(LENGTHS, min_size=1, max_size=4), st.lists(LENGTHS, min_size=1, max_size=64))
    people = draw(st.lists(st.lists(LENGTHS, min_size=1, max_size=3), min_size=1, max_size=6))
    who = draw(st.integers(0, len(people)))
    people.insert(who, draw(one))
    return Crowd(
        tuple(map(tuple, people)),
        who,
        draw(st.sampled_from(["ordinary", "zeros", "overflow", "ill-conditioned", "at padding", "huge B"])),
        draw(st.sampled_from([1, 2, 4, 7, 16])),
        draw(st.sampled_from([1e-4, 0.3, 10.0])),
        draw(st.sampled_from([1, 2**15, 2**26])),
        draw(st.integers(0, 9)),
    )


def moved(world: Any, small: Any, crowd: Crowd) -> float:
    """How far the person moves the sum, in clip norms; checks that the sum is what each adds alone."""
    world.load(crowd.arrays, crowd.seed)
    examples = world.records([length for records in crowd.people for length in records], crowd.seed)
    world.fixed(examples, crowd.rows)
    starts = np.cumsum([0, *map(len, crowd.people)])
    units = [list(range(a, b)) for a, b in pairwise(starts)]
    with mock.patch("client.gradients.OPEN_BYTES", crowd.open_bytes):
        whole = world.sum_of(examples, units, crowd.clip, small)
        without = world.sum_of(examples, [u for u in units if u is not units[crowd.who]], crowd.clip, small)
        alone = [world.sum_of(examples, [unit], crowd.clip, small) for unit in units]
    assert torch.isfinite(whole).all()
    rounding = 1e-13 * crowd.clip  # of a float64 sum; that of float32 is 1e-8
    assert float((whole - torch.stack(alone).sum(dim=0)).abs().max()) <= rounding
    return float((whole - without).norm()) / crowd.clip


@settings(max_examples=10, suppress_health_check=CHECKS)
@given(crowd=crowds())
def test_a_person_moves_the_sum_by_what_this_person_adds_alone_and_by_at_most_the_clip_norm(
    world: Any, small: Any, crowd: Crowd
) -> None:
    assert moved(world, small, crowd) <= 1 + 1e-6


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=CHECKS)
@given(crowd=crowds())
def test_the_same_over_many_more_crowds(world: Any, small: Any, crowd: Crowd) -> None:
    assert moved(world, small, crowd) <= 1 + 1e-6


def padded_to_the_longest(examples: Any, index: Sequence[int], batch: int) -> Iterator[tuple[list[int], int]]:
    """How records were passed before: those of like length together, padded to the longest of them."""
    order, rows = sorted(map(int, index), key=examples.length), examples.shape.rows
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        yield part, len(part)


@pytest.mark.parametrize(
    ("world", "arrays"), [("bert", "at padding"), ("fnet, a trained head", "ordinary")], indirect=["world"]
)
def test_the_same_check_sees_neighbours_that_decide_about_padding(
    world: Any, small: Any, monkeypatch: pytest.MonkeyPatch, arrays: str
) -> None:
    """Negative control: one long record joins a pass of short ones; with an attacker, and without one."""
    crowd = Crowd(((8,),) * 15 + ((16,),), 15, arrays, 16, 1e-4)
    assert moved(world, small, crowd) <= 1 + 1e-6
    monkeypatch.setattr("client.gradients.passes", padded_to_the_longest)
    with pytest.raises(AssertionError):
        assert moved(world, small, crowd) <= 1 + 1e-6
