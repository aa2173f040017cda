"""A noise setting as the differential-privacy parts of Flower and NVFlare take it, from their published sources.

Read in Flower 1.41 (``flwr/clientapp/mod/localdp_mod.py``, ``flwr/serverapp/strategy/dp_fixed_clipping.py``,
``dp_adaptive_clipping.py``, ``flwr/supercore/differential_privacy.py``) and NVFlare at commit 0f9026b
(``nvflare/app_common/filters/svt_privacy.py``, ``percentile_privacy.py``, ``exclude_vars.py``). Names are theirs.
"""

from __future__ import annotations

import math

import numpy as np

from llmchain_fl.privacy.explain import ANOTHER, NONE, Reading, Stated

SOURCES = (
    "Flower 1.41: flwr/clientapp/mod/localdp_mod.py, flwr/serverapp/strategy/dp_fixed_clipping.py and "
    "dp_adaptive_clipping.py, flwr/supercore/differential_privacy.py",
    "NVFlare, commit 0f9026b: nvflare/app_common/filters/svt_privacy.py, percentile_privacy.py, exclude_vars.py",
    "Balle & Wang 2018, arXiv 1805.06530 (exact epsilon of Gaussian noise); Dong, Roth & Su 2019, arXiv 1905.02383 "
    "(its composition); Dwork & Roth 2014, theorem A.1 (the classical formula); Mironov 2017, arXiv 1702.07476 "
    "(Laplace noise)",
)


def flower(stated: Stated) -> list[Reading]:
    """``LocalDpMod`` for a stated epsilon, the central strategies for a noise multiplier."""
    return [*_local(stated), *_fixed(stated), *_adaptive(stated)]


def _local(stated: Stated) -> list[Reading]:
    """Noise of sqrt(2 ln(1.25 / delta)) S / epsilon on each value of an update that was clipped to C."""
    std = stated.textbook_std
    if std is None:
        return []
    settings = f"clipping_norm={stated.c:g}, sensitivity={stated.s:g}, epsilon={stated.epsilon:g}, delta={stated.d:g}"
    return [
        Reading("Flower LocalDpMod", f"LocalDpMod({settings})", std, "update of a site", unit, *_rounds(stated, ratio))
        for unit, ratio in ((NONE, _ratio(stated.c, std)), (ANOTHER, _ratio(2 * stated.c, std)))
    ]


def _fixed(stated: Stated) -> list[Reading]:
    """Noise of z C / n on the mean of n updates, each clipped to C: ratio 1 / z, whatever n."""
    z = stated.noise_multiplier
    if z is None:
        return []
    std = None if stated.sites is None else z * stated.c / stated.sites
    settings = f"noise_multiplier={z:g}, clipping_norm={stated.c:g}, num_sampled_clients={_told(stated.sites)}"
    call = f"DifferentialPrivacyServerSideFixedClipping (or ClientSide) with {settings}"
    return [
        Reading("Flower FixedClipping", call, std, "mean of a round", unit, *_rounds(stated, _ratio(moved, z)))
        for unit, moved in ((NONE, 1.0), (ANOTHER, 2.0))
    ]


def _adaptive(stated: Stated) -> list[Reading]:
    """The same with a clip norm that follows a noised count of clipped updates, of standard deviation b = n / 20.

    Flower takes z' = (z^-2 - (2 b)^-2)^-1/2 for the updates, so that both together would cost as z: right for a count
    of bits centred to +-1/2 (Andrew et al. 2021, arXiv 1905.03871, theorem 1). It counts 0 or 1, which moves by 1:

        ratio = sqrt(z'^-2 + b^-2)

    Refused by Flower, and left out, where z >= 2 b.
    """
    z, n = stated.noise_multiplier, stated.sites
    if not z or n is None or z >= n / 10:
        return []
    b = n / 20
    own = (z**-2 - (2 * b) ** -2) ** -0.5
    settings = f"noise_multiplier={z:g}, num_sampled_clients={n}, while its clip norm is {stated.c:g}"
    call = f"DifferentialPrivacyServerSideAdaptiveClipping (or ClientSide) with {settings}"
    both = _rounds(stated, math.sqrt(own**-2 + b**-2))
    return [Reading("Flower AdaptiveClipping", call, own * stated.c / n, "mean of a round", NONE, *both)]


