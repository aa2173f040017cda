"""ffa: A frozen, B averaged (FFA-LoRA, Sun et al., ICLR 2024, arXiv 2403.12313)."""

from __future__ import annotations

from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, Rule, sent_names


class Ffa(Rule):
    """``A = A_0`` everywhere and for ever; ``B = sum_k w_k (s_k / s) B_k``.

    Exact: with one common A, ``s B A = sum_k w_k s_k B_k A``, also where alpha (so s_k) differs by site.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_B (and the head): d_out x r numbers per matrix, half of fedit |
    | it is sent | lora_B; A_0 follows from the seed |
    | exact in the product | yes |
    | linear in what is sent | yes: the sum of secure aggregation is all it needs |
    | DP noise | enters once, through B; no product of noises |
    | sites of different rank | no |
    | sites of different alpha | yes |

    A site of another alpha must start the round from ``B s / s_k``, so that it trains on the global product; then
    "nothing learnt" leaves the global adapter as it is.

    Where we differ: weights are public constants, never numbers of records; alpha may differ by site; a head, where
    one is trained, is averaged plainly.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | a site sends no lora_A | fine, the global A is meant |
    | a site sends a lora_A that differs in one bit or in shape | AdmissionError foreign-factor |
    """

    name = "ffa"
    trained = (LORA_B,)
    exact = True
    linear = True

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return FactorMean(global_arrays, scale, sent_names(self, global_arrays, number), frozen=(LORA_A,))
