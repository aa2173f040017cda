"""rolora: B in odd rounds, A in even rounds (RoLoRA, Chen et al., NeurIPS 2025, arXiv 2502.01755; 2409.02346)."""

from __future__ import annotations

from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, FactorSchedule, Rule, sent_names


class RoLora(Rule):
    """Odd: ``B = sum_k w_k (s_k / s) B_k`` under the common A. Even: ``A = sum_k w_k A_k`` under the common B.

    Exact in each round, since one factor is common: odd, ``s B A = sum_k w_k s_k B_k A``; even, site k holds
    ``B s / s_k``, so ``s B A = sum_k w_k s_k (B s / s_k) A_k``. Both factors learn, unlike in ffa.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | odd: lora_B, d_out x r; even: lora_A, r x d_in (and the head in both) |
    | it is sent | both factors: a site keeps nothing, so any cohort can be asked |
    | exact in the product | yes, in every round |
    | linear in what is sent | yes: the sum of secure aggregation is all it needs |
    | DP noise | enters one factor in a round; no product of noises within a round |
    | sites of different rank | no |
    | sites of different alpha | yes |

    Where we differ: the paper sends down half, the factor that changed last, which a site that missed a round would
    lack. Round 1 must train B: B starts as 0, and with B = 0 the gradient of A is 0.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | a number below 1 | by its parity, as any other |
    | an odd round fails and is tried again under its own number | trains B again |
    | a site sends the factor that is frozen in this round, changed in one bit | AdmissionError foreign-factor |
    """

    name = "rolora"
    trained = (LORA_A, LORA_B)
    exact = True
    linear = True

    def schedule(self, number: int) -> FactorSchedule:
        """One factor; see the class."""
        moving = (LORA_B,) if number % 2 else (LORA_A,)
        return FactorSchedule(trains=moving, up=moving, down=(LORA_A, LORA_B))

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        frozen = (LORA_A,) if number % 2 else (LORA_B,)
        return FactorMean(global_arrays, scale, sent_names(self, global_arrays, number), frozen)
