"""Gaussian noise that nobody can repeat: every draw comes from a fresh key of the operating system.

The guarantee of differential privacy is void for whoever knows the noise. So it may not come from a generator that a
script can seed, a checkpoint can store or a fork can copy. Here each chunk of uniforms is the keystream of AES-256 in
counter mode under a key of its own from ``os.urandom``: there is no state at all, hence nothing to seed, to copy into
a child process, or to read out of memory later.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError

Uniform = Callable[[int], NDArray[np.float64]]
"""size -> that many independent float64 in [0, 1), each a multiple of 2**-53."""

_GRID = 2.0**-53
_TERMS = 4
_COARSENESS = 16
"""The released sum lies on a grid of 2**-16 of its noise, or finer by less than a factor of 2."""
_CHUNK = 4096


def secure_uniform(size: int) -> NDArray[np.float64]:
    """``size`` uniforms in [0, 1), multiples of 2**-53, from AES-256-CTR under a fresh 256-bit key of the OS."""
    cipher = Cipher(AES(os.urandom(32)), CTR(bytes(16)))
    words = np.frombuffer(cipher.encryptor().update(bytes(8 * size)), dtype="<u8")
    return (words >> np.uint64(11)).astype(np.float64) * _GRID


def gaussians(size: int, uniform: Uniform) -> NDArray[np.float64]:
    """``size`` standard normal float64, each the sum of 4 Box-Muller Gaussians divided by 2.

    Box & Muller 1958: sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v) are independent N(0, 1), u in (0, 1].
    Holohan & Braghin 2021 (arXiv 2107.10138), section 5.1: one floating-point Gaussian betrays through its low bits
    which value it was added to; the sum of 2n of them over sqrt(2n) does not (about 2**(53 (2n - 1)) trials), here
    n = 2. The cosine and the sine of one pair always go to *different* results: in one sum they would be one Gaussian.

    No single term exceeds sqrt(2 * 53 * ln 2) = 8.57 in size (probability 1e-17 of an exact Gaussian).
    """
    result = np.empty(size, dtype=np.float64)
    for start in range(0, size, 2 * _CHUNK):
        count = min(2 * _CHUNK, size - start)
        half = (count + 1) // 2
        u, v = uniform(2 * _TERMS * half).reshape(2, _TERMS, half)
        radius = np.sqrt(-2.0 * np.log(u + _GRID))
        angle = (2.0 * np.pi) * v  # not torch's cosine: three times as fast, and for ever asleep in a forked process
        result[start : start + half] = np.einsum("ij,ij->j", radius, np.cos(angle))
        result[start + half : start + count] = np.einsum("ij,ij->j", radius, np.sin(angle))[: count - half]
    result /= math.sqrt(_TERMS)
    return result


class SecureNoise:
    """Gaussian noise for private sums; not affected by any seed of torch, numpy or random, and safe after a fork.

    ======================  =========================================
    call                    result
    ======================  =========================================
    ``std`` = 0             zeros
    ``size`` = 0            an empty tensor
    negative or not finite  :class:`PrivacyError`
    ======================  =========================================
    """

    def sample(self, size: int, std: float) -> torch.Tensor:
        """Independent N(0, std^2), scaled in float64 and then rounded: float32 [size] on the CPU."""
        return torch.from_numpy(_draw(size, std).astype(np.float32))

    def added(self, values: torch.Tensor, std: float) -> torch.Tensor:
        """``values`` + N(0, std^2), summed in float64 and then rounded to a public grid.

        The low bits of a floating-point sum tell what was added to what (Mironov 2012; Jin et al. 2022, arXiv
        2112.05307). Here they are gone: the result is a multiple of g = 2**(floor(log2 std) - 16), which depends on
        public constants only, so the rounding is post-processing; it adds at most std / 2**17 of error.

        ======================  =====================================================
        case                    result
        ======================  =====================================================
        ``std`` = 0             the values themselves, not rounded
        values of bf16, fp16    float32
        values on a GPU         noise is drawn on the CPU, the result is on the GPU
        ======================  =====================================================

        Returns float32, same shape and device; independent noise for each value and call.
        """
        if std == 0:
            return values.float()
        exact = values.detach().cpu().double().numpy()
        step = 2.0 ** (math.floor(math.log2(std)) - _COARSENESS) if math.isfinite(std) and std > 0 else 1.0
        noised = exact + _draw(exact.size, std).reshape(exact.shape)
        return torch.from_numpy(np.asarray(np.rint(noised / step) * step, dtype=np.float32)).to(values.device)


def _draw(size: int, std: float) -> NDArray[np.float64]:
    if size < 0 or not (math.isfinite(std) and std >= 0):
        raise PrivacyError(
            f"noise of size {size} and standard deviation {std!r} cannot be drawn",
            remedy="both must be >= 0 and finite; the standard deviation is PrivacyPlan.noise_std",
        )
    return gaussians(size, secure_uniform) * std if std else np.zeros(size)
