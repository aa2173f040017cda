"""Plain and half numbers: ``none`` (float32, 4 bytes) and ``bf16`` (the upper half of a float32, 2 bytes)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression.codec import Blob, Draw, Flat

_LOW = np.uint32(0xFFFF)


class Plain:
    """float32, little-endian, as it is: 4 bytes a number."""

    unbiased = True

    def size(self, n: int, spec: CodecSpec) -> int:
        """4 n."""
        return 4 * n

    def encode(self, x: Flat, spec: CodecSpec, draw: Draw) -> Blob:
        """The bytes of x; nothing is drawn."""
        return np.frombuffer(x.astype("<f4").tobytes(), dtype=np.uint8)

    def decode(self, blob: Blob, n: int, spec: CodecSpec, who: str) -> Flat:
        """x itself."""
        return np.frombuffer(blob.tobytes(), dtype="<f4").astype(np.float32)

    def error(self, n: int, spec: CodecSpec) -> float:
        """None."""
        return 0.0


class Bf16:
    """bfloat16 by stochastic rounding: 2 bytes a number, the range of float32, 8 bits of precision.

    With b the 32 bits of x as an integer and j uniform on 0 ... 2**16 - 1:

        encode(x) = (b + j) >> 16                 P(away from zero) = (b mod 2**16) / 2**16

    Bits of a float of one sign count its size in steps (also across a power of two), so the mean is exactly x, and a
    step is at most 2**-7 of |x|: Var <= step^2 / 4 <= 2**-16 x^2.

    | number | becomes |
    |---|---|
    | one that bf16 has (0, -0, 1, 2**-126) | itself, whatever is drawn |
    | 1 + 2**-8 | 1 or 1 + 2**-7, each with probability 1/2 |
    | below 2**-126 in size | still unbiased; the step is 2**-133, whatever the size |
    """

    unbiased = True

    def size(self, n: int, spec: CodecSpec) -> int:
        """2 n."""
        return 2 * n

    def encode(self, x: Flat, spec: CodecSpec, draw: Draw) -> Blob:
        """Little-endian halves."""
        jitter = (draw(x.size) * 65_536).astype(np.uint32)
        return as_bytes(((x.view(np.uint32) + jitter) >> 16).astype("<u2"))

    def decode(self, blob: Blob, n: int, spec: CodecSpec, who: str) -> Flat:
        """Any two bytes are a number; whether it is finite is looked at for all codecs alike."""
        return from_halves(blob)

    def error(self, n: int, spec: CodecSpec) -> float:
        """2**-16."""
        return 2.0**-16


def halves_above(positive: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The smallest bf16 >= each number (>= 0, up to ``LARGEST``), as 16 bits."""
    near = positive.astype(np.float32)
    above = np.where(near < positive, np.nextafter(near, np.float32(np.inf)), near)
    return ((above.view(np.uint32) + _LOW) >> 16).astype("<u2")


def from_halves(blob: Blob) -> Flat:
    """Pairs of bytes -> float32, exactly."""
    halves = np.frombuffer(blob.tobytes(), dtype="<u2")
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def as_bytes(numbers: NDArray[np.generic]) -> Blob:
    """The memory of an array."""
    return np.frombuffer(numbers.tobytes(), dtype=np.uint8)


PLAIN, BF16 = Plain(), Bf16()
