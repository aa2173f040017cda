"""Whole pairs of factors as sites bring them: looked at, and copied into one vector. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import LORA_A, LORA_B, Arrays, SiteFactors, modules
from llmchain_fl.aggregation.mean import fits, short
from llmchain_fl.aggregation.packed import Packing, Vector

_LARGEST = float(np.finfo(np.float32).max)


def rank_of_site(site: SiteFactors, global_arrays: Arrays, largest: int | None = None) -> int:
    """The rank of a site that brings a whole pair for each module; it may differ from the global one.

    Raises:
        AdmissionError: a factor is missing, or the pair does not fit the module or has a rank above ``largest``.
    """
    ranks = set()
    for module in modules(global_arrays):
        names = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
        missing = [name for name in names if name not in site.arrays]
        if missing:
            raise refuse("missing-name", f"a site brings no {missing[0]!r}", remedy="ask the sites for both factors")
        a, b = (site.arrays[name] for name in names)
        ranks.add(b.shape[-1] if b.ndim else 0)
        rank = max(ranks)
        wanted = (rank, global_arrays[names[0]].shape[1]), (global_arrays[names[1]].shape[0], rank)
        if (a.shape, b.shape) != wanted or not 1 <= rank <= (largest or rank) or len(ranks) > 1:
            message = f"the factors of {module!r} have the shapes {a.shape} and {b.shape}; {wanted} would fit"
            raise refuse("wrong-shape", message, remedy="give the site one rank, at most that of the global adapter")
    return max(ranks, default=0)


def check_products(site: SiteFactors, names: Sequence[str], scale: float) -> None:
    """Refuse a site whose products do not fit float32.

    Raises:
        AdmissionError: see above.
    """
    ratio = site.scale / scale
    for module in names:
        a, b = site.arrays[f"{module}.{LORA_A}"], site.arrays[f"{module}.{LORA_B}"]
        if not (fits(a) and fits(b, ratio) and _length(a) * _length(b) * ratio <= _LARGEST):
            raise refuse("not-finite", f"the product of {module!r} does not fit float32", remedy="lower its lr")


def _length(array: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))


class PackedSite(NamedTuple):
    """What one site brought, copied: its rank, and its pairs as ``Packings.of(rank)`` lays them."""

    rank: int
    vector: Vector


class Packings:
    """How the pairs of a site lie in one vector, for sites of any rank: every lora_B first."""

    def __init__(self, global_arrays: Arrays, scale: float, largest: int | None = None) -> None:
        self._global, self._scale, self._largest = global_arrays, scale, largest
        self.modules = modules(global_arrays)
        self._of_rank: dict[int, Packing] = {}

    def of(self, rank: int) -> Packing:
        """The packing of this rank."""
        if rank not in self._of_rank:
            lefts = {f"{m}.{LORA_B}": (self._global[f"{m}.{LORA_B}"].shape[0], rank) for m in self.modules}
            rights = {f"{m}.{LORA_A}": (rank, self._global[f"{m}.{LORA_A}"].shape[1]) for m in self.modules}
            self._of_rank[rank] = Packing(lefts | rights)
        return self._of_rank[rank]

    def packed(self, site: SiteFactors) -> PackedSite:
        """The pairs of a site, copied.

        Raises:
            AdmissionError: its pairs are not whole, of one rank and such that their products fit float32.
        """
        rank = rank_of_site(site, self._global, self._largest)
        packing = self.of(rank)
        vector = np.empty(packing.size, dtype=np.float32)
        packing.fill(vector, site.arrays)
        if not short(vector, site.scale / self._scale):
            check_products(site, self.modules, self._scale)
        return PackedSite(rank, vector)
