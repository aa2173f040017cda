"""Integer noise of exactly the discrete Gaussian law, so that the shares of several sites add up to what is accounted.

    N_Z(0, s):  P[x] = exp(-x^2 / (2 s)) / sum_j exp(-j^2 / (2 s)),  x any integer; s: an integer, close to the variance

(Canonne, Kamath & Steinke 2020, arXiv 2004.00010). No floating-point number enters a result, so nothing can be read
from its low bits. The randomness is that of ``noise.py``: AES-256 in counter mode, each chunk under a fresh key of the
operating system; nothing to seed, to copy into a child process or to read out of memory later.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.integers import Integers

Words = Callable[[int], NDArray[np.uint64]]
"""size -> that many independent uniform words of 64 bits."""

LEAST_SHARE = 16
"""Least s of a site's share: from here on a sum of shares is one discrete Gaussian (``accountants.py``)."""
LEAST_TOTAL = 2**16
"""Least m s of a sum: from here on it is accounted as continuous noise that is randomly rounded."""
MOST_VARIANCE = 2**50
"""Largest s: above, x^2 would leave the range in which the margin below is proven."""
_CHUNK = 2**15
_RUN = 38
"""Bits of a word in which the leading zeros are counted."""
_MARGIN = 2.0**-36
_CAP = 2.0**-30


def secure_words(size: int) -> NDArray[np.uint64]:
    """``size`` uniform words of 64 bits, from AES-256-CTR under a fresh 256-bit key of the OS."""
    cipher = Cipher(AES(os.urandom(32)), CTR(bytes(16)))
    return np.frombuffer(cipher.encryptor().update(bytes(8 * size)), dtype="<u8").astype(np.uint64, copy=False)


