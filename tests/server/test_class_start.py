from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmchain_fl.aggregation.class_start import class_start
from llmchain_fl.core.errors import ModelError

Matrix = NDArray[np.float64]


def unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@given(st.integers(1, 4), st.integers(2, 9), st.floats(0, 1e6), st.integers(0, 2**31))
def test_each_row_is_the_mix_of_its_own_sum_and_text_by_hand(labels: int, width: int, sigma: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    sums, texts = (
        draw.normal(scale=10 ** draw.uniform(-2, 2), size=(labels, width)),
        unit(draw.normal(size=(labels, width))),
    )
    found = class_start(sums, sigma, texts)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    for row, total, text in zip(found, sums, texts, strict=True):
        length = math.hypot(*total)
        rest = max(length**2 - sigma**2 * width, sigma**2 * math.sqrt(width)) ** 0.5
        mixed = total / length + 0.5 * sigma**2 * width / (length * rest) * text
        np.testing.assert_allclose(row, mixed / math.hypot(*mixed), atol=1e-4)


def test_without_noise_a_row_is_the_direction_of_its_sum_or_the_text_where_there_is_none() -> None:
    texts = np.eye(3)
    found = class_start(np.array([[0.0, 3.0, 4.0], [0.0, 0.0, 0.0], [1e-9, 0.0, 0.0]]), 0.0, texts)
    np.testing.assert_allclose(found, [[0, 0.6, 0.8], [0, 1, 0], [1, 0, 0]], atol=1e-7)


def test_a_sum_that_is_noise_alone_leaves_the_text() -> None:
    draw = np.random.default_rng(1)
    texts = unit(draw.normal(size=(50, 384)))
    for sigma in (0.5, 1e5):
        found = class_start(draw.normal(scale=sigma, size=(50, 384)), sigma, texts)
        along = (found * texts).sum(axis=1)
        assert along.min() > 0.5
        assert along.mean() > 0.85
    np.testing.assert_allclose(class_start(np.zeros((50, 384)), 1.0, texts), texts, atol=1e-6)


def test_at_every_noise_the_start_is_about_as_good_as_the_better_one_of_sums_and_texts() -> None:
    """Classes whose texts point 60 degrees away from their means, with 20 to 200 records each."""
    draw = np.random.default_rng(2)
    means = unit(draw.normal(size=384) + draw.normal(size=(40, 384)))
    aside = draw.normal(size=means.shape)
    texts = 0.5 * means + math.sqrt(0.75) * unit(aside - (aside * means).sum(axis=1, keepdims=True) * means)
    labels = np.repeat(np.arange(40), draw.integers(20, 200, 40))

    def records(of: NDArray[np.int64]) -> Matrix:
        return unit(means[of] + 1.3 * draw.normal(size=(len(of), 384)) / math.sqrt(384))

    exact, test = np.zeros_like(means), np.repeat(np.arange(40), 30)
    np.add.at(exact, labels, records(labels))
    seen = records(test)

    def right(head: Matrix | NDArray[np.float32]) -> float:
        return float(((seen @ head.T).argmax(axis=1) == test).mean())

    gains = []
    for sigma in (0.3, 1.5, 6.0, 25.0):
        sums = exact + draw.normal(scale=sigma, size=exact.shape)
        start, raw = right(class_start(sums, sigma, texts)), right(unit(sums))
        assert start > max(raw, right(texts)) - 0.05
        gains.append(start - max(raw, right(texts)))
    assert max(gains) > 0.02


@pytest.mark.parametrize(
    ("sums", "sigma"),
    [(np.ones((2, 3)), 1.0), (np.full((3, 3), np.nan), 1.0), (np.ones((3, 3)), -1.0), (np.ones((3, 3)), math.inf)],
)
def test_what_is_no_released_sum_is_refused(sums: Matrix, sigma: float) -> None:
    with pytest.raises(ModelError, match="class sums of shape"):
        class_start(sums, sigma, np.eye(3))
