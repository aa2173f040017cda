"""hetlora: zero-padded, norm-weighted mean of both factors (HetLoRA, Cho et al., EMNLP 2024, arXiv 2401.06432)."""

from __future__ import annotations

import math

import numpy as np

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import SiteShape, names_of, rank_of, rescaled, sliced
from llmchain_fl.aggregation.mean import Noise, no_noise
from llmchain_fl.aggregation.measure import product_norm
from llmchain_fl.aggregation.packed import RunningMean
from llmchain_fl.aggregation.rule import LORA_A, LORA_B, Adapter, Arrays, FactorMean, Rule, SiteFactors, modules
from llmchain_fl.aggregation.site_pairs import PackedSite, Packings


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
        self._packings = Packings(self._global, scale, rank_of(self._global))
        self._whole = self._packings.of(rank_of(self._global))
        lefts = sum(array.size for name, array in self._global.items() if name.endswith(LORA_B))
        self._by_norm, self._plain = (RunningMean(self._whole.size, lefts) for _ in range(2))
        self._mass, self._rank = 0.0, 0

    def add(self, site: SiteFactors) -> None:
        packed = self._packings.packed(site)
        mass = site.weight * site.scale * self._length(packed)
        if not math.isfinite(self._mass + mass):
            raise refuse("weight", "a weight times a norm is not finite", remedy="use weights of a smaller unit")
        self._head.add(site)
        self._rank, self._mass = max(self._rank, packed.rank), self._mass + mass
        if mass > 0:
            self._count(self._by_norm, mass, site, packed)
        elif self._mass == 0:
            self._count(self._plain, site.weight, site, packed)

    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        arrays = self._head.finish()
        mean = (self._by_norm if self._mass > 0 else self._plain).value().astype(np.float32)
        for name in self._whole.shapes if self._head.counted else ():
            cut = (slice(self._rank),) if name.endswith(LORA_A) else (slice(None), slice(self._rank))
            arrays[name][cut] = self._whole.view(mean, name)[cut]
        return arrays

    def _length(self, packed: PackedSite) -> float:
        """``||B_k A_k||`` over all modules."""
        packing, wide = self._packings.of(packed.rank), packed.vector.astype(np.float64)
        pairs = [
            (packing.view(wide, f"{m}.{LORA_B}"), packing.view(wide, f"{m}.{LORA_A}")) for m in modules(self._global)
        ]
        return math.hypot(*(product_norm(*pair) for pair in pairs))

    def _count(self, mean: RunningMean, weight: float, site: SiteFactors, packed: PackedSite) -> None:
        """With zeros up to the global rank."""
        row, packing = mean.row, self._packings.of(packed.rank)
        if packing is self._whole:
            row[...] = packed.vector
        else:
            row[...] = 0.0
            for name in packing.shapes:
                cut = (slice(packed.rank),) if name.endswith(LORA_A) else (slice(None), slice(packed.rank))
                self._whole.view(row, name)[cut] = packing.view(packed.vector, name)
        mean.count(weight, site.scale / self._scale)


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
