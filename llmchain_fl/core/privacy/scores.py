"""A site's own score, released with its price: the mean over held-out units as one Gaussian release.

Unit u brings a_u in [0, 1] (the mean over its records). Released is the noised pair

    s = sum_u (a_u - 1/2, 1/2)  +  N(0, (z S)^2 I_2),      S = max_a ||(a - 1/2, 1/2)|| = sqrt(1/2)

and from it, as post-processing, mean = 1/2 + s_1 / (2 s_2). Adding or removing one unit moves the sum by at most S, so
this is one Gaussian mechanism of multiplier z ("gaussian" in ``accounting.py``). The number of units stays secret: it
is inside the second coordinate. Centring at 1/2 makes S as small as it can be for a sum and a count together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.units import Units

SENSITIVITY = math.sqrt(0.5)


def unit_means(values: Sequence[float] | NDArray[np.float64], units: Units) -> NDArray[np.float64]:
    """Mean over each unit's records; ``values``: one score in [0, 1] for each record."""
    scores = np.asarray(values, dtype=np.float64)
    return np.array([scores[records].mean() for records in units.members], dtype=np.float64)


def check_multiplier(noise_multiplier: float) -> None:
    """Refuse a release without noise.

    Raises:
        PrivacyError: the multiplier is not above 0.
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise PrivacyError(
            f"a score with noise multiplier {noise_multiplier!r} is no private release", remedy="it must be above 0"
        )


def noised_mean(values: NDArray[np.float64], noise_multiplier: float, noise: SecureNoise) -> float:
    """Mean of one value in [0, 1] for each unit, released with Gaussian noise.

    ==================================  ==================================================
    case                                result
    ==================================  ==================================================
    a value outside [0, 1]              cut to the range
    a value that is not finite          its unit is not counted
    no unit, or a noised count below 1  1/2 plus the noise, cut to [0, 1]
    result outside [0, 1]               cut to the range
    ==================================  ==================================================

    Raises:
        PrivacyError: the multiplier is not above 0.
    """
    check_multiplier(noise_multiplier)
    counted = np.clip(values[np.isfinite(values)], 0.0, 1.0)
    exact = torch.tensor([float((counted - 0.5).sum()), 0.5 * len(counted)], dtype=torch.float64)
    above, half_count = noise.added(exact, noise_multiplier * SENSITIVITY).tolist()
    return float(min(1.0, max(0.0, 0.5 + above / max(2.0 * half_count, 1.0))))
