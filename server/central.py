"""Privacy unit ``site``: the server clips, averages and adds the noise (DP-FedAvg, McMahan et al. 2018, 1710.06963).

    mean = (1 / n) sum_k u_k min(1, C / ||u_k||)  +  N(0, (z C / n_min)^2 I)

u_k: update of site k, n >= n_min sites answered, n_min = ``sites.minimum`` = ``PrivacyPlan.divisor``. Replacing all
that one site sends by nothing moves the mean by at most C / n <= C / n_min, so a round is one Gaussian release of
multiplier z, also when sites drop out; with fewer than n_min there is no round (and no release). No amplification by
sampling of sites is claimed: with 3 to 20 of them there is next to none.

Adaptive clipping (Andrew et al. 2021, arXiv 1905.03871, algorithm 1): with b_k = 1 where ||u_k|| < C and quantile g,

    b = (sum_k b_k + N(0, z_b^2)) / n                              C <- C exp(-RATE (b - g))
    z_u = z / sqrt(1 - SHARE),  z_b = z / sqrt(SHARE),  so that z_u^-2 + z_b^-2 = z^-2

(z_u on the updates, the paper's z_Delta of section 3.1): both releases together cost what one of multiplier z costs.
Where we differ: a site that is replaced by nothing counts as small here, so the count moves by 1; the paper, where a
site is absent, centres it and gets 1/2. And the paper's noise of 1 / 20 of the sites is made for hundreds of them; with
few, as here, the count takes a fixed share (1 / 9) of the budget.

The server sees every update before the noise: it is trusted by the sites that allow this unit. Not promised: a server
that dies between the noise and its checkpoint draws new noise for the same round, so whoever saw the first has two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.plan import PrivacyPlan

Floats = NDArray[np.float32]

RATE = 0.2
"""Step of log C."""
SHARE = 1.0 / 9.0
"""Share of the budget (in 1 / z^2) that the noised count of small updates takes."""


def split(noise_multiplier: float) -> tuple[float, float]:
    """z -> (z_u for the updates, z_b for the count of small updates, whose sensitivity is 1).

    Two Gaussian releases with multipliers z_u and z_b are one of multiplier (z_u^-2 + z_b^-2)^(-1/2).
    """
    return noise_multiplier / math.sqrt(1 - SHARE), noise_multiplier / math.sqrt(SHARE)


class CentralPrivacy:
    """Clips, counts and noises the updates of one round after another.

    Args:
        plan: a plan with unit ``site``.
        quantile: of the sites' norms that C follows; 0 keeps C fixed and spends everything on the updates.
    """

    def __init__(self, plan: PrivacyPlan, quantile: float) -> None:
        self._plan, self._quantile = plan, quantile
        self.clip = plan.clip_norm
        """C of the round to come."""
        self._noise = SecureNoise()
        self._small: list[bool] = []

    def clipped(self, delta: Arrays) -> Arrays:
        """One site's update at norm <= C. The site has done it already; a sum to be noised takes no word for it."""
        norm = math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in delta.values()))
        self._small.append(norm < self.clip * (1 - 1e-5))
        factor = min(1.0, self.clip / norm) if norm > 0 else 1.0
        return {name: (value * factor).astype(np.float32) for name, value in delta.items()}

    def noised(self, finish: Callable[[Callable[[str, Floats], Floats]], Arrays]) -> Arrays:
        """What ``finish`` makes of the round when it puts our noise on each averaged array; then C moves on.

        The rule asks for the noise at the right place: before an SVD or an optimizer sees the mean.
        """
        z, count_std = split(self._plan.noise_multiplier) if self._quantile else (self._plan.noise_multiplier, 0.0)
        std = z * self.clip / self._plan.divisor
        result = finish(lambda _name, mean: self._noise.added(torch.from_numpy(mean.astype(np.float32)), std).numpy())
        if self._quantile and self._small:
            count = torch.tensor([float(sum(self._small))], dtype=torch.float64)
            share = float(self._noise.added(count, count_std)) / len(self._small)
            self.clip *= math.exp(-RATE * (min(1.0, max(0.0, share)) - self._quantile))
        self._small = []
        return result

    def forget(self) -> None:
        """No round came of it: nothing was released, C stays."""
        self._small = []

    def state(self) -> dict[str, float]:
        """What must survive a restart."""
        return {"clip": self.clip}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take up what was saved."""
        self.clip = state["clip"]
