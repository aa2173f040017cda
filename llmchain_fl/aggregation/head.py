"""head-only: the adapter stays as it is, the trained head alone is averaged (Alain & Bengio 2016, arXiv 1610.01644)."""

from __future__ import annotations

from collections.abc import Mapping

from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, Rule, SiteShape, sent_names
from llmchain_fl.core.errors import ModelError


class Head(Rule):
    """``W = sum_k w_k W_k`` for the head; A and B are those of the start, everywhere and for ever.

    Of a fresh adapter (B = 0) that is a linear classifier on frozen features. The features of a record never change, so
    a site computes them once: many cheap rounds, few trained numbers, little noise.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | head.weight, head.bias |
    | it is sent | the head; and the factors where they are not those of the seed (``adapter.start``) |
    | exact in the product | yes: nothing of it moves |
    | linear in what is sent | yes: the sum of secure aggregation is all it needs |
    | DP noise | enters once, through the head |
    | sites of different rank | no |
    | sites of different alpha | yes: the product is that of the start |

    Where we differ: the paper probes each layer of a network once; here the last one's vectors carry the classifier
    that is used, and every site may train it.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | no trained head | ModelError before round 1: nothing would be trained |
    | a site sends a factor that differs in one bit or in shape | AdmissionError foreign-factor |
    """

    name = "head-only"
    trained = ()
    exact = True
    linear = True

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """Refuse sites of other ranks, and an adapter without a head.

        Raises:
            ModelError: see above.
        """
        super().check(arrays, sites)
        if not any(name.startswith("head.") for name in arrays):
            raise ModelError(
                'rule "head-only" trains nothing else, and there is none', remedy='set task.head = "trained"'
            )

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return FactorMean(global_arrays, scale, sent_names(self, global_arrays, number), frozen=(LORA_A, LORA_B))