def nvflare(stated: Stated) -> list[Reading]:
    """``SVTPrivacy`` where the number of values is told, and the filters that add no noise."""
    call = "PercentilePrivacy and ExcludeVars: values are cut or left out, no noise is added"
    none = Reading("NVFlare, other filters", call, 0.0, "nothing", NONE, math.inf, math.inf)
    if stated.values is None:
        return [none]
    sent = math.ceil(stated.fraction * stated.values)
    call = f"SVTPrivacy(fraction={stated.fraction:g}, noise_var={stated.noise_var:g}, gamma={stated.gamma:g})"
    call += f": {sent:,} values sent, Laplace noise; for updates within +-gamma only"
    std = math.sqrt(2) * 2 * stated.gamma / stated.noise_var
    both = (laplace_epsilon(stated.noise_var, sent * n, stated.d) for n in (1, stated.rounds))
    return [Reading("NVFlare SVTPrivacy", call, std, "each value sent", ANOTHER, *both), none]


def laplace_epsilon(each: float, values: int, delta: float) -> float:
    """Epsilon of ``values`` numbers that may move by D, each with Laplace noise of scale D / ``each``; an upper bound.

    The smaller of the plain sum, values * each, and the best order a of Renyi differential privacy (Mironov 2017, arXiv
    1702.07476, table II; converted by Canonne, Kamath & Steinke 2020, arXiv 2004.00010, proposition 12):

        R(a) = 1 / (a - 1) ln( a / (2a - 1) e^((a - 1) each) + (a - 1) / (2a - 1) e^(-a each) )
        epsilon = min over a of values R(a) + ln(1 - 1/a) - ln(a delta) / (a - 1)
    """
    order = 1 + np.geomspace(1e-6, 1e6, 4_000)
    up, down = np.log(order / (2 * order - 1)), np.log((order - 1) / (2 * order - 1))
    one = np.logaddexp(up + (order - 1) * each, down - order * each) / (order - 1)
    known = values * one + np.log1p(-1 / order) - np.log(order * delta) / (order - 1)
    return min(values * each, max(float(known.min()), 0.0))


def _ratio(moved: float, std: float) -> float:
    return moved / std if std else math.inf


def _rounds(stated: Stated, mu: float) -> tuple[float, float]:
    return stated.of_gaussian(mu), stated.of_gaussian(mu, stated.rounds)


def _told(sites: int | None) -> str:
    return "n" if sites is None else str(sites)


def peer_warnings(stated: Stated) -> list[str]:
    """What the sources say that a user would not expect."""
    lines = []
    if stated.epsilon is not None:
        lines.append(
            "LocalDpMod protects a site's whole update of one round, once; it keeps no account over rounds, and takes "
            "sensitivity as told."
        )
    if stated.noise_multiplier is not None:
        lines.append(
            "Flower's central strategies add z C / n to a mean. FedAvg weighs by num-examples: a site with a larger "
            "weight than 1 / n moves the mean by more than C / n. If fewer than n answer, the mean moves by more than "
            "the noise is made for (it is logged; with an accountant it is refused)."
        )
        lines.append(
            "Flower's adaptive clipping adds its noise at the clip norm of the *next* round (10 % smaller at the "
            "default rate 0.2 when all were clipped), and counts clipped updates without centring them."
        )
    if stated.values is not None:
        lines.append(
            "SVTPrivacy adds noise first and clips afterwards: outside +-gamma nothing bounds epsilon. noise_var is "
            "the budget of *one* value; choosing which values to send costs more on top."
        )
    lines.append("Both draw noise from numpy's global generator, which is not cryptographic and repeats with its seed.")
    return lines
