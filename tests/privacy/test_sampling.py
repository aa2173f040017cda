from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.noise import Uniform
from llmchain_fl.core.privacy.sampling import poisson_batches, secret_uniform, seeded_uniform

ALARM = 1e-7
SOURCES = [pytest.param(secret_uniform, id="secret"), pytest.param(seeded_uniform(3, "north", 5), id="seeded")]


def follows_binomial(counts: np.ndarray, trials: int, rate: float) -> bool:
    """Chi-square test of counts against Bin(trials, rate), cells with fewer than 5 expected pooled into the tails."""
    low, high = (int(x) for x in stats.binom.ppf([0.02, 0.98], trials, rate))
    edges = np.arange(low, high + 1)
    cells = np.clip(np.searchsorted(edges, counts, side="left"), 0, edges.size)
    observed = np.bincount(cells, minlength=edges.size + 1)
    cumulative = stats.binom.cdf(edges, trials, rate)
    expected = counts.size * np.diff(np.concatenate([[0.0], cumulative, [1.0]]))
    return bool(stats.chisquare(observed, expected).pvalue > ALARM)


def presence(batches: list[np.ndarray], n: int) -> np.ndarray:
    return np.array([np.isin(np.arange(n), batch) for batch in batches])


@pytest.mark.parametrize("uniform", SOURCES)
def test_batch_sizes_and_counts_per_record_are_binomial(uniform: Uniform) -> None:
    n, rate, steps = 400, 0.1, 1500
    there = presence(list(poisson_batches(n, rate, steps, uniform)), n)
    assert there.shape == (steps, n)
    assert follows_binomial(there.sum(axis=1), n, rate)
    assert follows_binomial(there.sum(axis=0), steps, rate)


def test_shuffled_epochs_fail_the_same_test() -> None:
    n, rate, steps = 400, 0.1, 1500
    generator = np.random.default_rng(0)
    shuffled = [part for _ in range(150) for part in generator.permutation(n).reshape(10, 40)]
    there = presence(shuffled, n)
    assert not follows_binomial(there.sum(axis=1), n, rate)
    assert not follows_binomial(there.sum(axis=0), steps, rate)


@pytest.mark.parametrize("uniform", SOURCES)
def test_two_records_and_two_steps_are_drawn_independently(uniform: Uniform) -> None:
    there = presence(list(poisson_batches(200, 0.3, 2000, uniform)), 200).astype(float)
    bound = 5.5 / math.sqrt(there.size / 2)
    for left, right in ((there[:, 0::2], there[:, 1::2]), (there[0::2], there[1::2])):
        assert abs(float(np.corrcoef(left.ravel(), right.ravel())[0, 1])) < bound


def test_empty_draws_are_yielded_not_skipped() -> None:
    batches = list(poisson_batches(2, 0.05, 500, seeded_uniform(0, "a", 0)))
    assert len(batches) == 500
    empty = sum(batch.size == 0 for batch in batches)
    low, high = stats.binom.ppf([ALARM, 1 - ALARM], 500, 0.95**2)
    assert low <= empty <= high


def test_a_site_without_records_still_takes_every_step() -> None:
    batches = list(poisson_batches(0, 0.5, 3, secret_uniform))
    assert [batch.size for batch in batches] == [0, 0, 0]


def test_a_rate_of_one_draws_everybody_every_time() -> None:
    assert [batch.tolist() for batch in poisson_batches(4, 1.0, 2, secret_uniform)] == [[0, 1, 2, 3]] * 2


def test_a_record_is_in_when_its_uniform_is_strictly_below_the_rate() -> None:
    (batch,) = poisson_batches(4, 0.5, 1, lambda size: np.array([0.1, 0.5, 0.9, 0.4999]))
    assert batch.tolist() == [0, 3]
    assert batch.dtype == np.int64


def test_the_seeded_batches_repeat_and_depend_on_seed_site_and_round() -> None:
    def batches(seed: int, site: str, round_number: int) -> list[list[int]]:
        return [b.tolist() for b in poisson_batches(50, 0.2, 5, seeded_uniform(seed, site, round_number))]

    assert batches(1, "north", 2) == batches(1, "north", 2)
    assert (
        len({str(batches(*key)) for key in [(1, "north", 2), (2, "north", 2), (1, "south", 2), (1, "north", 3)]}) == 4
    )
    assert len({str(batch) for batch in batches(1, "north", 2)}) == 5


def test_the_secret_batches_do_not_repeat_under_a_seed() -> None:
    draws = []
    for _ in range(2):
        np.random.seed(1)
        draws.append([b.tolist() for b in poisson_batches(100, 0.5, 3, secret_uniform)])
    assert draws[0] != draws[1]


@pytest.mark.parametrize(
    ("n", "rate", "steps"), [(3, 0.0, 1), (3, -0.1, 1), (3, 1.01, 1), (3, math.nan, 1), (-1, 0.5, 1), (3, 0.5, -1)]
)
def test_a_broken_bound_is_refused_before_the_first_batch(n: int, rate: float, steps: int) -> None:
    with pytest.raises(PrivacyError, match="Poisson"):
        poisson_batches(n, rate, steps, secret_uniform)
