from __future__ import annotations

import bisect
import math
import struct
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.codec_spec import CodecSpec, Name
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.compression.codec import Flat
from llmchain_fl.core.errors import AdmissionError

LEVELS: dict[Name, int] = {"int8": 127, "int4": 7}
NAMES = st.sampled_from(sorted(LEVELS))
FLOATS = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=150)


def spec_of(name: Name, block: int = 64) -> CodecSpec:
    return CodecSpec(name, block)


def coded(name: Name, x: Any, draw: Any, block: int = 64) -> Flat:
    numbers, spec = np.asarray(x, dtype=np.float32), spec_of(name, block)
    return CODECS[name].decode(CODECS[name].encode(numbers, spec, draw), numbers.size, spec, "x")


def bf16(half: int) -> Fraction:
    return Fraction(struct.unpack("<f", struct.pack("<HH", 0, half))[0])


def scale_of(part: list[Fraction], levels: int) -> Fraction:
    """The smallest bf16 that is not below max / L, looked up among all there are."""
    wanted = max(map(abs, part)) / levels
    return bf16(bisect.bisect_left(range(0x7F80), wanted, key=bf16))


def slow(name: Name, x: list[float], uniforms: list[float], block: int) -> list[float]:
    """The formula, number by number in exact fractions."""
    found = []
    for start in range(0, len(x), block):
        part = [Fraction(v) for v in x[start : start + block]]
        scale = scale_of(part, LEVELS[name])
        for v, u in zip(part, uniforms[start:], strict=False):
            found.append(float(scale * math.floor(v / scale + Fraction(u))) if scale else 0.0)
    return found


