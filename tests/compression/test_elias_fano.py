from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.compression.elias_fano import positions_size, read_positions, write_positions
from llmchain_fl.core.errors import AdmissionError

SMALL = [*[(n, k) for n in range(1, 9) for k in range(1, n + 1) if positions_size(n, k) == 1], (14, 3)]


@st.composite
def subsets(draw: st.DrawFn) -> tuple[int, list[int]]:
    n = draw(st.integers(1, 5000))
    return n, sorted(draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=min(n, 200))))


@given(subsets())
def test_what_is_written_is_read(case: tuple[int, list[int]]) -> None:
    n, positions = case
    blob = write_positions(np.array(positions), n)
    assert blob.size == positions_size(n, len(positions))
    assert read_positions(blob, n, len(positions), "x").tolist() == positions


@pytest.mark.parametrize(("n", "k"), SMALL)
def test_of_all_blobs_there_are_exactly_those_of_the_subsets_are_read(n: int, k: int) -> None:
    size, read = positions_size(n, k), []
    for number in range(256**size):
        blob = np.frombuffer(number.to_bytes(size, "big"), dtype=np.uint8)
        try:
            read.append(tuple(read_positions(blob, n, k, "x").tolist()))
        except AdmissionError:
            continue
    assert sorted(read) == list(itertools.combinations(range(n), k))


def test_a_blob_made_by_hand() -> None:
    # n / k = 4: two lower bits each, lowest first: 1 -> 10, 6 -> 01; upper parts 0 and 1 -> bits 0 and 1 + 1
    assert write_positions(np.array([1, 6]), 8).tolist() == [0b1001_101_0]


@pytest.mark.parametrize(
    ("blob", "told"),
    [
        ([0b1001_111_0], "names 3 positions; 2 were asked for"),
        ([0b0101_110_0], "twice, or not in ascending order"),
        ([0b1010_110_0], "twice, or not in ascending order"),
        ([0b1001_101_1], "filling bit"),
    ],
)
def test_a_refusal_says_what_is_wrong(blob: list[int], told: str) -> None:
    with pytest.raises(AdmissionError, match=told):
        read_positions(np.array(blob, dtype=np.uint8), 8, 2, "x")


def test_a_position_beyond_the_last_is_refused() -> None:
    # n = 7, k = 2: one lower bit each; 1 and 7 -> 1, 1; upper parts 0 and 3 -> bits 0 and 3 + 1
    with pytest.raises(AdmissionError, match="beyond the 7 there are"):
        read_positions(np.array([0b11_10001_0], dtype=np.uint8), 7, 2, "x")


@pytest.mark.parametrize(("share", "most"), [(0.005, 1.12), (0.01, 1.12), (0.05, 1.12), (0.1, 1.15), (0.25, 1.25)])
def test_it_stays_close_to_the_least_that_any_code_of_constant_length_needs(share: float, most: float) -> None:
    n = 20_000
    k = round(share * n)
    floor = math.log2(math.comb(n, k))
    assert floor <= 8 * positions_size(n, k) <= most * floor


def test_at_a_share_of_a_twentieth_it_is_a_fifth_of_32_bits() -> None:
    assert 8 * positions_size(20_000, 1000) / 1000 == pytest.approx(6.3, abs=0.06)


def test_no_positions_take_no_bytes() -> None:
    assert positions_size(9, 0) == 0
    assert write_positions(np.zeros(0, dtype=np.int64), 9).size == 0
    assert read_positions(np.zeros(0, dtype=np.uint8), 9, 0, "x").size == 0