def share_variance(noise_multiplier: float, bits: int, shares: int) -> int:
    """s of one share: the smallest integer with m s >= (z 2^k)^2, in exact arithmetic.

    More than m shares in the sum are more noise, never less; fewer must not be opened.

    Args:
        noise_multiplier: z of the sum, in units of C.
        bits: k, the grid.
        shares: m, the smallest number of sites whose sum is opened.

    Raises:
        PrivacyError: numbers out of range, m s < LEAST_TOTAL, or s outside LEAST_SHARE .. MOST_VARIANCE.
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier >= 0 and bits >= 0 and shares >= 1):
        raise PrivacyError(
            f"no share of noise {noise_multiplier!r} on a grid of {bits} bits among {shares} sites",
            remedy="a finite noise multiplier, a grid of at least 0 bits, at least 1 site",
        )
    variance = math.ceil(Fraction(noise_multiplier) * Fraction(noise_multiplier) * (1 << 2 * bits) / shares)
    if shares * variance < LEAST_TOTAL or variance < LEAST_SHARE:
        small = f"noise of variance {shares * variance} in the sum, {variance} in a share"
        raise PrivacyError(small, remedy=f"take a finer grid: at least {LEAST_TOTAL}, {LEAST_SHARE} in a share")
    if variance > MOST_VARIANCE:
        raise PrivacyError(f"a share of variance {variance}, most is {MOST_VARIANCE}", remedy="take a coarser grid")
    return variance


def noised_share(total: Integers, box: int, variance: int) -> Integers:
    """What a site gives to the sum: ``total`` put into the box [-R, R], and then its share of the noise on top.

    In this order: noise that was cut off at the box would tell that a sum lies near its edge. Where the box cuts is
    never known outside. Each call draws anew, also for the same total.

    Raises:
        PrivacyError: ``total`` is not integer, R < 0, or a variance out of range.
    """
    if total.dtype != np.int64 or box < 0:
        raise PrivacyError(f"a sum of type {total.dtype} in a box of {box}", remedy="int64, and a box of at least 0")
    return np.clip(total, -box, box) + discrete_gaussians(total.size, variance).reshape(total.shape)


def discrete_gaussians(size: int, variance: int, words: Words = secure_words) -> Integers:
    """``size`` independent integers of exactly the law N_Z(0, s).

    Rejection, as in Canonne et al., algorithm 3, from another proposal. With t = 2^b, from 0.51 to 1.18 sqrt(s):

        v:  zeros before the first 1 in a row of random bits,  P[v] = 2^-(v + 1)
        u:  b random bits,       x = u + t v,       sign: one random bit
        accept with probability  p(x, v) = exp(v ln 2 - x^2 / (2 s) - c);  never x = 0 with the sign set

    c >= max_v (v ln 2 - (t v)^2 / (2 s)), found below v = 4; so p <= 1, as x >= t v. Proof of exactness: each x >= 0
    is proposed with each sign with probability 2^-(v + 1) / (2 t) and accepted with exp(-x^2 / 2 s) 2^v e^-c; the
    product is exp(-x^2 / 2 s) times a constant, and 0 has one sign. Accepted is about every second proposal.

    "Accept with probability p" is decided as U < p for a uniform real U, by as many binary digits of U as it takes. The
    first 53 are w, so U is in [w, w + 2^-53). p' is p as computed in float64. With E the exponent, E' is off by less
    than 2^-51 (|E| + 2 v), and v < 38, so exp(E') by less than 2^-44.7; libraries' exp is off by 4 in 2^53 at most:
    together |p' - p| < 2^-44. Where |w - p'| > 2^-36, hundreds of times that, w and p' compare as U and p do.
    Elsewhere, and where all 38 bits of v are 0, ``_Law.settled`` decides in integers (once in 10^10 draws).

    How long it takes depends on the noise alone, not on what it is added to.

    ==============================  =======================
    case                            result
    ==============================  =======================
    size 0                          an empty array
    s not an integer from 1 to      :class:`PrivacyError`
    MOST_VARIANCE, size < 0
    ==============================  =======================

    Raises:
        PrivacyError: as in the table.
    """
    whole = isinstance(variance, int) and not isinstance(variance, bool)
    if size < 0 or not whole or not 1 <= variance <= MOST_VARIANCE:
        raise PrivacyError(
            f"integer noise of size {size} and variance {variance!r} cannot be drawn",
            remedy=f"a size of at least 0; a whole variance from 1 to {MOST_VARIANCE}, see share_variance()",
        )
    law, integers, start = _Law.of(variance), np.empty(size, dtype=np.int64), 0
    while start < size:
        part = law.drawn(min(_CHUNK, 2 * (size - start) + 64), words)[: size - start]
        integers[start : start + part.size] = part
        start += part.size
    return integers


@dataclass(frozen=True)
class _Law:
    variance: int
    """s"""
    shift: int
    """b, t = 2^b"""
    cap: float
    """c, exactly this number."""

    @classmethod
    def of(cls, variance: int) -> _Law:
        shift = (math.isqrt(variance) * 75 // 64).bit_length() - 1
        ratio = 4**shift / (2 * variance)
        return cls(variance, shift, max(v * math.log(2) - v * v * ratio for v in range(8)) + _CAP)

    def drawn(self, count: int, words: Words) -> Integers:
        """Those of ``count`` proposals that are accepted, in order."""
        first, second = words(2 * count).reshape(2, count)
        run = first >> np.uint64(64 - _RUN)
        zeros = _RUN - _bit_lengths(run)
        size = (zeros << self.shift) + ((first >> np.uint64(1)).astype(np.int64) & ((1 << self.shift) - 1))
        real = size.astype(np.float64)
        chance = np.exp(zeros * math.log(2) - real * real * (0.5 / self.variance) - self.cap)
        digits = (second >> np.uint64(11)).astype(np.float64) * 2.0**-53
        accepted = digits < chance
        for i in np.flatnonzero((np.abs(digits - chance) <= _MARGIN) | (run == 0)):
            size[i], accepted[i] = self.settled(int(first[i]), int(second[i]), words)
        minus = (first & np.uint64(1)).astype(bool)
        accepted &= (size > 0) | ~minus
        return np.where(minus, -size, size)[accepted]

    def settled(self, first: int, second: int, words: Words) -> tuple[int, bool]:
        """(x, whether it is accepted), by integers alone, for the proposal of these two words."""
        run = first >> (64 - _RUN)
        zeros = _RUN - run.bit_length()
        while not run:
            run = int(words(1)[0])
            zeros += 64 - run.bit_length()
        size = (zeros << self.shift) + ((first >> 1) & ((1 << self.shift) - 1))
        known, places, digits = second >> 11, 53, 40
        while True:
            chance, error = self.chance(size, zeros, digits)
            if Fraction(known + 1, 1 << places) <= chance - error:
                return size, True
            if Fraction(known, 1 << places) >= chance + error:
                return size, False
            known, places, digits = (known << 64) | int(words(1)[0]), places + 64, digits + 20

    def chance(self, size: int, zeros: int, digits: int) -> tuple[Fraction, Fraction]:
        """p(x, v), and a bound of its error: decimal's ln and exp, as all else there, are rounded correctly.

        The three terms of the exponent are below n = v + x^2 / (2 s) + 10, and five roundings of 10^(1 - digits) / 2
        each go into it, one into its exp <= 1.01: below n 10^(2 - digits) together.
        """
        with localcontext(Context(prec=digits)):
            exponent = zeros * Decimal(2).ln() - Decimal(size * size) / (2 * self.variance) - Decimal(self.cap)
            chance = exponent.exp()
        return Fraction(chance), Fraction(zeros + size * size // (2 * self.variance) + 10, 10 ** (digits - 2))


def _bit_lengths(values: NDArray[np.uint64]) -> Integers:
    """The number of binary digits of each value below 2^53, from the exponent of its float64; below 0 for 0."""
    return (values.astype(np.float64).view(np.int64) >> 52) - 1022
