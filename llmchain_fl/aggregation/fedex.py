"""fedex: fedit, and what it loses is kept as a residual (FedEx-LoRA, Singhal et al., ACL 2025, arXiv 2410.09432)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.mean import Noise, no_noise
from llmchain_fl.aggregation.rule import (
    FOLD_A,
    FOLD_B,
    LORA_A,
    LORA_B,
    Adapter,
    Arrays,
    FactorMean,
    FactorSchedule,
    Rule,
    SiteFactors,
    modules,
    sent_names,
)
from llmchain_fl.aggregation.site_pairs import Packings
from llmchain_fl.aggregation.stack import ProductMean, Term, folded, folded_matrix, product

ROUNDING = 2.0**-25
"""Half a unit of float32: a residual that is smaller, relative to the product, is rounding."""


class FedEx(Rule):
    """A and B as in fedit; the fold grows by the residual:

        fold <- fold + sum_k w_k s_k B_k A_k - s B A                  rank (K - 1) r each round, dropped where it is 0

    Exact. The residual is the covariance of the factors (:func:`covariance`): K - 1 blocks of r columns beside each
    other, without a factorisation. Where that would be wider than the matrix, the sum itself is kept.

    How the residual travels: as the fold, cumulated over all rounds, with the pair, to every site asked. A site adds
    it to W0 (or carries it as a second frozen pair) for the round and keeps nothing: any cohort can be asked, a site
    that missed ten rounds is not behind. Its rank grows to min(d_out, d_in) at most, where it is as large as two
    dense matrices: that is the price of exactness over many rounds.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_A and lora_B (and the head): r (d_out + d_in) numbers per matrix |
    | it is sent | the pair and the fold: (r + f)(d_out + d_in), f <= min(d_out, d_in) |
    | exact in the product | yes |
    | linear in what is sent | no: it needs each site's product |
    | DP noise | weak: the products of the noises are kept, exactly |
    | sites of different rank | no: fedit's mean needs one rank |
    | sites of different alpha | yes; such a site starts from ``B s / s_k`` |

    Where we differ: the paper adds each round's dense residual to W0 at server and site; the released code adds its
    transpose for ``nn.Linear``. Ours is d_out x d_in as W0 is. No truncated variant.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | one site, or equal sites, of the global scale | fedit's pair, no fold |
    | more than m = min(d_out, d_in) columns | their sum is kept itself, beside the identity; memory stays bounded |
    """

    name = "fedex"
    trained = (LORA_A, LORA_B)
    exact = True
    linear = False
    unsteady = "moves a part of them into the fold every round"
    folds = True

    def schedule(self, number: int) -> FactorSchedule:
        """The pair up; the pair and the fold down."""
        return FactorSchedule(self.trained, self.trained, (LORA_A, LORA_B, FOLD_A, FOLD_B))

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> _WithResidual:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        mean = FactorMean(global_arrays, scale, sent_names(self, global_arrays, number))
        return _WithResidual(mean, mean.finish(), scale)


class _WithResidual:
    def __init__(self, mean: FactorMean, global_arrays: Arrays, scale: float) -> None:
        self._mean, self._global, self._scale = mean, global_arrays, scale
        self._packings = Packings(global_arrays, scale)
        self._products = ProductMean(self._packings, global_arrays)

    def add(self, site: SiteFactors) -> None:
        packed = self._packings.packed(site)
        self._mean.add(site)
        self._products.add(site, packed)

    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        arrays = self._mean.finish()
        if not self._mean.counted:
            return arrays
        pairs = {n: a for n, a in arrays.items() if not n.endswith((FOLD_A, FOLD_B))}
        result = dict(pairs)
        for module in modules(pairs):
            b, a = pairs[f"{module}.{LORA_B}"], pairs[f"{module}.{LORA_A}"]
            terms = self._products.terms(module)
            if terms is not None:
                result |= folded(self._global, module, covariance(terms, a))
                continue
            of_means = product([(1.0, self._scale, b, a)])
            lost = self._products.matrix(module) - of_means
            if np.linalg.norm(lost) <= ROUNDING * np.linalg.norm(of_means):
                lost = np.zeros_like(lost)
            result |= folded_matrix(self._global, module, lost)
        return result


def covariance(terms: Sequence[Term], mean: NDArray[np.float32]) -> list[Term]:
    """``sum_k w_k (x_k - x_K) (A_k - A)`` with x_k = s_k B_k: K - 1 terms whose sum is what fedit loses.

    ``sum_k w_k x_k (A_k - A) = sum_k w_k x_k A_k - x A``, for the w_k sum to 1 and A is the mean; taking x_K from every
    x_k adds ``- x_K sum_k w_k (A_k - A) = 0``. So one term less, and equal sites leave exact zeros. A is taken as it is
    stored: the rounding of A and B, 2^-24 of the product, is not in the sum.

    | terms | result |
    |---|---|
    | one | none |
    | equal B, or equal A | zeros on that side |
    """
    _, last_scale, last, _ = terms[-1]
    return [(w, s, b - np.float32(last_scale / s) * last, a - mean) for w, s, b, a in terms[:-1]]
