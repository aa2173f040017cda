from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.at_epsilon import Guarantee, Spent, at_epsilon
from llmchain_fl.core.errors import RunError

TERMS = {"delta": 1e-5, "unit": "person", "accountant": "pld"}


def spent(number, site, value, **terms):
    return {"round": number, "scope": "site", "site": site, "metric": "epsilon", "value": value} | (terms or TERMS)


def score(number, value=0.5, **more):
    return {"round": number, "scope": "global", "site": None, "task": "a", "metric": "accuracy", "value": value} | more


def test_a_score_stands_beside_the_largest_epsilon_of_its_round_with_its_terms():
    rows = [score(1), spent(1, "a", 1.0), spent(1, "b", 1.5), score(2), spent(2, "a", 2.0), spent(2, "b", 1.7)]
    assert [p.guarantee for p in at_epsilon(rows, ["accuracy"])] == [
        Guarantee(1.5, 1e-5, "person", "pld", "b"),
        Guarantee(2.0, 1e-5, "person", "pld", "a"),
    ]
    assert [p.row for p in at_epsilon(rows, ["accuracy"])] == [rows[0], rows[3]]


def test_a_score_of_one_site_stands_beside_that_sites_epsilon():
    rows = [spent(1, "a", 1.0), spent(1, "b", 1.5), score(1, scope="site", site="a"), score(1, scope="probe")]
    assert [p.guarantee.epsilon for p in at_epsilon(rows, ["accuracy"])] == [1.0, 1.5]


def test_before_training_nothing_is_spent_and_a_site_that_sat_out_keeps_what_it_had():
    rows = [score(0), spent(1, "a", 3.0), spent(2, "b", 1.0), score(2), score(2, scope="site", site="never")]
    zero, later, never = (p.guarantee for p in at_epsilon(rows, ["accuracy"]))
    assert zero == never == Guarantee(0.0, 1e-5, "person", "pld", "")
    assert later == Guarantee(3.0, 1e-5, "person", "pld", "a")


def test_without_an_epsilon_there_is_no_guarantee():
    assert [p.guarantee for p in at_epsilon([score(1)], ["accuracy"])] == [None]
    assert Spent([]).by(3) is None


@pytest.mark.parametrize("value", [math.nan, None, math.inf])
def test_an_epsilon_without_a_finite_bound_is_above_all_others_and_stays_so(value):
    found = Spent([spent(1, "a", value), spent(2, "a", 2.0), spent(2, "b", 9.0)])
    assert (found.by(1).epsilon, found.by(2).epsilon, found.by(2).site) == (math.inf, math.inf, "a")


def test_a_round_written_again_counts_as_written_last():
    assert Spent([spent(1, "a", 5.0), spent(1, "a", 2.0)]).by(1).epsilon == 2.0


@pytest.mark.parametrize("lacking", list(TERMS))
def test_an_epsilon_without_one_of_its_terms_is_refused(lacking):
    terms = {name: value for name, value in TERMS.items() if name != lacking}
    with pytest.raises(RunError, match="same delta, unit and accountant"):
        at_epsilon([spent(1, "a", 1.0, **terms)], ["accuracy"])


@pytest.mark.parametrize("other", [{"delta": 1e-6}, {"unit": "record"}, {"accountant": "rdp"}])
def test_epsilons_in_different_terms_are_not_compared(other):
    with pytest.raises(RunError, match="terms"):
        Spent([spent(1, "a", 1.0), spent(2, "a", 1.0, **(TERMS | other))])


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.floats(0, 50)), min_size=1, max_size=12))
def test_what_is_spent_never_falls_from_round_to_round(told):
    found = Spent([spent(*each) for each in told])
    curve = [found.by(number).epsilon for number in range(8)]
    assert curve == sorted(curve)
    assert curve[0] == 0.0
    assert all(found.by(number).epsilon == max(found.by(number, site).epsilon for site in "abc") for number in range(8))
