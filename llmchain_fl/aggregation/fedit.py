"""fedit: both factors averaged, each by itself (FedIT, Zhang et al., ICASSP 2024, arXiv 2305.05644)."""

from __future__ import annotations

import copy

from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, Rule, sent_names
from llmchain_fl.core.adapter.variants import Variant


class FedIt(Rule):
    """``A = sum_k w_k A_k`` and ``B = sum_k w_k (s_k / s) B_k``.

    Not exact: a product of means is not the mean of the products. What is lost is the covariance of the factors,

        sum_k w_k s_k B_k A_k  -  s B A  =  s sum_k w_k ((s_k / s) B_k - B)(A_k - A)

    small while the sites stay near each other (a few per cent of the product at small drift, more than half of it
    for independent factors). :func:`llmchain_fl.aggregation.measure.product_error` measures it round by round.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_A and lora_B (and the head): r (d_out + d_in) numbers per matrix |
    | it is sent | the same |
    | exact in the product | no, see above; yes when all sites hold the same A or the same (s_k / s) B |
    | linear in what is sent | yes, factor by factor: secure aggregation works, its error stays unseen |
    | DP noise | poor: the product has a noise x noise term |
    | sites of different rank | no |
    | sites of different alpha | yes; such a site starts from ``B s / s_k`` |

    Where we differ: FedAvg weights by the number of records, which is private; here weights are public constants.
    The factor s_k / s for sites of another alpha is ours.

    Variants without a product (``core/adapter/variants``) are averaged the same way, array by array; where a variant
    is linear that is exact, for the mean of the arrays is then the mean of the models.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | one site, or equal sites | their product |
    """

    name = "fedit"
    trained: tuple[str, ...] = (LORA_A, LORA_B)
    exact = False
    linear = True
    any_variant = True

    def of(self, variant: Variant) -> FedIt:
        """The same mean over the arrays of a variant without a product."""
        if variant.product:
            return self
        bound = copy.copy(self)
        bound.trained, bound.exact, bound.factors = variant.trained, variant.linear, False
        return bound

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return FactorMean(global_arrays, scale, sent_names(self, global_arrays, number))
