"""``int8`` and ``int4``: whole steps of a block's own scale, by stochastic rounding (QSGD, Alistarh et al. 2017).

arXiv 1610.02132, section 3.1, with the largest number of a block for the norm and a block for the whole vector. With
levels L (127 or 7), a block x of at most b numbers and a uniform u for each number:

    s = the smallest bf16 >= max|x| / L            q = floor(x / s + u)            decode: q s

* |q| <= L: nothing is cut off. P(q = ceil(x / s)) is the fraction of x / s, so E[q s] = x (to 2**-46 of s: the fraction
  is computed in float64).
* Variance of one number: s^2 p (1 - p) <= s^2 / 4. Over a block, with s <= (1 + 2**-7) max|x| / L,
  E||q s - x||^2 <= b (1 + 2**-7)^2 / (4 L^2) ||x||^2: for b = 64, 0.0010 (int8) and 0.33 (int4).
* q s has at most 15 bits: decoding is exact in float32, the same on every machine.

Bytes: ceil(n / b) scales of 2 bytes, then n bytes (int8, two's complement) or ceil(n / 2) bytes (int4: q + 8, the first
number in the lower half; an odd n is filled up with q = 0). int4 at b = 64 is 4.25 bits a number.

| case | outcome |
|---|---|
| a block of zeros | scale 0, zeros, whatever is drawn |
| the largest number of a block | within one step of itself; exact where max / L is a bf16 |
| n is no multiple of b | the last block is shorter |
| q = -L - 1 in a reply (-128, or half a byte of 0), or a filling other than 0 | refused: no site writes it |
| a scale that is negative, NaN or infinite | refused |
| L s above float32 | not finite: refused |

Where we differ: QSGD takes the l2 norm of the whole vector and codes zeros shortly, which makes the length of a
message depend on what is in it. Here the length is public.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression.bf16 import as_bytes, from_halves, halves_above
from llmchain_fl.core.compression.codec import Blob, Draw, Flat, refuse


@dataclass(frozen=True)
class Quantise:
    """See the module.

    Attributes:
        levels: L; q is from -L to L.
        packed: two numbers in a byte.
    """

    levels: int
    packed: bool
    unbiased: bool = True

    def size(self, n: int, spec: CodecSpec) -> int:
        """Scales, then numbers."""
        return 2 * -(-n // spec.block) + (-(-n // 2) if self.packed else n)

    def encode(self, x: Flat, spec: CodecSpec, draw: Draw) -> Blob:
        """One uniform for each number, in order."""
        if not x.size:
            return np.zeros(0, dtype=np.uint8)
        most = np.maximum.reduceat(np.abs(x), np.arange(0, x.size, spec.block))
        halves = halves_above(most.astype(np.float64) / self.levels)
        scales = from_halves(as_bytes(halves)).astype(np.float64)
        steps = np.repeat(np.where(scales > 0, scales, 1.0), spec.block)[: x.size]
        q = np.floor(x / steps + draw(x.size))
        q = np.minimum(q, self.levels).astype(np.int8)  # L + (1 - 2**-53) is L + 1 in float64
        return np.concatenate([as_bytes(halves), self._pack(q)])

    def decode(self, blob: Blob, n: int, spec: CodecSpec, who: str) -> Flat:
        """See the table of the module."""
        cut = 2 * -(-n // spec.block)
        scales = from_halves(blob[:cut])
        if not np.isfinite(scales).all() or np.signbit(scales).any():
            raise refuse(who, "has a scale that is not a finite number of at least 0")
        q = self._unpack(blob[cut:])
        if (q < -self.levels).any() or q[n:].any():
            raise refuse(who, f"has a step below -{self.levels}, or a filling that is not 0")
        with np.errstate(over="ignore"):  # what leaves float32 becomes infinite, and is refused for that
            return q[:n] * np.repeat(scales, spec.block)[:n]

    def error(self, n: int, spec: CodecSpec) -> float:
        """b (1 + 2**-7)^2 / (4 L^2), b no longer than the array."""
        return min(spec.block, n) * (1 + 2.0**-7) ** 2 / (4 * self.levels**2)

    def _pack(self, q: NDArray[np.int8]) -> Blob:
        if not self.packed:
            return q.view(np.uint8)
        raised = (np.append(q, np.int8(0)) if q.size % 2 else q).view(np.uint8) + np.uint8(8)
        return raised[0::2] | (raised[1::2] << np.uint8(4))

    def _unpack(self, body: Blob) -> NDArray[np.int8]:
        if not self.packed:
            return body.view(np.int8)
        raised = np.empty(2 * body.size, dtype=np.uint8)
        raised[0::2], raised[1::2] = body & np.uint8(15), body >> np.uint8(4)
        return raised.view(np.int8) - np.int8(8)


INT8 = Quantise(levels=127, packed=False)
INT4 = Quantise(levels=7, packed=True)
