from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.evaluation.labels import chance_level, macro_f1, majority_share, recalls

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=40)


@given(PAIRS)
def test_macro_f1_and_recalls_are_their_definitions_label_by_label(pairs: list[tuple[int, int]]) -> None:
    present = sorted({target for target, _ in pairs})
    f1, expected = [], {}
    for label in present:
        hits = sum(t == label == a for t, a in pairs)
        asked, told = sum(t == label for t, _ in pairs), sum(a == label for _, a in pairs)
        expected[label] = hits / asked
        precision = hits / told if told else 0.0
        recall = hits / asked
        f1.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    targets, answers = (np.array(side) for side in zip(*pairs, strict=True))
    assert recalls(targets, answers) == pytest.approx(expected)
    assert macro_f1(targets, answers) == pytest.approx(sum(f1) / len(f1))


def test_a_rare_label_counts_as_much_as_a_frequent_one() -> None:
    targets = np.array([0] * 98 + [1, 2])
    always = np.zeros(100, dtype=np.int64)
    assert majority_share(targets) == pytest.approx(0.98)
    assert macro_f1(targets, always) == pytest.approx((2 * 98 / (98 + 100)) / 3)
    assert recalls(targets, always) == {0: 1.0, 1: 0.0, 2: 0.0}
    assert macro_f1(np.array([3, 3]), np.array([3, 3])) == 1.0


def test_no_record_and_no_candidate() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert recalls(none, none) == {}
    assert all(math.isnan(value) for value in (macro_f1(none, none), majority_share(none), chance_level(0)))
    assert chance_level(77) == pytest.approx(1 / 77)
