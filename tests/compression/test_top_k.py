from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression import CODECS
from llmchain_fl.core.compression.codec import Flat
from llmchain_fl.core.compression.elias_fano import positions_size
from llmchain_fl.core.compression.top_k import kept, largest
from llmchain_fl.core.errors import AdmissionError

FEW = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=60)
TOP = CODECS["top-k"]


def coded(x: Flat, spec: CodecSpec, seed: int = 1) -> Flat:
    return TOP.decode(TOP.encode(x, spec, np.random.default_rng(seed).random), x.size, spec, "x")


@given(FEW, st.integers(1, 60))
def test_the_largest_are_those_that_sorting_puts_first(x: list[float], k: int) -> None:
    expected = sorted(sorted(range(len(x)), key=lambda i: (-abs(x[i]), i))[:k])
    assert largest(np.array(x, dtype=np.float32), k).tolist() == expected


@pytest.mark.parametrize(
    ("n", "share", "k"), [(100, 0.05, 5), (101, 0.05, 6), (3, 0.05, 1), (1, 0.5, 1), (7, 1.0, 7), (0, 0.5, 0)]
)
def test_a_share_is_rounded_up_and_never_to_nothing(n: int, share: float, k: int) -> None:
    assert kept(n, CodecSpec("top-k", share=share)) == k


@given(st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_what_is_left_out_is_at_most_its_share_of_the_square(n: int, share: float, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
    k = kept(n, CodecSpec("top-k", share=share))
    rest = np.delete(x, largest(x, k)).astype(np.float64)
    assert np.square(rest).sum() <= (1 - k / n) * np.square(x.astype(np.float64)).sum() * (1 + 1e-9)


def test_equal_sizes_reach_the_bound() -> None:
    x = np.where(np.arange(20) % 2, 3.0, -3.0).astype(np.float32)
    assert np.square(np.delete(x, largest(x, 5))).sum() == (1 - 5 / 20) * np.square(x).sum()


def test_kept_values_come_back_within_a_step_and_the_rest_is_zero() -> None:
    x = np.random.default_rng(5).standard_normal(400).astype(np.float32)
    spec = CodecSpec("top-k", share=0.1)
    found, top = coded(x, spec), np.argsort(-np.abs(x))[:40]
    assert set(np.flatnonzero(found)) == set(top.tolist())
    assert np.abs(found - x)[top].max() <= np.abs(x).max() / 7 * (1 + 2.0**-7)


def test_kept_values_are_unbiased() -> None:
    x = np.random.default_rng(6).standard_normal(40).astype(np.float32)
    spec = CodecSpec("top-k", share=0.2)
    mean = np.mean([coded(x, spec, seed) for seed in range(4000)], axis=0)
    top = largest(x, 8)
    assert mean[top] == pytest.approx(x[top], abs=5 * float(np.abs(x).max()) / 7 / 2 / 4000**0.5)


@pytest.mark.parametrize("x", [np.zeros(50), np.eye(1, 50)[0]])
def test_the_length_does_not_tell_how_many_numbers_are_zero(x: Flat) -> None:
    spec = CodecSpec("top-k", share=0.2)
    blob = TOP.encode(x.astype(np.float32), spec, np.random.default_rng(1).random)
    assert blob.size == TOP.size(50, spec) == positions_size(50, 10) + 2 + 5
    assert coded(x.astype(np.float32), spec) == pytest.approx(x, rel=2.0**-7)


def test_a_share_of_all_keeps_all() -> None:
    x = np.linspace(-1, 1, 30, dtype=np.float32)
    assert np.abs(coded(x, CodecSpec("top-k", share=1.0)) - x).max() < 1 / 6.9


def test_a_bad_position_and_a_bad_value_are_both_refused() -> None:
    spec = CodecSpec("top-k", share=0.1)
    blob = TOP.encode(np.arange(100, dtype=np.float32), spec, np.random.default_rng(1).random)
    cut = positions_size(100, 10)
    for index, value in ((0, blob[0] ^ 0xFF), (cut + 1, 0xFF), (blob.size - 1, 0x0F)):
        broken = blob.copy()
        broken[index] = value
        with pytest.raises(AdmissionError, match=r"^undecodable: x "):
            TOP.decode(broken, 100, spec, "x")
