"""The sum of one lockstep round where the noise is that of several sites' sum, in whole numbers."""

from __future__ import annotations

import numpy as np

from client.gradients import LossFn, PrivateGradient
from llmchain_fl.core.privacy.integer_noise import noised_share
from llmchain_fl.core.privacy.integers import Integers, clipped_integer_sum
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.sharing import Sharing
from llmchain_fl.core.privacy.units import Batch


def integer_sum(gradient: PrivateGradient, batch: Batch, loss: LossFn, plan: PrivacyPlan) -> Integers:
    """The sum of clipped gradients where noise is shared: int64 [P] in units of C / 2^k, with this site's share of it.

    g = box(sum_u [g_u 2^k / C rounded, at most 2^k long]) + N_Z(0, (z 2^k)^2 / m)     (``privacy/integers.py``)
    """
    sharing, total = Sharing.of(plan), np.zeros(gradient.size, dtype=np.int64)
    for rows in gradient.some(batch, loss):
        clipped, bad = clipped_integer_sum(rows, plan.clip_norm, plan.grid)
        gradient.note(bad)
        total += clipped
    return noised_share(total, sharing.box, sharing.variance)
