"""flexlora: the summed product, cut to each site's rank (FlexLoRA, Bai et al., NeurIPS 2024, arXiv 2402.11505)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmchain_fl.aggregation.factors import SiteShape, check_thin, rank_of, rescaled, sliced
from llmchain_fl.aggregation.mean import Noise, no_noise
from llmchain_fl.aggregation.pairs import best_pair, best_pair_of
from llmchain_fl.aggregation.rule import (
    LORA_A,
    LORA_B,
    Adapter,
    Arrays,
    Rule,
    modules,
)
from llmchain_fl.aggregation.stack import ProductRound, pair_of


class FlexLora(Rule):
    """``sum_k w_k s_k B_k A_k = U S V^T``; the global pair is ``B = U_r S_r / s``, ``A = V_r^T``, r the global rank.

    A site of rank r_k is handed the first r_k directions, the best approximation of that rank. The sum is a stack of
    factors; their Gram matrices and the r leading eigenvectors of a small one (:mod:`.pairs`), O((d_out + d_in) n^2 +
    n^3) with n = min(sum_k r_k, m), m = min(d_out, d_in).

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_A and lora_B at its own rank (and the head): r_k (d_out + d_in) per matrix |
    | it is sent | the same |
    | exact in the product | no: the best rank-r approximation of the ideal; yes when the ideal has rank <= r |
    | linear in what is sent | no: it needs each site's product |
    | DP noise | biased: the largest directions of a noisy sum are chosen because of their noise too |
    | sites of different rank | yes, up to the global rank |
    | sites of different alpha | yes |

    The factors change coordinates in every round (not ``steady``).

    Where we differ: all of r_k directions are kept (a released catalogue keeps half of them), and weights are public
    constants. A is orthonormal and B carries S, as in the paper's U S | V^T split.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | nothing learnt (the sum is 0), or fewer directions than r | B has zeros there, A orthonormal rows: none dies |
    | rank above min(d_out, d_in) | ModelError at start |
    | the global pair is not in the order of its singular values (an earlier adapter) | a lower rank gets its SVD |
    """

    name = "flexlora"
    trained = (LORA_A, LORA_B)
    exact = False
    linear = False
    unsteady = "re-factorises them every round"
    any_rank = True

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """No rank above the global one, and that not above min(d_out, d_in)."""
        super().check(arrays, sites)
        check_thin(arrays, self.name)

    def handed(self, arrays: Arrays, scale: float, shape: SiteShape) -> Arrays:
        """The best rank-r_k approximation of the global pair; the first rows of A while B = 0."""
        arrays = rescaled(arrays, scale / shape.scale)
        cut = sliced(arrays, shape.rank)
        for module in modules(arrays) if shape.rank < rank_of(arrays) else ():
            a, b = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
            if arrays[b].any():
                pair = arrays[b].astype(np.float64), arrays[a].astype(np.float64)
                left, right = best_pair(*pair, shape.rank, arrays[a])
                cut[b], cut[a] = left.astype(np.float32), right.astype(np.float32)
        return cut

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> _Truncated:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return _Truncated(global_arrays, scale)


class _Truncated(ProductRound):
    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        arrays = self._head.finish()
        for module in modules(arrays) if self._head.counted else ():
            a, b = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
            terms, rank = self._products.terms(module), arrays[a].shape[0]
            if terms is None:
                left, right = best_pair_of(self._products.matrix(module), rank, arrays[a])
            else:
                left, right = best_pair(*pair_of(terms), rank, arrays[a])
            arrays[b], arrays[a] = (left / self._scale).astype(np.float32), right.astype(np.float32)
        return arrays
