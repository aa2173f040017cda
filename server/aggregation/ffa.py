"""ffa: A frozen, B averaged (FFA-LoRA, Sun et al., ICLR 2024, arXiv 2403.12313)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from server.admission import refuse
from server.aggregation.rule import LORA_A, LORA_B, Arrays, FactorMean, SiteFactors, sent_names


class Ffa:
    """``A = A_0`` everywhere and for ever; ``B = sum_k w_k (s_k / s) B_k``.

    Exact: with one common A, ``s B A = sum_k w_k s_k B_k A``, also where alpha (so s_k) differs by site.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_B (and the head): d_out x r numbers per matrix, half of fedit |
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

    name: ClassVar[str] = "ffa"
    trained: ClassVar[tuple[str, ...]] = (LORA_B,)
    exact: ClassVar[bool] = True

    def start(self, global_arrays: Arrays, scale: float) -> _SharedA:
        """Open a round; see :class:`server.aggregation.rule.Rule`."""
        mean = FactorMean(global_arrays, scale, sent_names(self, global_arrays))
        frozen = {name: array for name, array in global_arrays.items() if name.endswith(LORA_A)}
        return _SharedA(mean, frozen)


class _SharedA:
    """A mean of B that lets in only sites which trained under the global A."""

    def __init__(self, mean: FactorMean, frozen: Arrays) -> None:
        self._mean = mean
        self._frozen = {name: np.array(array, dtype=np.float32) for name, array in frozen.items()}

    def add(self, site: SiteFactors) -> None:
        for name, array in self._frozen.items():
            if name in site.arrays and not np.array_equal(site.arrays[name], array):
                what = f"{name!r} of a site differs from the global one, which this rule keeps frozen"
                raise refuse("foreign-factor", what, remedy="train lora_B only on this site, or choose the rule fedit")
        self._mean.add(site)

    def finish(self) -> dict[str, NDArray[np.float32]]:
        return self._mean.finish()
