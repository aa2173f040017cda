"""Poisson sampling: the only sampling for which the amplification in ``accounting.py`` holds.

Each unit is in a step's batch with probability q, independently of all others and of all other steps, so a batch has
no fixed size and may be empty (Mironov, Talwar & Zhang 2019, arXiv 1908.10530). Shuffled epochs or fixed-size batches
under the same epsilon are a false claim (Chua et al. 2024, arXiv 2403.17673).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.noise import Uniform, secure_uniform


def poisson_batches(n: int, rate: float, steps: int, uniform: Uniform) -> Iterator[NDArray[np.int64]]:
    """``steps`` batches of unit indices, each unit present when its own uniform is below ``rate``.

    ==========================  ===================================================================
    case                        result
    ==========================  ===================================================================
    nobody is drawn             an empty batch is yielded: the step happens, with noise only
    ``n`` = 0                   ``steps`` empty batches
    ``rate`` = 1                every batch is everybody
    ``rate`` outside (0, 1]     :class:`PrivacyError` at the call, not at the first batch
    ==========================  ===================================================================

    ``n`` is private, and only the draws use it; ``rate``, q, is a public constant. ``uniform``: :func:`secret_uniform`
    for a private run, :func:`seeded_uniform` without noise. Each batch: int64, ascending, without repeats.
    """
    if n < 0 or steps < 0 or not 0 < rate <= 1:
        raise PrivacyError(
            f"cannot draw {steps} Poisson batches from {n} units at rate {rate!r}",
            remedy="the rate must be in (0, 1], the two counts >= 0",
        )
    return (np.flatnonzero(uniform(n) < rate).astype(np.int64, copy=False) for _ in range(steps))


def secret_uniform(size: int) -> NDArray[np.float64]:
    """Draws that nobody can repeat. Amplification holds only while the batches stay unknown: use it with noise on."""
    return secure_uniform(size)


def seeded_uniform(seed: int, site: str, round_number: int) -> Uniform:
    """Draws that are the same in every run, for runs WITHOUT noise only: whoever knows the seed knows the batches.

    Sites and rounds draw differently; each call goes on along its own stream.
    """
    label = json.dumps(["poisson", seed, site, round_number]).encode()
    entropy = int.from_bytes(hashlib.sha256(label).digest(), "big")
    return np.random.Generator(np.random.PCG64(entropy)).random
