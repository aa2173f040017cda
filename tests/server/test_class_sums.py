"""Rows that start from sums over labels: the mix with the text, what noise does to it, which rounds are for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.class_sums import WEIGHT, LabelRound, LabelSums, rows_from_sums
from llmchain_fl.aggregation.lockstep import Lockstep
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.config.read import build
from server.label_rounds import label_round

ROWS, SILENT = (0, 2), (3, 4)
ASKED = LabelRound(1, ROWS, SILENT)
SEEDS = st.integers(0, 2**32 - 1)
NAMES = ["a", "b", "c", "d", "e"]


def drawn(seed: int, noise: float = 0.0) -> tuple[Any, Any]:
    """(head, sums) [5, 6]; the sums of rows nobody taught are ``noise`` alone."""
    draw = np.random.default_rng(seed)
    sums = noise * draw.normal(size=(5, 6))
    sums[[0, 1, 2]] += draw.normal(size=(3, 6))
    return draw.normal(size=(5, 6)), sums


def unit(row: Any) -> Any:
    return row / np.linalg.norm(row)


@given(SEEDS)
def test_without_noise_a_row_points_where_its_sum_does_and_keeps_its_length(seed: int) -> None:
    head, sums = drawn(seed)
    done = rows_from_sums(head, sums, ASKED)
    for row in ROWS:
        assert done[row] == pytest.approx(np.linalg.norm(head[row]) * unit(sums[row]), abs=1e-6)
    assert np.array_equal(done[[1, 3, 4]], head[[1, 3, 4]])


@given(SEEDS, st.floats(0.01, 3.0))
def test_noise_turns_a_row_back_to_its_text_by_how_much_of_its_sum_may_be_noise(seed: int, noise: float) -> None:
    head, sums = drawn(seed, noise)
    done, silent = rows_from_sums(head, sums, ASKED), sums[list(SILENT)]
    for row in ROWS:
        clear = max(0.0, 1 - 6 * (silent**2).mean() / (sums[row] ** 2).sum())
        weights = clear**0.5 / (1 - clear), 0.6 / (1 - 0.36)
        expected = unit(weights[0] * unit(sums[row]) + weights[1] * unit(head[row]))
        assert unit(done[row]) == pytest.approx(expected, abs=1e-9)
        assert np.linalg.norm(done[row]) == pytest.approx(np.linalg.norm(head[row]))


@given(SEEDS)
def test_a_sum_that_may_be_all_noise_a_sum_of_nothing_and_a_row_of_zeros_leave_the_row(seed: int) -> None:
    head, sums = drawn(seed)
    sums[list(SILENT)] = 100.0
    assert rows_from_sums(head, sums, ASKED) == pytest.approx(head)
    sums[list(SILENT)], sums[0], head[2] = 0.0, 0.0, 0.0
    assert np.array_equal(rows_from_sums(head, sums, ASKED), head)


@given(SEEDS, st.integers(1, 5), st.booleans())
def test_rounds_of_sums_add_up_also_over_a_restart_and_the_next_stage_begins_anew(
    seed: int, count: int, restarts: bool
) -> None:
    head, sums = drawn(seed, 0.3)
    draw, counter, now = np.random.default_rng(seed + 1), LabelSums(), head
    parts = [sums * share for share in draw.dirichlet(np.ones(count))]
    for part in parts:
        now = counter.with_round(now, part, ASKED)
        if restarts:
            state, counter = counter.state(), LabelSums()
            counter.load_state(state)
    assert now == pytest.approx(rows_from_sums(head, sums, ASKED), abs=1e-9)
    later = LabelRound(9, (1,), SILENT)
    assert counter.with_round(now, sums, later) == pytest.approx(rows_from_sums(now, sums, later))


def test_the_optimiser_takes_its_first_step_after_the_sums() -> None:
    """Two rounds of sums, then Adam: a first step of the whole learning rate, from the rows that the sums left."""
    head, sums = (array.astype(np.float32) for array in drawn(7, 0.1))
    lockstep = Lockstep(
        RULES["head-only"], "adam", 0.9, lambda _: 0.5, sums=lambda number: ASKED if number < 3 else None
    )
    now = {WEIGHT: head, "head.bias": np.zeros(5, np.float32)}
    for number in (1, 2, 3):
        void = lockstep.start(now, 1.0, number).finish()
        assert np.array_equal(void[WEIGHT], now[WEIGHT])  # a round that does not come about counts in no mean
        total = lockstep.start(now, 1.0, number)
        total.add(SiteFactors({WEIGHT: sums, "head.bias": np.ones(5, np.float32)}, 1.0, 1.0))
        before, now = now, dict(total.finish())
        if number < 3:
            expected = rows_from_sums(head.astype(np.float64), sums.astype(np.float64), ASKED)
            assert now[WEIGHT] == pytest.approx(expected, abs=1e-6)
            assert not now["head.bias"].any()
    assert now[WEIGHT] - before[WEIGHT] == pytest.approx(0.5 * np.sign(sums), abs=1e-4)


def run(labels: tuple[list[str], ...] = (["a", "b"], ["b", "c"]), sums: float = 0.5, **stream: Any) -> Any:
    return build(
        {
            "task": {"labels": NAMES, "head": "trained"},
            "data": {"train": "a.csv", "test": "b.csv"},
            "aggregation": {"rule": "head-only"},
            "train": {"method": "lockstep", "sums": sums},
            "continual": {"guards": ["mask"]},
            "stream": stream,
            "stage": [{"name": f"s{i}", "rounds": 4, "labels": names} for i, names in enumerate(labels)],
        }
    )


def rounds(config: Any) -> dict[int, LabelRound]:
    last = 4 * len(config.stage)
    told = {number: label_round(config, NAMES, number) for number in range(1, last + 1)}
    return {number: one for number, one in told.items() if one is not None}


def test_the_first_rounds_of_a_stage_are_sums_for_the_labels_that_no_stage_before_had() -> None:
    first, second = LabelRound(1, (0, 1), (2, 3, 4)), LabelRound(5, (2,), (0, 3, 4))
    assert rounds(run()) == {1: first, 2: first, 5: second, 6: second}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (run(sums=0.0), []),
        (run(sums=0.1), []),
        (run((["a", "b"], ["a", "b"])), [1, 2]),
        (run((["a", "b"], NAMES[1:])), [1, 2, 5, 6]),
        (run((["a", "b"], NAMES)), [1, 2]),
        (run(play="joint"), []),
        (run(order=["s1", "s0"]), [1, 2, 5, 6]),
    ],
    ids=["off", "half-a-round", "taught-before", "silent-ones-left", "all-labels-at-once", "joint", "turned-round"],
)
def test_rounds_without_new_labels_or_without_a_silent_row_are_rounds_of_gradients(
    config: Any, expected: list[int]
) -> None:
    assert list(rounds(config)) == expected


def test_labels_of_a_site_at_another_stage_are_not_silent() -> None:
    apart = run((["a", "b"], ["c", "d"]), arrival={"site-01": {"order": ["s1", "s0"]}})
    assert rounds(apart)[1] == LabelRound(1, (0, 1), (4,))
