"""Each row of the tables of ``abstain.py``, and Wilson's lower end by solving its equation."""

from __future__ import annotations

import pytest
from scipy.optimize import brentq

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.evaluation.abstain import abstain_below, lower_end
from llmchain_fl.evaluation.margin import Z


@pytest.mark.parametrize(("right", "n"), [(5, 10), (90, 100), (1, 3), (99, 100)])
def test_the_lower_end_solves_wilsons_equation(right: int, n: int) -> None:
    """The smallest share from which so many right ones are no farther than z standard errors."""
    found = brentq(lambda p: (right / n - p) ** 2 - Z**2 * p * (1 - p) / n, 0.0, right / n)
    assert lower_end(right, n) == pytest.approx(found, abs=1e-9)


def test_the_edges_of_the_lower_end() -> None:
    assert lower_end(0, 0) == 0.0
    assert lower_end(7, 7) == pytest.approx(7 / (7 + Z**2))


def test_the_smallest_threshold_that_is_good_enough() -> None:
    chances = [k / 1000 for k in range(1000)]
    right = [chance >= 0.4 or k % 2 == 0 for k, chance in enumerate(chances)]
    found = abstain_below(chances, right, 0.9)
    kept = [ok for chance, ok in zip(chances, right, strict=True) if chance >= found.threshold]
    assert lower_end(sum(kept), len(kept)) >= 0.9
    below = [ok for chance, ok in zip(chances, right, strict=True) if chance >= found.threshold - 0.0015]
    assert lower_end(sum(below), len(below)) < 0.9
    assert found.coverage == pytest.approx(len(kept) / 1000)
    assert found.accuracy == pytest.approx(sum(kept) / len(kept))


def test_nothing_wanted_answers_all_and_equal_chances_go_together() -> None:
    assert abstain_below([0.7, 0.2], [False, False], 0.0).threshold == 0.2
    found = abstain_below([0.5] * 50 + [0.9] * 50, [False] + [True] * 99, 0.9)
    assert (found.threshold, found.coverage) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("chances", "right", "wanted"), [([], [], 0.5), ([0.5], [True], 1.0), ([0.5], [True], 0.9), ([0.5], [True], -0.1)]
)
def test_what_cannot_be_had_is_an_error(chances: list[float], right: list[bool], wanted: float) -> None:
    with pytest.raises(ConfigError):
        abstain_below(chances, right, wanted)
