"""How far a global product is from the ideal; a measurement, not part of a rule. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import CORE, LORA_B, Arrays, SiteFactors, modules, product_pair

CLEAR = 1e-3
"""Part of ``||left|| ||right||`` above which the square of the product is known to 1e-9."""


def product_norm(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Frobenius norm of ``left @ right`` without forming it.

    left (d_out x R), right (R x d_in). O((d_out + d_in) R^2) in both ways:

    | product | way |
    |---|---|
    | at least CLEAR of the factors' norms | ``tr(left^T left right right^T)``: one product for each factor |
    | shorter (terms that cancel) | left = Q_l R_l, right^T = Q_r R_r: the norm of R_l R_r^T |

    The first squares before it sums, so it cannot see below 1e-8 of the factors; the second sees 1e-15.
    """
    lefts, rights = left.T @ left, right @ right.T
    square = float(np.vdot(lefts, rights))
    if square > CLEAR**2 * float(np.vdot(left, left)) * float(np.vdot(right, right)):
        return math.sqrt(square)
    small_left = np.linalg.qr(left).R
    small_right = np.linalg.qr(right.T).R
    return float(np.linalg.norm(small_left @ small_right.T))


def product_error(sites: Sequence[SiteFactors], result_arrays: Arrays, scale: float) -> float:
    """How far the global product is from the ideal: ``||Delta W' - Delta W||_F / ||Delta W||_F`` over all modules.

    Both norms run over the stacked factors ([B_1 .. B_K, B], [A_1; ..; A_K; A]), so no d_out x d_in matrix is made
    and the sites may differ in rank. Needs all the sites at once. Heads do not count. Has no meaning for a rule whose
    sites keep a factor to themselves (``FactorSchedule.keeps``): there is no common product.

    Args:
        sites: the sites that were added; one without some ``lora_A`` trained under the global A, which is then used.
        result_arrays: what the rule returned.
        scale: s of the global adapter.

    Raises:
        AdmissionError: no site at all, or a site without some ``lora_B`` (or core).

    | case | error |
    |---|---|
    | ideal 0 and global 0 (first round, nothing learnt), or no module | 0.0 |
    | ideal 0, global not | inf |
    """
    if not sites:
        raise refuse("missing-name", "there is no site to compare with", remedy="measure rounds that admitted a site")
    total = math.fsum(site.weight for site in sites)
    error = ideal = 0.0
    for module in modules(result_arrays):
        a_or_core = (f"{module}.{LORA_B}", f"{module}.{CORE}")
        if not all(any(name in site.arrays for name in a_or_core) for site in sites):
            raise refuse("missing-name", f"a site brings no {a_or_core[0]!r}", remedy="pass the sites' full factors")
        pairs = [product_pair(site.arrays, module, site.scale, result_arrays) for site in sites]
        lefts = [left * (site.weight / total) for site, (left, _) in zip(sites, pairs, strict=True)]
        rights = [right for _, right in pairs]
        ideal = math.hypot(ideal, product_norm(np.hstack(lefts), np.vstack(rights)))
        left, right = product_pair(result_arrays, module, scale)
        error = math.hypot(error, product_norm(np.hstack([*lefts, -left]), np.vstack([*rights, right])))
    if ideal == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / ideal
