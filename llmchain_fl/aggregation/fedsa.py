"""fedsa: A is shared, B stays at the site (FedSA-LoRA, Guo et al., ICLR 2025, arXiv 2410.01463)."""

from __future__ import annotations

from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, FactorSchedule, Rule, sent_names


class FedSa(Rule):
    """``A = sum_k w_k A_k``; B_k is trained and kept, so site k's model is ``s_k B_k A``: one model for each site.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | trains both factors, sends lora_A (and the head): r d_in numbers per matrix |
    | it is sent | lora_A; it goes on from its own B_k, which is 0 before its first round |
    | exact in the product | there is no common product: personalisation |
    | linear in what is sent | yes: secure aggregation works |
    | DP noise | half of it leaves the site |
    | sites of different rank | no: the rows of A would not match |
    | sites of different alpha | yes: s_k acts on B_k, which nobody shares |

    The gradient of A depends on B_k. So B_k must be clipped and noised together with A, although it never leaves: a
    B_k trained without noise would carry the records into A past the guarantee.

    The global B stays what it was at the start (0): scores of the global adapter are those of the base model (and
    head). The sites have the scores that count.

    Where we differ: a trained head is shared, like A; weights are public constants.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | a site's B_k is 0 (its first round) | the gradient of A is 0 in the first step, not in the next |
    | a site sends its lora_B along | ignored, not stored |
    """

    name = "fedsa"
    trained = (LORA_A, LORA_B)
    exact = False
    linear = True

    def schedule(self, number: int) -> FactorSchedule:
        """Both trained, A travels, B stays."""
        return FactorSchedule(trains=(LORA_A, LORA_B), up=(LORA_A,), down=(LORA_A,))

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return FactorMean(global_arrays, scale, sent_names(self, global_arrays, number))
