"""k ascending positions out of n in about 2 + log2(n / k) bits each (Elias 1974, J. ACM 21(2); Fano 1971).

With l = floor(log2(n / k)), a position p is split into its l lower bits, written as they are, and p >> l, written in a
bitmap: bit (p_i >> l) + i is set for the i-th position. Together k l + k + ((n - 1) >> l) bits, filled up to bytes: a
pure function of n and k, and at n / k = 20 a fifth of what 32 bits a position take. The floor for any code of constant
length, log2 of "n over k", is at n / k = 20 about 5.7 bits a position; this is 6.3.

| blob | outcome |
|---|---|
| another number of set bits in the bitmap than k | refused |
| positions repeated or descending (within one upper part) | refused |
| a position of n or more | refused |
| a filling bit that is set | refused: one set of positions has one blob |
| k = n | fine: l = 0 |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.compression.codec import Blob, refuse

Positions = NDArray[np.int64]


def positions_size(n: int, k: int) -> int:
    """Bytes for k of n positions; 0 for k = 0."""
    return -(-_bits(n, k) // 8) if k else 0


def write_positions(positions: Positions, n: int) -> Blob:
    """``positions``: strictly ascending, from 0 to n - 1."""
    k = positions.size
    if not k:
        return np.zeros(0, dtype=np.uint8)
    low = _low_bits(n, k)
    bits = np.zeros(_bits(n, k), dtype=np.uint8)
    bits[: k * low] = ((positions[:, None] >> np.arange(low)) & 1).ravel()
    bits[k * low + (positions >> low) + np.arange(k)] = 1
    return np.packbits(bits)


def read_positions(blob: Blob, n: int, k: int, who: str) -> Positions:
    """The inverse; ``blob`` is ``positions_size(n, k)`` bytes long.

    Raises:
        AdmissionError: it is not what ``write_positions`` writes for k of n.
    """
    if not k:
        return np.zeros(0, dtype=np.int64)
    low, total = _low_bits(n, k), _bits(n, k)
    bits = np.unpackbits(blob)
    upper = np.flatnonzero(bits[k * low : total])
    if upper.size != k:
        raise refuse(who, f"names {upper.size} positions; {k} were asked for")
    lower = bits[: k * low].reshape(k, low).astype(np.int64) @ (1 << np.arange(low, dtype=np.int64))
    positions = ((upper - np.arange(k)) << low) | lower
    if (np.diff(positions) <= 0).any():
        raise refuse(who, "names a position twice, or not in ascending order")
    if positions[-1] >= n:
        raise refuse(who, f"names a position beyond the {n} there are")
    if bits[total:].any():
        raise refuse(who, "has a filling bit that is set")
    return positions


def _low_bits(n: int, k: int) -> int:
    return (n // k).bit_length() - 1


def _bits(n: int, k: int) -> int:
    low = _low_bits(n, k)
    return k * low + k + ((n - 1) >> low)
