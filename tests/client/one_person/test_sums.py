"""What a person adds to a step is a function of that person's records and of public constants, for any arrays.

Over bases, tasks and guards, hostile arrays, rows of a pass, and who else is there: the noise-free sum is what each
person adds alone, and one person more or less moves it by at most C (1 + 1e-6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchain_fl.core.adapter import routing
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import Shape

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
        draw(
            st.sampled_from(
                [
                    "ordinary",
                    "zeros",
                    "overflow",
                    "ill-conditioned",
                    "at padding",
                    "slots",
                    "queries of no number",
                    "huge B",
                ]
            )
        ),
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


@settings(max_examples=8, suppress_health_check=CHECKS)
@given(crowd=crowds())
@pytest.mark.part(2)
def test_a_person_moves_the_sum_by_what_this_person_adds_alone_and_by_at_most_the_clip_norm(
    world: Any, small: Any, crowd: Crowd
) -> None:
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
    monkeypatch.setattr(Shape, "padded", lambda shape, length: length)
    with pytest.raises(AssertionError):
        assert moved(world, small, crowd) <= 1 + 1e-6


def on_the_border(world: Any, draw: Any, count: int, record: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays and ``count`` keys, two of which are equally near to a record but for rounding; the nearest takes all."""
    world.resident.reset()
    examples = Examples([record], np.zeros(1, dtype=np.int64))
    with world.resident.router.listening() as seen:
        world.task.forward(examples, [0])
    own = seen[0][0].double().numpy()
    own /= np.linalg.norm(own)
    keys = []
    for place in range(count):
        aside = draw.normal(size=len(own))
        aside -= own * (own @ aside)
        near = 0.6 if place < 2 else 0.1
        keys.append(near * own + (1 - near**2) ** 0.5 * aside / np.linalg.norm(aside))
    told = {name: draw.normal(0, 0.3, shape) for name, shape in world.resident.shapes.items()}
    told |= {"route.keys": np.array(keys), "route.centre": np.zeros(len(own)), "route.tau": np.full(1, 1e-30)}
    told["slots.pair"] = np.array([1.0, 2.0, 1.0])
    return {name: value.astype(np.float32) for name, value in told.items()}


def largest_move(world: Any, small: Any, shape: Any) -> float:
    """Somebody joins a crowd of which everybody stands on the border of two slots, in clip norms."""
    draw, moves = np.random.default_rng(4), []
    record = world.words[draw.integers(0, len(world.words), size=8)]
    examples = Examples([record] * 16, np.zeros(16, dtype=np.int64))
    for _ in range(12):
        world.brought = on_the_border(world, draw, 3, record)
        if shape is None:
            world.fixed(examples, 16)
        else:
            examples.fix(shape)
        world.resident.load(world.brought)
        for count in (1, 5, 10):
            crowd = [[i] for i in range(1, count + 1)]
            sums = [world.sum_of(examples, units, 1.0, small) for units in (crowd, [[0], *crowd])]
            moves.append(float((sums[1] - sums[0]).norm()))
    return max(moves)


@pytest.mark.parametrize("world", ["bert, anchor"], indirect=True)
@pytest.mark.parametrize("rounding", ["of this machine", "by the number of rows"])
@pytest.mark.part(1)
def test_which_slot_answers_a_record_does_not_depend_on_how_rounding_falls_beside_others(
    world: Any, small: Any, monkeypatch: pytest.MonkeyPatch, rounding: str
) -> None:
    """The number of slots is the server's: which kernel takes the keys, and how it rounds a row, follows from it."""
    if rounding != "of this machine":
        plain = routing.chosen

        def by_rows(features: torch.Tensor, table: Any) -> torch.Tensor:
            off = 1e-6 * torch.randn(table.keys.shape, generator=torch.Generator().manual_seed(len(features)))
            return plain(features, replace(table, keys=table.keys + off))

        monkeypatch.setattr(routing, "chosen", by_rows)
        world.resident.found.clear()
        as_without_slots = Shape(16, 16, (((16, False), 2),))
        assert largest_move(world, small, as_without_slots) > 3
    assert largest_move(world, small, None) <= 1 + 1e-6
    world.resident.found.clear()
