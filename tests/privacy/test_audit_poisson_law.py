"""Tests of draws: how often they alarm on Poisson sampling, and what they see in other ways to draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import kstest

from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.privacy.audit.poisson_law import (
    batch_sizes,
    fresh_draws,
    normal_scores,
    sampling_rate,
    size_law,
    unit_counts,
)

RATE, PEOPLE, STEPS = 0.25, 40, 24
CHECKS: dict[str, Callable[[np.ndarray, float], Finding]] = {
    "rate": lambda m, alpha: sampling_rate(int(m.sum()), m.size, RATE, alpha),
    "sizes": lambda m, alpha: batch_sizes(m.sum(axis=1), m.shape[1], RATE, alpha),
    "law": lambda m, alpha: size_law(m.sum(axis=1), m.shape[1], RATE, alpha),
    "uses": lambda m, alpha: unit_counts(m.sum(axis=0), m.shape[0], RATE, alpha),
    "fresh": lambda m, alpha: fresh_draws(m, RATE, alpha),
}


def poisson(seed: int, steps: int = STEPS, people: int = PEOPLE) -> np.ndarray:
    return np.random.default_rng(seed).random((steps, people)) < RATE


def by_turns(steps: int) -> np.ndarray:
    """Shuffled epochs: everybody once in 4 steps."""
    draw = np.random.default_rng(1)
    member = np.zeros((steps, PEOPLE), dtype=bool)
    for epoch in range(0, steps, 4):
        for step, part in enumerate(np.split(draw.permutation(PEOPLE), 4)):
            member[epoch + step, part] = True
    return member


@pytest.mark.parametrize("name", CHECKS)
def test_poisson_sampling_raises_no_more_alarms_than_promised(name: str) -> None:
    runs, alpha = 600, 0.1
    alarms = sum(not CHECKS[name](poisson(seed), alpha).passed for seed in range(runs))
    assert alarms <= runs * alpha + 3 * math.sqrt(runs * alpha)


def test_counts_become_exactly_normal() -> None:
    counts = np.random.default_rng(4).binomial(7, 0.3, size=5000)
    assert kstest(normal_scores(counts, 7, 0.3), "norm").pvalue > 1e-4


def test_shuffled_epochs_are_seen_by_size_and_by_use() -> None:
    assert not CHECKS["sizes"](by_turns(48), 1e-5).passed
    assert CHECKS["uses"](by_turns(48), 1e-5).measured < 0.5
    assert not CHECKS["uses"](by_turns(48), 1e-5).passed
    assert CHECKS["rate"](by_turns(48), 1e-5).passed


def test_a_draw_that_is_used_again_is_seen() -> None:
    member = poisson(1)
    member[20] = member[3]
    assert not CHECKS["fresh"](member, 1e-5).passed
    assert CHECKS["fresh"](poisson(1), 1e-5).passed


def test_one_draw_for_all_people_is_seen() -> None:
    member = np.repeat(poisson(1, people=1), PEOPLE, axis=1)
    assert not CHECKS["sizes"](member, 1e-5).passed


def test_a_cap_that_few_batches_reach_is_seen_among_many() -> None:
    sizes = poisson(1, steps=1000).sum(axis=1)
    assert size_law(sizes, PEOPLE, RATE).passed
    assert not size_law(np.minimum(sizes, 11), PEOPLE, RATE).passed


def test_another_rate_is_seen() -> None:
    assert not sampling_rate(600, 2000, RATE).passed
    assert sampling_rate(500, 2000, RATE).passed


def test_an_impossible_count_fails() -> None:
    assert not batch_sizes(np.array([PEOPLE + 1, 10]), PEOPLE, RATE).passed


def test_a_single_step_cannot_repeat_another() -> None:
    assert fresh_draws(poisson(1, steps=1), RATE).passed
