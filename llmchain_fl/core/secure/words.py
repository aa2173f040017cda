"""Words of 1 to 32 bits, next to each other; signed numbers as such words.

Words live in the ring of integers modulo 2**bits: sums of them wrap, and are exact as long as the true sum fits into
``bits`` bits of two's complement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.secure.checks import refuse

Words = NDArray[np.uint32]
Numbers = NDArray[np.int64]

WIDEST = 32
_ROWS = 4096


def packed_size(count: int, bits: int) -> int:
    """Bytes of ``count`` packed words: ceil(count * bits / 8)."""
    _check_bits(bits)
    return -(-count * bits // 8)


def packed(words: Words, bits: int) -> bytes:
    """The low ``bits`` bits of each word, one behind the other.

    Bit k of word i is bit (i * bits + k) % 8 of byte (i * bits + k) // 8; bits after the last word are 0. So 32 words
    fill ``bits`` little-endian uint32 exactly, and all rows of 32 are shifted into place at once.

    ============================  =======================
    case                          result
    ============================  =======================
    no words                      no bytes
    bits = 32                     the words themselves
    a word of 2**bits or more     refused: words
    not a vector of uint32        refused: words
    bits below 1 or above 32      refused: words
    ============================  =======================

    Args:
        words: uint32 [d].
        bits: the width.

    Raises:
        SecureSumError: see the table.
    """
    check_words(words, bits)
    rows = -(-words.size // WIDEST)
    source = (np.pad(words, (0, -words.size % WIDEST)) if words.size % WIDEST else words).reshape(rows, WIDEST)
    filled = np.zeros((rows, bits), dtype="<u4")
    for start in range(0, rows, _ROWS):
        lanes = np.ascontiguousarray(source[start : start + _ROWS].T)
        block = np.zeros((bits, lanes.shape[1]), dtype="<u4")
        for lane, at, shift in _places(bits):
            block[at] |= lanes[lane] << np.uint32(shift)
            if shift + bits > WIDEST:
                block[at + 1] |= lanes[lane] >> np.uint32(WIDEST - shift)
        filled[start : start + _ROWS] = block.T
    return filled.view(np.uint8).reshape(-1)[: packed_size(words.size, bits)].tobytes()


def unpacked(data: bytes, count: int, bits: int) -> Words:
    """The inverse of :func:`packed`: uint32 [count].

    Raises:
        SecureSumError: form, words; see :func:`check_packed`.
    """
    check_packed(data, count, bits)
    rows = -(-count // WIDEST)
    filled = np.frombuffer(data + bytes(4 * rows * bits - len(data)), dtype="<u4").reshape(rows, bits)
    words, low = np.empty((rows, WIDEST), dtype=np.uint32), low_bits(bits)
    for start in range(0, rows, _ROWS):
        block = np.ascontiguousarray(filled[start : start + _ROWS].T)
        lanes = np.empty((WIDEST, block.shape[1]), dtype=np.uint32)
        for lane, at, shift in _places(bits):
            lanes[lane] = block[at] >> np.uint32(shift)
            if shift + bits > WIDEST:
                lanes[lane] |= block[at + 1] << np.uint32(WIDEST - shift)
        lanes &= low
        words[start : start + _ROWS] = lanes.T
    return words.reshape(-1)[:count]


def check_packed(data: bytes, count: int, bits: int) -> None:
    """Refuse what is not ``count`` packed words: another length, or a bit that is set after the last word.

    Raises:
        SecureSumError: form; words, where the width is none.
    """
    if count < 0 or len(data) != packed_size(count, bits):
        raise refuse("form", f"{len(data)} bytes are not {count} words of {bits} bits")
    if count * bits % 8 and data[-1] >> (count * bits % 8):
        raise refuse("form", "a bit is set after the last word")


def signed(words: Words, bits: int) -> Numbers:
    """int64 [d]: words as two's complement of ``bits`` bits, from -2**(bits-1) to 2**(bits-1) - 1."""
    check_words(words, bits)
    half = np.int64(1 << (bits - 1))
    return (words.astype(np.int64) ^ half) - half


def wrapped(numbers: Numbers, bits: int) -> Words:
    """uint32 [d]: numbers modulo 2**bits; the inverse of :func:`signed` for those that fit."""
    return numbers.astype(np.uint32) & low_bits(bits)


def low_bits(bits: int) -> np.uint32:
    """2**bits - 1."""
    _check_bits(bits)
    return np.uint32((1 << bits) - 1)


def check_words(words: Words, bits: int) -> None:
    """Refuse what is not a vector of uint32 below 2**bits.

    Raises:
        SecureSumError: words.
    """
    if words.dtype != np.uint32 or words.ndim != 1:
        raise refuse("words", f"{words.dtype} of shape {words.shape} is no vector of uint32")
    if words.size and words.max() > low_bits(bits):
        raise refuse("words", f"a word does not fit into {bits} bits")


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= WIDEST:
        raise refuse("words", f"a word of {bits} bits; 1 to {WIDEST} can be")


def _places(bits: int) -> list[tuple[int, int, int]]:
    """For each of 32 words: its number, and the uint32 and the bit there at which it begins."""
    return [(lane, *divmod(lane * bits, WIDEST)) for lane in range(WIDEST)]
