from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.words import packed, packed_size, signed, unpacked, wrapped


@st.composite
def vectors(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bits, count = draw(st.integers(1, 32)), draw(st.integers(0, 200))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, 2**bits, count, dtype=np.uint64).astype(np.uint32), bits


def slow(words: np.ndarray, bits: int) -> bytes:
    """One number of all bits, by Python's integers."""
    whole = sum(int(word) << (bits * place) for place, word in enumerate(words))
    return whole.to_bytes(-(-len(words) * bits // 8), "little")


@given(vectors())
def test_words_come_back_from_their_bytes_and_these_are_those_of_one_long_integer(
    vector: tuple[np.ndarray, int],
) -> None:
    words, bits = vector
    data = packed(words, bits)
    assert data == slow(words, bits)
    assert len(data) == packed_size(words.size, bits)
    assert np.array_equal(unpacked(data, words.size, bits), words)


@pytest.mark.parametrize("bits", [1, 7, 20, 31, 32])
def test_more_words_than_one_block_come_back(bits: int) -> None:
    words = np.random.default_rng(bits).integers(0, 2**bits, 32 * 4096 + 17, dtype=np.uint64).astype(np.uint32)
    assert np.array_equal(unpacked(packed(words, bits), words.size, bits), words)


def test_words_of_32_bits_are_packed_as_they_are() -> None:
    words = np.array([1, 2**32 - 1, 7], dtype="<u4")
    assert packed(words, 32) == words.tobytes()


def test_packing_leaves_its_words_alone() -> None:
    words = np.arange(100, dtype=np.uint32)
    packed(words, 7)
    assert np.array_equal(words, np.arange(100))


@given(st.integers(1, 32), st.lists(st.integers(-(2**62), 2**62), max_size=50))
def test_signed_is_the_one_number_in_range_that_is_congruent(bits: int, numbers: list[int]) -> None:
    back = signed(wrapped(np.array(numbers, dtype=np.int64), bits), bits)
    assert all((int(one) - other) % 2**bits == 0 for one, other in zip(back, numbers, strict=True))
    assert all(-(2 ** (bits - 1)) <= int(one) < 2 ** (bits - 1) for one in back)


@given(st.integers(2, 32), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_the_sum_of_words_is_the_sum_of_numbers_while_it_fits(bits: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    most = (2 ** (bits - 1) - 1) // count
    numbers = draw.integers(-most, most + 1, (count, 20))
    total = np.zeros(20, dtype=np.uint32)
    for row in numbers:
        total += wrapped(row, bits)
    assert np.array_equal(signed(wrapped(total.astype(np.int64), bits), bits), numbers.sum(axis=0))


@pytest.mark.parametrize("bits", [0, -1, 33])
def test_a_width_that_there_is_not_is_refused(bits: int) -> None:
    words = np.zeros(3, dtype=np.uint32)
    for call in (lambda: packed(words, bits), lambda: unpacked(b"", 0, bits), lambda: signed(words, bits)):
        with pytest.raises(SecureSumError, match="words"):
            call()


@pytest.mark.parametrize(
    "words",
    [np.array([16], np.uint32), np.zeros(3, np.int64), np.zeros(3, np.float32), np.zeros((2, 2), np.uint32)],
    ids=["too large", "int64", "float32", "matrix"],
)
def test_what_is_no_vector_of_small_words_is_refused(words: np.ndarray) -> None:
    with pytest.raises(SecureSumError, match="words"):
        packed(words, 4)


@given(vectors(), st.integers(-3, 3).filter(bool))
def test_bytes_of_another_length_are_refused(vector: tuple[np.ndarray, int], more: int) -> None:
    words, bits = vector
    data = packed(words, bits)
    other = data + bytes(more) if more > 0 else data[:more]
    if len(other) != len(data):
        with pytest.raises(SecureSumError, match="form"):
            unpacked(other, words.size, bits)


def test_a_bit_after_the_last_word_is_refused() -> None:
    data = bytearray(packed(np.zeros(3, np.uint32), 3))
    for bit in range(9, 16):
        data[1] = 1 << (bit - 8)
        with pytest.raises(SecureSumError, match="form"):
            unpacked(bytes(data), 3, 3)


def test_fewer_than_no_words_are_refused() -> None:
    with pytest.raises(SecureSumError, match="form"):
        unpacked(b"", -1, 8)
