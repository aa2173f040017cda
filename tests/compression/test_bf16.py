from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.compression.bf16 import halves_above
from llmchain_fl.core.compression.codec import LARGEST

SPEC = CodecSpec("bf16")
ALL = np.arange(65_536) / 65_536
"""Every value that decides how a number is rounded, once each."""
FINITE = st.floats(-LARGEST, LARGEST, width=32)


def value(half: int) -> float:
    """A bf16 read by the standard library: the upper half of a float32."""
    return float(struct.unpack("<f", struct.pack("<HH", 0, half))[0])


POSITIVE = np.array([value(half) for half in range(0x7F80)])
"""All finite bf16 of at least 0, ascending."""


def rounded(x: float, u: float) -> float:
    blob = CODECS["bf16"].encode(np.array([x], dtype=np.float32), SPEC, lambda size: np.full(size, u))
    return float(CODECS["bf16"].decode(blob, 1, SPEC, "x")[0])


@given(st.integers(0, 0x7EFF), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_number_that_bf16_has_stays_itself_whatever_is_drawn(half: int, negative: bool, u: float) -> None:
    x = -value(half) if negative else value(half)
    assert rounded(x, u) == x
    assert np.signbit(rounded(x, u)) == np.signbit(x)


@given(FINITE)
def test_the_mean_over_all_draws_is_the_number_itself_exactly(x: float) -> None:
    numbers = np.full(65_536, x, dtype=np.float32)
    blob = CODECS["bf16"].encode(numbers, SPEC, lambda size: ALL)
    values, counts = np.unique(CODECS["bf16"].decode(blob, 65_536, SPEC, "x"), return_counts=True)
    mean = sum((Fraction(float(v)) * int(c) for v, c in zip(values, counts, strict=True)), Fraction(0)) / 65_536
    assert mean == Fraction(float(numbers[0]))
    assert len(values) <= 2


def test_halfway_between_two_neighbours_each_comes_half_of_the_time() -> None:
    assert [rounded(1 + 2.0**-8, u) for u in (0.0, 0.4999, 0.5, 0.9999)] == [1.0, 1.0, 1 + 2.0**-7, 1 + 2.0**-7]


def test_two_bytes_a_number_lower_one_first() -> None:
    blob = CODECS["bf16"].encode(np.array([1.0, -2.0], dtype=np.float32), SPEC, np.zeros)
    assert blob.tobytes() == bytes([0x80, 0x3F, 0x00, 0xC0])


def test_the_largest_number_that_is_encoded_stays_finite() -> None:
    assert rounded(LARGEST, 1 - 2.0**-53) == LARGEST
    assert np.isfinite(rounded(float(np.nextafter(np.float32(LARGEST), np.float32(0))), 1 - 2.0**-53))


def test_plain_numbers_are_their_own_bytes() -> None:
    x = np.array([1.5, -0.0, 3e-45], dtype=np.float32)
    blob = CODECS["none"].encode(x, CodecSpec(), np.zeros)
    assert blob.tobytes() == struct.pack("<3f", *x)
    assert CODECS["none"].decode(blob, 3, CodecSpec(), "x").tobytes() == x.tobytes()


@given(st.lists(st.floats(0, LARGEST), min_size=1, max_size=20))
def test_a_scale_is_the_smallest_bf16_that_is_not_below(numbers: list[float]) -> None:
    found = [value(int(half)) for half in halves_above(np.array(numbers))]
    assert found == [float(POSITIVE[np.searchsorted(POSITIVE, x)]) for x in numbers]


@pytest.mark.parametrize("x", [2.0**-140, -(2.0**-149), 2.0**-127 + 2.0**-149])
def test_numbers_below_the_normal_range_are_unbiased_too(x: float) -> None:
    blob = CODECS["bf16"].encode(np.full(65_536, x, dtype=np.float32), SPEC, lambda size: ALL)
    assert CODECS["bf16"].decode(blob, 65_536, SPEC, "x").astype(np.float64).mean() == pytest.approx(x, rel=1e-12)
