"""A site as the privacy unit: its whole update is clipped here, and noised by the server, which is trusted."""

from __future__ import annotations

import math

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import PrivacyError


def clipped(update: Arrays, clip_norm: float) -> Arrays:
    """A whole update at L2 norm <= C (1 + 1e-6): the bound on what one site adds (unit ``site``).

    ==============================  ==========================
    update                          result
    ==============================  ==========================
    norm <= C                       itself
    norm > C                        scaled by C / norm
    a number that is not finite     zeros
    ==============================  ==========================

    Raises:
        PrivacyError: C is not finite or not above 0: that would be no bound.
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise PrivacyError(f"the clip norm is {clip_norm!r}", remedy="the server must send one above 0, and finite")
    norm = math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in update.values()))
    if not math.isfinite(norm):
        return {name: np.zeros_like(value) for name, value in update.items()}
    factor = clip_norm / norm if norm > clip_norm else 1.0
    return {name: (value * factor).astype(np.float32) for name, value in update.items()} if factor < 1 else update
