"""fedsvd: train B, then turn the pair so that A is orthonormal (FedSVD, Lee et al., NeurIPS 2025, arXiv 2505.12805)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmchain_fl.aggregation.factors import check_thin
from llmchain_fl.aggregation.pairs import best_pair
from llmchain_fl.aggregation.rule import (
    LORA_A,
    LORA_B,
    Adapter,
    Arrays,
    FactorMean,
    FactorSchedule,
    Noise,
    Rule,
    SiteFactors,
    SiteShape,
    modules,
    sent_names,
)


class FedSvd(Rule):
    """``B' = sum_k w_k (s_k / s) B_k`` under the common A; then ``B' A = U S V^T`` gives ``A <- V^T``, ``B <- U S``.

    Exact: the mean is that of ffa, and ``(U S) V^T = B' A``. An orthonormal A bounds the gradient of B by that of W,
    so a clip norm keeps more of it: the best published rule under DP-SGD.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_B (and the head): d_out x r numbers per matrix |
    | it is sent | both factors, r (d_out + d_in): A is new in every round |
    | exact in the product | yes |
    | linear in what is sent | yes: the SVD acts on the sum, after it |
    | DP noise | enters once, through B; the SVD is post-processing |
    | sites of different rank | no |
    | sites of different alpha | yes |

    V^T spans the rows of the old A: the SVD turns and orthonormalises A, it never leaves the space of A_0. The
    factors change coordinates in every round (not ``steady``): no mean over rounds factor by factor, no optimizer.

    Where we differ: the paper may turn every few rounds; here every round that admitted a site.

    | case | outcome |
    |---|---|
    | no site | the global adapter, not turned |
    | B' = 0 (nothing learnt yet), or of lower rank | A is an orthonormal basis of the same rows; no direction dies |
    | rank above min(d_out, d_in) | ModelError at start |
    | a site sends a lora_A that differs | AdmissionError foreign-factor |
    """

    name = "fedsvd"
    trained = (LORA_B,)
    exact = True
    linear = True
    unsteady = "re-factorises them every round"

    def schedule(self, number: int) -> FactorSchedule:
        """B up, both down."""
        return FactorSchedule(trains=(LORA_B,), up=(LORA_B,), down=(LORA_A, LORA_B))

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """One rank, and not above min(d_out, d_in)."""
        super().check(arrays, sites)
        check_thin(arrays, self.name)

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> _Turned:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return _Turned(FactorMean(global_arrays, scale, sent_names(self, global_arrays, number), frozen=(LORA_A,)))


class _Turned:
    def __init__(self, mean: FactorMean) -> None:
        self._mean = mean

    def add(self, site: SiteFactors) -> None:
        self._mean.add(site)

    def finish(self, noise: Noise | None = None) -> Adapter:
        arrays = self._mean.finish(noise)
        for module in modules(arrays) if self._mean.counted else ():
            b, a = f"{module}.{LORA_B}", f"{module}.{LORA_A}"
            left, right = best_pair(
                arrays[b].astype(np.float64), arrays[a].astype(np.float64), arrays[a].shape[0], arrays[a]
            )
            arrays[b], arrays[a] = left.astype(np.float32), right.astype(np.float32)
        return arrays
