"""Bounds of what travels, as a table: one line for each field outside its bound."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.ranges import Bound, Range, range_faults


def faults(value: object, bound: Bound) -> list[str]:
    return range_faults(SimpleNamespace(x=value), {"x": bound})


@pytest.mark.parametrize(
    ("bound", "inside", "outside"),
    [
        (Range(0, 1), [0, 1, 0.5, 0.0, 1.0], [-1, 2, -5e-324, 1.0000000000000002]),
        (Range(0, 1, above=True), [5e-324, 1], [0, 0.0, -0.0]),
        (Range(0, 1, below=True), [0, -0.0, 0.9999999999999999], [1, 1.0]),
        (Range(1, 1e6), [1, 10**6], [0, 10**6 + 1, 10**400, -(10**400)]),
        (Range(0, 2**63), [0, 2**63], [2**63 + 1]),
    ],
)
def test_a_bound_itself_is_in_unless_it_says_otherwise_and_whole_numbers_are_compared_exactly(
    bound: Range, inside: list[Any], outside: list[Any]
) -> None:
    assert all(faults(value, bound) == [] for value in inside)
    assert all(len(faults(value, bound)) == 1 for value in outside)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0", "", b"0", None, True, False, [0], {}, 1j])
def test_what_is_no_finite_number_is_a_fault(value: object) -> None:
    assert len(faults(value, Range(-10, 10))) == 1
    assert len(faults(value, Range(-math.inf, math.inf))) == 1


@pytest.mark.parametrize(("value", "count"), [("adam", 0), ("lion", 1), ("Adam", 1), ("", 1), (0, 1), (None, 1)])
def test_a_word_is_one_of_those_allowed(value: object, count: int) -> None:
    found = faults(value, ("sgd", "adam"))
    assert len(found) == count
    assert all("adam, sgd" in fault for fault in found)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.integers(min_value=10**4000, max_value=10**5000)))
def test_a_fault_is_one_printable_line_of_bounded_length(value: object) -> None:
    """Whatever a server sends is told in the site's own log and terminal."""
    for bound in (Range(0, 0, above=True), ("nothing",)):
        (fault,) = faults(value, bound)
        assert fault.startswith("x is ")
        assert fault.isprintable()
        assert len(fault) < 400


def test_each_field_has_its_own_line_and_other_fields_are_not_looked_at() -> None:
    spec = SimpleNamespace(a=-1.0, b=0.5, c="x", d=object())
    found = range_faults(spec, {"a": Range(0, 1), "b": Range(0, 1), "c": ("y",)})
    assert [fault.split()[0] for fault in found] == ["a", "c"]
    assert "at least 0 and at most 1" in found[0]


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (Range(0, 1), "at least 0 and at most 1"),
        (Range(0, 1, above=True), "above 0 and at most 1"),
        (Range(-0.5, 1e6, below=True), "at least -0.5 and below 1e+06"),
    ],
)
def test_a_bound_is_told_in_words(bound: Range, text: str) -> None:
    assert str(bound) == text
