"""hetlora: zero-padded, norm-weighted mean of both factors (HetLoRA, Cho et al., EMNLP 2024, arXiv 2401.06432)."""

from __future__ import annotations

import math

import numpy as np

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import SiteShape, names_of, product_pair, rank_of, rescaled, sliced
from llmchain_fl.aggregation.mean import Noise, blend, no_noise
from llmchain_fl.aggregation.measure import product_norm
from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Adapter, Arrays, FactorMean, Rule, SiteFactors, modules
from llmchain_fl.aggregation.stack import check_pairs

Means = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]


class HetLora(Rule):
    """``A = sum_k p_k pad(A_k)``, ``B = sum_k p_k (s_k / s) pad(B_k)``; ``p_k ~ w_k ||s_k B_k A_k||_F``, sum 1.

    ``pad`` fills up to the global rank with zeros; the norm runs over all modules. A site of rank r_k is handed the
    first r_k rows of A and columns of B.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_A and lora_B at its own rank (and the head): r_k (d_out + d_in) per matrix |
    | it is sent | the same |
    | exact in the product | no: as fedit, and directions that few sites have are damped by the zeros of the others |
    | linear in what is sent | no: p_k depends on what the site sends |
    | DP noise | as fedit, and noise makes a norm longer: a noisier site counts more |
    | sites of different rank | yes, up to the global rank |
    | sites of different alpha | yes |

    p_k is in the hands of the site: a longer product counts more. Bound it (``aggregation.max_update_norm``).

    Where we differ: the scale s_k is inside the norm and the mean (the paper has one alpha); w_k is there at all; the
    head is averaged with w_k alone; a direction that no site of the round has stays as it is instead of becoming 0,
    which would kill it for ever; rank self-pruning is :func:`self_pruned_rank`, for the site to call.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | every product is 0 (B starts as 0 and nothing was learnt) | p_k ~ w_k |
    | one product is 0, others are not | that site does not count, except for the head |
    | one site of lower rank | its factors in its directions, the global ones in the others |
    """

    name = "hetlora"
    trained = (LORA_A, LORA_B)
    exact = False
    linear = False
    weighs = True
    any_rank = True

    def handed(self, arrays: Arrays, scale: float, shape: SiteShape) -> Arrays:
        """The first r_k directions."""
        return sliced(rescaled(arrays, scale / shape.scale), shape.rank)

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> _NormWeighted:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return _NormWeighted(global_arrays, scale)


class _NormWeighted:
    """Two running means, one by w_k times the norm, one by w_k alone for the case that all norms are 0."""

    def __init__(self, global_arrays: Arrays, scale: float) -> None:
        self._head = FactorMean(global_arrays, scale, names_of((), global_arrays))
        self._global, self._scale = self._head.finish(), scale
        names = [name for name in self._global if name.endswith((LORA_A, LORA_B))]
        self._by_norm: Means = {name: np.zeros(self._global[name].shape) for name in names}
        self._plain: Means = {name: np.zeros(self._global[name].shape) for name in names}
        self._mass = self._weights = 0.0
        self._rank = 0

    def add(self, site: SiteFactors) -> None:
        rank = check_pairs(site, self._global, self._scale, rank_of(self._global))
        pairs = (product_pair(site.arrays, module, site.scale) for module in modules(self._global))
        mass = site.weight * math.hypot(*(product_norm(*pair) for pair in pairs))
        if not math.isfinite(self._mass + mass):
            raise refuse("weight", "a weight times a norm is not finite", remedy="use weights of a smaller unit")
        self._head.add(site)
        self._rank = max(self._rank, rank)
        self._mass, self._weights = self._mass + mass, self._weights + site.weight
        if mass > 0:
            self._blend(self._by_norm, site, rank, mass / self._mass)
        if self._mass == 0:
            self._blend(self._plain, site, rank, site.weight / self._weights)

    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        arrays = self._head.finish()
        means = self._by_norm if self._mass > 0 else self._plain
        for name, mean in means.items() if self._head.counted else ():
            cut = (slice(self._rank),) if name.endswith(LORA_A) else (slice(None), slice(self._rank))
            arrays[name][cut] = mean[cut].astype(np.float32)
        return arrays

    def _blend(self, means: Means, site: SiteFactors, rank: int, share: float) -> None:
        for name, mean in means.items():
            if name.endswith(LORA_A):
                blend(mean[:rank], site.arrays[name], share)
                mean[rank:] *= 1 - share
            else:
                blend(mean[:, :rank], site.arrays[name], share, site.scale / self._scale)
                mean[:, rank:] *= 1 - share


def self_pruned_rank(before: Arrays, after: Arrays, gamma: float) -> int:
    """The rank a site goes on with: ``floor(gamma r)``, at least 1, if its last directions got shorter, else r.

    Length of the last directions (in the paper also a term of the local loss): the sum over the
    modules of ``||B[:, k:]||_F ||A[k:, :]||_F`` with k = floor(gamma r).

    A rank chosen this way is a function of the site's records that no noise covers: not for use with privacy.

    | case | rank |
    |---|---|
    | gamma = 1, or r = 1 | r |
    | nothing learnt, or as long as before | r |
    """

    def tail(arrays: Arrays, pruned: int) -> float:
        parts = ((arrays[f"{m}.{LORA_B}"][:, pruned:], arrays[f"{m}.{LORA_A}"][pruned:]) for m in modules(arrays))
        return math.fsum(float(np.linalg.norm(b)) * float(np.linalg.norm(a)) for b, a in parts)

    rank = rank_of(after)
    pruned = max(1, math.floor(gamma * rank))
    return pruned if tail(after, pruned) < tail(before, pruned) else rank
