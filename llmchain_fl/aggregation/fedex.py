"""fedex: fedit, and what it loses is kept as a residual (FedEx-LoRA, Singhal et al., ACL 2025, arXiv 2410.09432)."""

from __future__ import annotations

import numpy as np

from llmchain_fl.aggregation.factors import product_pair
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
from llmchain_fl.aggregation.stack import ProductMean, check_pairs, folded


class FedEx(Rule):
    """A and B as in fedit; the fold grows by the residual:

        fold <- fold + sum_k w_k s_k B_k A_k - s B A                  rank <= K r + r each round, dropped where it is 0

    Exact. The residual is a pair of factors (the stack of the sites' factors and -B, A), reduced by QR and a small
    SVD to its true rank, never a d_out x d_in matrix. It is taken against B and A as they are stored (float32), so it
    mends their rounding too.

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
    | more than m = min(d_out, d_in) directions | their sum is kept itself; memory stays bounded |
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
        self._products = ProductMean(global_arrays)

    def add(self, site: SiteFactors) -> None:
        check_pairs(site, self._global, self._scale)
        self._mean.add(site)
        self._products.add(site)

    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        arrays = self._mean.finish()
        if not self._mean.counted:
            return arrays
        pairs = {n: a for n, a in arrays.items() if not n.endswith((FOLD_A, FOLD_B))}
        result = dict(pairs)
        for module in modules(pairs):
            left, right = self._products.pair(module)
            mean_left, mean_right = product_pair(pairs, module, self._scale)
            left, right = np.hstack([left, -mean_left]), np.vstack([right, mean_right])
            result |= folded(self._global, module, left, right)
        return result