@given(NAMES, FLOATS, st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_it_is_the_formula(name: Name, x: list[float], block: int, seed: int) -> None:
    uniforms = (np.random.default_rng(seed).integers(0, 1024, len(x)) / 1024).tolist()
    found = coded(name, x, lambda size: np.array(uniforms), block)
    assert found.tolist() == slow(name, x, uniforms, block)


@pytest.mark.parametrize("name", LEVELS)
def test_the_mean_over_all_draws_is_the_number_itself_exactly(name: Name) -> None:
    levels, scale, grid = LEVELS[name], 2.0**-9, 1024
    rng = np.random.default_rng(3)
    x = scale * np.append(rng.integers(-levels * grid, levels * grid, 40) / grid, [levels, 0.0, -levels])
    sums = [coded(name, x, lambda size, u=i / grid: np.full(size, u)).astype(np.float64) for i in range(grid)]
    assert (np.sum(sums, axis=0) == grid * x).all()


@pytest.mark.parametrize("name", LEVELS)
def test_many_draws_average_to_the_number_and_spread_as_promised(name: Name) -> None:
    rng = np.random.default_rng(4)
    x, times = (rng.standard_normal(150) ** 3).astype(np.float32), 3000
    found = np.array([coded(name, x, rng.random) for _ in range(times)], dtype=np.float64)
    parts = [[Fraction(float(v)) for v in x[start : start + 64]] for start in range(0, 150, 64)]
    steps = np.repeat([float(scale_of(part, LEVELS[name])) for part in parts], 64)[:150]
    share = x / steps - np.floor(x / steps)
    deviation = steps * np.sqrt(share * (1 - share))
    scores = (found.mean(axis=0) - x) / (deviation / times**0.5)
    assert np.abs(scores[share > 0.01]).max() < 4.5
    assert 0.7 < np.square(scores[share > 0.01]).mean() < 1.4
    assert np.square(found - x).sum(axis=1).mean() == pytest.approx(np.square(deviation).sum(), rel=0.02)


@given(NAMES, FLOATS, st.integers(1, 70), st.sampled_from([0.0, 0.5, 1 - 2.0**-53]))
def test_no_number_moves_by_a_whole_step_and_none_is_cut_off(name: Name, x: list[float], block: int, u: float) -> None:
    numbers = np.array(x, dtype=np.float32)
    found = coded(name, numbers, lambda size: np.full(size, u), block)
    for start in range(0, len(x), block):
        part = numbers[start : start + block].astype(np.float64)
        step = max(np.abs(part).max() / LEVELS[name] * (1 + 2.0**-7), 2.0**-133)
        assert (np.abs(found[start : start + block] - part) < step).all()


@pytest.mark.parametrize("name", LEVELS)
def test_a_block_of_zeros_is_zeros_beside_blocks_that_are_not(name: Name) -> None:
    x = np.concatenate([np.zeros(8), np.full(8, 3.0), np.zeros(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what 0 / 0 becomes as a whole number differs from machine to machine
        found = coded(name, x, lambda size: np.full(size, 1 - 2.0**-53), block=8)
    assert (found[:8] == 0).all()
    assert (found[16:] == 0).all()
    assert found[8:16] == pytest.approx(3.0, rel=2.0**-7)


def test_bytes_of_int8_are_scales_then_numbers() -> None:
    blob = CODECS["int8"].encode(np.array([127.0, -127.0, 2.0, 254.0], dtype=np.float32), spec_of("int8", 3), np.zeros)
    assert blob.tobytes() == bytes([0x80, 0x3F, 0x00, 0x40, 127, 256 - 127, 2, 127])


def test_bytes_of_int4_are_scales_then_pairs_lower_half_first() -> None:
    blob = CODECS["int4"].encode(np.array([7.0, -7.0, 1.0], dtype=np.float32), spec_of("int4"), np.zeros)
    assert blob.tobytes() == bytes([0x80, 0x3F, 0x1F, 0x89])


def test_the_error_bounds_at_blocks_of_64_are_those_of_the_docs() -> None:
    assert CODECS["int8"].error(10_000, spec_of("int8")) == pytest.approx(0.0010, abs=5e-5)
    assert CODECS["int4"].error(10_000, spec_of("int4")) == pytest.approx(0.33, abs=0.005)


@pytest.mark.parametrize(
    ("name", "blob", "told"),
    [
        ("int8", [0x80, 0x3F, 0x80, 0, 0], "a step below -127"),
        ("int4", [0x80, 0x3F, 0x80, 0x88], "a step below -7"),
        ("int4", [0x80, 0x3F, 0x08, 0x88], "a step below -7"),
        ("int4", [0x80, 0x3F, 0x88, 0x98], "filling"),
        ("int8", [0x80, 0xBF, 1, 0, 0], "scale"),
        ("int8", [0x00, 0x80, 1, 0, 0], "scale"),
        ("int8", [0xC0, 0x7F, 1, 0, 0], "scale"),
        ("int4", [0x80, 0x7F, 0x88, 0x88], "scale"),
    ],
)
def test_bytes_that_no_site_writes_are_refused(name: Name, blob: list[int], told: str) -> None:
    with pytest.raises(AdmissionError, match=told) as found:
        CODECS[name].decode(np.array(blob, dtype=np.uint8), 3, spec_of(name), "'b' of site-1")
    assert found.value.what.startswith("undecodable: 'b' of site-1 ")


def test_an_honest_neighbour_of_those_bytes_is_read() -> None:
    blob = np.array([0x80, 0x3F, 0x81, 0, 0], dtype=np.uint8)
    assert CODECS["int8"].decode(blob, 3, spec_of("int8"), "x").tolist() == [-127.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_the_largest_number_and_the_largest_draw_still_make_bytes_that_can_be_read(name: Any) -> None:
    spec = CodecSpec(name, block=1)
    x = np.array([LEVELS[name] * 2.0**k * sign for k in range(-8, 4) for sign in (1, -1)], dtype=np.float32)
    blob = CODECS[name].encode(x, spec, lambda n: np.full(n, 1 - 2.0**-53))
    assert np.isfinite(CODECS[name].decode(blob, len(x), spec, "a test")).all()
