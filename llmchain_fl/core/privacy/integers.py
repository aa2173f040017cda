"""Gradients as integers: what one unit adds to a sum that several sites open together.

Shared noise is drawn as integers and summed modulo a power of two, so what it hides is integer too. The unit of the
grid is C / 2**k: the clip norm C is 2**k units, k is public (``grid`` of the plan).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.clipping import clip_factor

Integers = NDArray[np.int64]

LEAST_GRID, MOST_GRID = 10, 20
"""Smallest k that :func:`grid_bits` proposes; largest k of a grid: above, float64 would not hold the sums."""
KEPT = 0.99
"""Share of C that :func:`grid_bits` leaves to a long gradient."""
_COARSEST = 0.5
_SPARE = 5.0
_HAIR = 2.0**-30
MOST_WORD = 32
"""Widest word of a sum, in bits."""
MOST_MEMBERS = 2**16
"""Most sites of one sum."""


def length_before(width: int, bits: int) -> float:
    """L2 norm, in units of the grid, to which a row of ``width`` numbers is clipped before it is rounded.

        W^2 = 4^k (1 - 2**-30) - d / 12 - 5 sqrt(4^k / 3 + d / 180)

    Rounding to the nearest integer adds e, entries like uniform ones in [-1/2, 1/2]: |x + e|^2 = |x|^2 + 2 x.e + |e|^2
    has mean |x|^2 + d / 12 and variance below 4^k / 3 + d / 180. So a row clipped to W is at most 2**k long afterwards
    except about once in 3 million. Nothing rests on that: :func:`clipped_integer_sum` measures.

    Raises:
        PrivacyError: k not in 1 .. MOST_GRID, or so coarse a grid that less than half of C would be left.
    """
    if not 1 <= bits <= MOST_GRID:
        raise PrivacyError(f"a grid of {bits} bits", remedy=f"1 to {MOST_GRID} bits; grid_bits() proposes")
    whole = 4.0**bits
    square = whole * (1 - _HAIR) - width / 12 - _SPARE * math.sqrt(whole / 3 + width / 180)
    if square < whole * _COARSEST**2:
        raise PrivacyError(
            f"a grid of {bits} bits is too coarse for {width} numbers",
            remedy="take a finer grid (grid_bits() proposes), or train fewer numbers",
        )
    return math.sqrt(square)


def grid_bits(width: int) -> int:
    """The smallest k >= LEAST_GRID with which a long gradient of ``width`` numbers keeps 0.99 of C.

    About log2(7.1 sqrt(d)) for large d: 10 up to d = 200,000, 11 up to 900,000, 13 for ten millions.

    Raises:
        PrivacyError: no grid is fine enough.
    """
    for bits in range(LEAST_GRID, MOST_GRID + 1):
        if width / 12 < 4.0**bits / 2 and length_before(width, bits) >= KEPT * 2**bits:
            return bits
    raise PrivacyError(f"no grid is fine enough for {width} numbers", remedy="train fewer numbers")


def clipped_integer_sum(rows: Tensor, clip_norm: float, bits: int) -> tuple[Integers, int]:
    """Sum of the rows, each clipped to C, measured in units of C / 2**k and rounded to integers.

        x = v min(2^k / C, W / |v|)          W: :func:`length_before`
        y = x to the nearest integers (halves to even) where |y| <= 2^k, else x toward zero

    Guarantee, for every input: each row adds an integer vector of L2 norm <= 2**k, without any slack, and the same
    vector whatever the other rows are. Adding or removing one row moves the sum by exactly that vector.

    Proof. A row is added only after the test ``y.y <= 4**k``, taken in float64, where it is exact. The y_i are whole.
    If one is above 2^26 in size, its square, and a sum of squares in any order, comes out at 2^52 or more: not added.
    Else all squares are exact. If they sum to 2^53 or less, every partial sum is a whole number up to 2^53, so exact,
    in any order, fused or not. If to more, some partial sum first comes out at 2^53 or more, and what only grows stays
    there: not added, as 4^k <= 2^40. NaN fails the test. So neither the norm of v nor x need be right. The sum of n
    rows is a whole number up to n 2^20: exact up to n = 2^33. A row is measured in a copy of its own, so that its place
    in memory, hence the order in which it is summed, does not follow from who else is there.

    Toward zero never lengthens (|trunc(x)| <= |x|), and x is shorter than 2**k by a share of 2**-31, a thousand times
    what a float64 norm of 10**7 numbers is off: where nearest does not fit, toward zero does. If neither did, the row
    would add nothing.

    ==========================================  ========================================================
    input                                       result
    ==========================================  ========================================================
    n = 0                                       zeros [P]
    a row with NaN or inf, or of no norm        adds zero, is counted
    in float64
    a zero row, or one below half a unit        adds zero, is not counted
    all entries just above half a unit          rounded up where that fits, else all become zero
    |v| far above C                             W long, give or take the rounding
    bfloat16, float16, float32 rows             as their float64 values
    ==========================================  ========================================================

    Args:
        rows: one unit's gradient each, shape [n, P], a floating type.
        clip_norm: C.
        bits: k.

    Returns:
        (sum int64 [P], number of rows that could not be used). That number is private: it must not leave the site.

    Raises:
        PrivacyError: wrong shape or type, a faulty C, a grid that does not fit P.
    """
    if rows.dim() != 2 or not rows.is_floating_point():
        raise PrivacyError(
            f"per-unit gradients have shape {tuple(rows.shape)} and type {rows.dtype}",
            remedy="pass one flat row of floating-point numbers per unit, shape [n, P]",
        )
    clip_factor(0.0, clip_norm)
    longest, unit = length_before(rows.shape[1], bits), 2.0**bits / clip_norm
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    unusable = 0
    for row in rows.detach():
        own = row.to(torch.float64, copy=True)
        norm = float(torch.linalg.vector_norm(own))
        whole = _whole(own.mul_(min(unit, longest / norm) if norm else unit), 4.0**bits) if norm < math.inf else None
        if whole is None:
            unusable += 1
        else:
            total.add_(whole)
    return total.cpu().numpy().astype(np.int64), unusable


def _whole(row: Tensor, longest_squared: float) -> Tensor | None:
    """The row as whole numbers of squared norm <= ``longest_squared``; None: neither rounding is that short."""
    for rounded in (torch.round, torch.trunc):
        whole = rounded(row)
        if float(torch.dot(whole, whole)) <= longest_squared:
            return whole
    return None


def reach(expected_units: float) -> int:
    """Half the width of the box, in units of C, into which a site's sum is put before the noise is added.

        R = 2^k reach,      reach(B) = ceil(B + 6 sqrt(B)) + 6

    B: how many units a site draws in a step on average, at most; a public number, the divisor for instance. No entry
    of a sum of b rows is above b C, so the box cuts nothing off while at most reach(B) units are drawn: more are in one
    step of 10**8. The box protects the words of the sum from wrapping, not the units: two vectors put entry by entry
    into one box do not move apart, so the sensitivity stays 2**k, and the change stays integer.

    Raises:
        PrivacyError: B is not finite or negative.
    """
    if not 0 <= expected_units < math.inf:
        raise PrivacyError(f"{expected_units!r} expected units", remedy="a finite number of at least 0")
    return math.ceil(expected_units + 6 * math.sqrt(expected_units)) + 6


def word_bits(members: int, box: int, variance: int) -> int:
    """Bits of a word in which the noised sum of ``members`` sites does not wrap: the least b with

        n R + t <= 2^(b - 1) - 1,      t^2 = 120 n s

    The noise of the sum, N, is that of n sites of variance s each; E exp(h N) <= exp(h^2 n s / 2) (each term is
    exp(h^2 s / 2) times a sum of exp(-(x - h s)^2 / 2 s) over the integers, largest where h s is one), so

        P[|N| > t] <= 2 exp(-t^2 / (2 n s)) = 2 exp(-60) < 2^-85

    for one entry, below 2^-60 for any of 2^25. Where a word does wrap the opened sum is wrong, and private all the
    same: to take it modulo 2^b is done to the noised sum. Fewer sites than ``members`` need no more.

    Args:
        members: n, the most sites that are in one sum.
        box: R, an integer.
        variance: s of one site's share of the noise, an integer.

    Raises:
        PrivacyError: numbers out of range, or more than MOST_WORD bits.
    """
    if not (1 <= members <= MOST_MEMBERS and box >= 0 and variance >= 0):
        raise PrivacyError(
            f"no word for {members} members, a box of {box} and a variance of {variance}",
            remedy=f"1 to {MOST_MEMBERS} members; box and variance at least 0",
        )
    bits = (members * box + math.isqrt(120 * members * variance) + 1).bit_length() + 1
    if bits > MOST_WORD:
        raise PrivacyError(
            f"a sum of {members} sites needs words of {bits} bits, more than {MOST_WORD}",
            remedy="take a coarser grid, or fewer expected units",
        )
    return bits


def to_words(values: NDArray[np.float64], bound: float, members: int) -> NDArray[np.uint32]:
    """Numbers without shared noise as words of 32 bits whose sum over ``members`` sites does not wrap.

        word = rint(v s / L) mod 2^32,      s = floor((2^31 - 1) / n)

    Each is off by at most L / (2 s) (1 + 2**-20), so a sum of n by at most n^2 L / 2^32, nearly. No noise is promised
    here, and nothing is hidden but by the masks.

    ==================================  =====================
    values                              words
    ==================================  =====================
    beyond -L or L                      those of -L or L
    NaN or infinite                     :class:`PrivacyError`
    ==================================  =====================

    Args:
        values: any shape, floating point.
        bound: L, public, positive and finite.
        members: n, the most sites that are in one sum.

    Raises:
        PrivacyError: as in the table, or L or n out of range.
    """
    levels = _levels(bound, members)
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise PrivacyError("numbers that are not finite have no words", remedy="lower the learning rate, or clip")
    whole = np.rint(np.clip(values, -bound, bound) / bound * levels)
    return whole.astype(np.int64).astype(np.uint32)


def from_words(words: NDArray[np.uint32], bound: float, members: int) -> NDArray[np.float64]:
    """The sum behind a sum of words modulo 2^32, of up to ``members`` sites: the inverse of :func:`to_words`.

    Raises:
        PrivacyError: words of another type, or L or n out of range.
    """
    levels = _levels(bound, members)
    if words.dtype != np.uint32:
        raise PrivacyError(f"words of type {words.dtype}", remedy="uint32")
    return words.astype(np.int32).astype(np.float64) / levels * bound


def _levels(bound: float, members: int) -> int:
    if not (0 < bound < math.inf and 1 <= members <= MOST_MEMBERS):
        raise PrivacyError(
            f"no words for numbers up to {bound!r} of {members} sites",
            remedy=f"a positive finite bound, 1 to {MOST_MEMBERS} sites",
        )
    return (2**31 - 1) // members
