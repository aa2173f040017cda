"""Equalities and bounds of the gate, and the finding that carries them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmchain_fl.privacy.audit.conformance import (
    equal_counts,
    interference,
    never,
    sensitivity,
    used_once,
    whole_numbers,
)
from llmchain_fl.privacy.audit.finding import judge


@pytest.mark.parametrize(
    ("measured", "passed"), [(0.0, True), (1.0, True), (1.01, False), (-0.1, False), (math.nan, False)]
)
def test_a_finding_passes_within_its_bounds_and_never_with_nan(measured: float, passed: bool) -> None:
    found = judge("size", measured, (0.0, 1.0), "Words.")
    assert found.passed is passed
    assert str(found).startswith("pass  size" if passed else "FAIL  size")


@pytest.mark.parametrize(
    ("norm", "passed"), [(0.7, True), (0.7 * (1 + 1e-7), True), (0.7 * 1.0035, False), (np.nan, False)]
)
def test_the_clip_norm_is_the_bound(norm: float, passed: bool) -> None:
    assert sensitivity(np.array([0.1, norm]), 0.7, "here").passed is passed


OWN = np.array([False, False, True, True])


def test_a_person_may_add_a_clipped_vector_and_touch_nothing_else() -> None:
    base = np.array([1.0, -2.0, 0.0, 0.0])
    good = interference(base + np.array([0, 0, 0.6, 0.8]), base, OWN, 1.0, 1e-6)
    assert all(found.passed for found in good)


@pytest.mark.parametrize(
    ("change", "which"), [([0.1, 0, 0.6, 0], 0), ([0, 0, 3.0, 0], 1), ([np.nan, 0, 0, 0], 0), ([np.nan, 0, 0, 0], 1)]
)
def test_touching_others_or_adding_too_much_fails(change: list[float], which: int) -> None:
    base = np.zeros(4)
    assert not interference(base + change, base, OWN, 1.0, 1e-6)[which].passed


def test_somebody_missing_or_twice_fails() -> None:
    drawn = np.array([[True, False], [True, True]])
    assert used_once(drawn, drawn * 1.0, 1e-3).passed
    assert not used_once(drawn, np.array([[1.0, 0.0], [1.0, 0.0]]), 1e-3).passed
    assert not used_once(drawn, np.array([[2.0, 0.0], [1.0, 1.0]]), 1e-3).passed
    assert not used_once(drawn, drawn * np.nan, 1e-3).passed


@pytest.mark.parametrize(("value", "passed"), [(0.02, True), (0.95, True), (0.5, False), (2.0, False), (np.inf, False)])
def test_contributions_are_whole(value: float, passed: bool) -> None:
    assert whole_numbers(np.array([[value, 0.0]]), 1, 0.2).passed is passed


def test_counts_must_agree_and_accidents_must_not_happen() -> None:
    assert equal_counts("steps", 12, 12, "Steps.").passed
    assert not equal_counts("steps", 12, 6, "Steps.").passed
    assert never("accidents", 0, "Accidents.").passed
    assert not never("accidents", 1, "Accidents.").passed
