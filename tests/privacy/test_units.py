"""Units: every record in exactly one, at most so many records of each in a step, and a draw for each unit."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.noise import secure_uniform
from llmchain_fl.core.privacy.sampling import seeded_uniform
from llmchain_fl.core.privacy.units import Units

ALARM = 1e-7
NAMES = st.lists(st.text(max_size=2), max_size=40)


def members(units: Units) -> list[list[int]]:
    return [records.tolist() for records in units.members]


def played(units: Units, rate: float, steps: int, most: int = 100) -> list[list[list[int]]]:
    """Batches under draws that nobody can repeat."""
    return [[unit.tolist() for unit in batch] for batch in units.batches(rate, steps, most, secure_uniform)]


# -- who owns what ----------------------------------------------------------------------------------------------------


def test_each_record_is_a_unit_of_its_own() -> None:
    units = Units.of_records(3)
    assert members(units) == [[0], [1], [2]]
    assert len(units) == 3


def test_the_records_of_one_person_are_one_unit_in_the_order_in_which_persons_first_appear() -> None:
    units = Units.of_people(["bob", "ann", "bob", "eve", "ann", "bob"])
    assert members(units) == [[0, 2, 5], [1, 4], [3]]
    assert len(units) == 3


@given(NAMES)
def test_every_record_is_in_exactly_one_unit_and_all_of_a_unit_have_one_name(people: list[str]) -> None:
    units = Units.of_people(people)
    assert sorted(record for unit in members(units) for record in unit) == list(range(len(people)))
    assert len(units) == len(set(people))
    for unit, name in zip(members(units), dict.fromkeys(people), strict=True):
        assert unit == sorted(unit)
        assert {people[record] for record in unit} == {name}


@given(NAMES, st.data())
def test_a_unit_that_is_left_out_takes_all_its_records_along(people: list[str], data: st.DataObject) -> None:
    units = Units.of_people(people)
    take = data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))
    kept = units.kept(take)
    assert members(kept) == [unit for unit, stays in zip(members(units), take, strict=True) if stays]
    assert members(units.kept(np.array(take, dtype=np.bool_))) == members(kept)


@pytest.mark.parametrize("take", [[], [True], [True] * 4])
def test_an_answer_for_another_number_of_units_is_an_error(take: list[bool]) -> None:
    with pytest.raises(ValueError, match="argument"):
        Units.of_records(3).kept(take)


def test_nobody_has_no_units() -> None:
    assert (len(Units.of_records(0)), len(Units.of_people([])), len(Units.of_records(2).kept([False] * 2))) == (0, 0, 0)
    assert played(Units.of_people([]), 0.5, 3) == [[], [], []]


# -- what a step uses -------------------------------------------------------------------------------------------------

PEOPLE = ["a", "b", "a", "c", "a", "b", "a", "a"]


@given(NAMES, st.integers(1, 4), st.sampled_from([0.1, 0.5, 1.0]))
def test_a_batch_holds_each_unit_once_and_only_its_own_records(people: list[str], most: int, rate: float) -> None:
    units = Units.of_people(people)
    owner = {record: number for number, unit in enumerate(members(units)) for record in unit}
    for batch in played(units, rate, 3, most):
        drawn = [{owner[record] for record in unit} for unit in batch]
        assert all(len(found) == 1 for found in drawn)
        assert len({min(found) for found in drawn}) == len(batch)
        for unit, (number,) in zip(batch, drawn, strict=True):
            assert unit == sorted(set(unit))
            assert len(unit) == min(most, len(members(units)[number]))


def test_at_rate_one_everybody_is_in_every_step_with_all_records_up_to_the_cap() -> None:
    assert played(Units.of_people(PEOPLE), 1.0, 2, most=8) == [[[0, 2, 4, 6, 7], [1, 5], [3]]] * 2


def test_of_a_person_with_too_many_records_each_set_of_the_allowed_size_is_drawn_equally_often() -> None:
    """Chi-square over all sets of 2 out of 5; the draws are secret, so the band has an alarm rate of 1e-7."""
    steps = 4000
    found = Counter(tuple(batch[0]) for batch in played(Units.of_people("aaaaa"), 1.0, steps, most=2))
    assert set(found) == set(combinations(range(5), 2))
    assert stats.chisquare(list(found.values())).pvalue > ALARM


def test_the_choice_is_made_anew_at_each_step() -> None:
    found = [tuple(batch[0]) for batch in played(Units.of_people("a" * 30), 1.0, 20, most=3)]
    assert len(set(found)) > 10


def test_a_person_with_many_records_is_drawn_no_more_often_than_one_with_a_single_one() -> None:
    """Poisson by unit: each is in with probability q; by record, 50 of them would all but always be in."""
    rate, steps = 0.1, 20_000
    batches = played(Units.of_people(["a"] * 50 + ["b"]), rate, steps)
    low, high = stats.binom.ppf([ALARM, 1 - ALARM], steps, rate)
    for first in (0, 50):
        assert low <= sum(any(unit[0] == first for unit in batch) for batch in batches) <= high


def test_units_are_drawn_independently_of_each_other_and_of_other_steps() -> None:
    rate, steps, count = 0.3, 2000, 10
    batches = played(Units.of_people([f"p{i // 3}" for i in range(3 * count)]), rate, steps)
    sizes = [len(batch) for batch in batches]
    observed = [sizes.count(k) for k in range(count + 1)]
    expected = stats.binom.pmf(range(count + 1), count, rate) * steps
    few = expected < 10
    pooled = [np.append(np.array(part)[~few], np.array(part)[few].sum()) for part in (observed, expected)]
    assert stats.chisquare(*pooled).pvalue > ALARM
    here = np.array([any(unit[0] == 0 for unit in batch) for batch in batches], dtype=float)
    assert abs(np.corrcoef(here[:-1], here[1:])[0, 1]) < 5.5 / np.sqrt(steps)


def test_the_same_draws_give_the_same_batches_so_a_run_without_noise_can_be_repeated() -> None:
    units = Units.of_people("aaaabbbbcccd")
    first, second, other = (
        [[unit.tolist() for unit in batch] for batch in units.batches(0.5, 6, 2, seeded_uniform(1, site, 1))]
        for site in ("x", "x", "y")
    )
    assert first == second != other


def test_with_one_record_each_the_batches_are_the_plain_poisson_batches() -> None:
    """So a record-level run draws as it did before there were units."""
    from llmchain_fl.core.privacy.sampling import poisson_batches

    units = [
        [int(unit[0]) for unit in batch] for batch in Units.of_records(20).batches(0.3, 5, 1, seeded_uniform(1, "x", 1))
    ]
    assert units == [batch.tolist() for batch in poisson_batches(20, 0.3, 5, seeded_uniform(1, "x", 1))]


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_that_is_none_is_refused_at_the_call(rate: float) -> None:
    def never(size: int) -> NDArray[np.float64]:
        raise AssertionError(f"{size} draws")

    with pytest.raises(PrivacyError, match="cannot draw"):
        Units.of_records(3).batches(rate, 1, 1, never)
