"""What an aggregation rule is, and the values that all rules share. Numpy only.

One adapted matrix is W0 (d_out x d_in). Site k holds B_k (d_out x r), A_k (r x d_in), the scale s_k = alpha_k / r
and a public weight w_k; the rule divides the weights by their sum over the sites it was given. The ideal is

    Delta W = sum_k w_k s_k B_k A_k                                          (ideal)

A rule returns one pair (B, A), to be read with the server's own scale s, and is *exact* when s B A is the ideal to
1e-6 relative. Heads (``head.weight``, ``head.bias``) have no factors and are averaged plainly by every rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.errors import ModelError
from server.admission import refuse

Arrays = Mapping[str, NDArray[np.floating]]
HEAD = ("head.weight", "head.bias")
LORA_A, LORA_B = "lora_A", "lora_B"


@dataclass(frozen=True)
class SiteFactors:
    """One admitted site after local training.

    Args:
        arrays: full factors (global + delta), ``<module>.lora_A`` (r x d_in), ``<module>.lora_B`` (d_out x r), and
            the head where one is trained. A factor that the rule keeps frozen may be left out.
        scale: s_k = alpha_k / r_k, no unit.
        weight: a public constant, never the number of this site's records; any positive unit.

    Raises:
        AdmissionError: ``weight`` or ``scale`` is zero, negative or not finite.
    """

    arrays: Arrays
    scale: float
    weight: float

    def __post_init__(self) -> None:
        for reason, value in (("weight", self.weight), ("scale", self.scale)):
            if not (math.isfinite(value) and value > 0):
                what = f"a site's {reason} is {value}; it must be finite and above 0"
                raise refuse(reason, what, remedy="leave the site out of the round, or correct the run's configuration")


class Accumulator(Protocol):
    """The sum of one round while it is being made."""

    def add(self, site: SiteFactors) -> None:
        """Count one site in, or raise AdmissionError and count nothing of it."""

    def finish(self) -> dict[str, NDArray[np.float32]]:
        """The new global arrays, float32, owned by the caller; the old ones when no site was added."""


class Rule(Protocol):
    """How the factors of many sites become one adapter."""

    name: ClassVar[str]
    trained: ClassVar[tuple[str, ...]]
    """Which factors a site trains and sends; heads are always trained."""
    exact: ClassVar[bool]

    def start(self, global_arrays: Arrays, scale: float) -> Accumulator:
        """Open a round on the global arrays, whose scale is s = alpha / r.

        Raises:
            ModelError: the global arrays are not an adapter.
        """


def modules(names: Iterable[str]) -> list[str]:
    """Module paths that have a ``lora_B``, in the order given."""
    return [name.removesuffix(f".{LORA_B}") for name in names if name.endswith(f".{LORA_B}")]


def sent_names(rule: Rule, names: Iterable[str]) -> list[str]:
    """The names among ``names`` that a site trains and sends under ``rule``, in the order given."""
    return [name for name in names if name in HEAD or name.rpartition(".")[2] in rule.trained]


class FactorMean:
    """Streaming weighted mean of some arrays of an adapter; every ``lora_B`` is first scaled by s_k / s.

    ``mean <- mean + (w_k / W)(x_k - mean)`` with W the weights so far (West 1979): float64, memory of one adapter
    whatever the number of sites, and a single site or equal sites give their own arrays bit for bit. The order of the
    sites shows in the last digits of float64 only.

    | sites | result |
    |---|---|
    | none | the global arrays |
    | one with scale s | its arrays |
    | one refused among others | as if it had not been there |

    Args:
        global_arrays: the adapter of the last round; arrays not in ``names`` come back as they are.
        scale: s of the global adapter.
        names: the arrays to average.

    Raises:
        ModelError: names, shapes or scale that make no adapter.
    """

    def __init__(self, global_arrays: Arrays, scale: float, names: Sequence[str]) -> None:
        _check_adapter(global_arrays, scale)
        self._global = {name: np.array(array, dtype=np.float32) for name, array in global_arrays.items()}
        self._scale = scale
        self._mean = {name: np.zeros(self._global[name].shape) for name in names}
        self._total = 0.0

    def add(self, site: SiteFactors) -> None:
        """Count one site in.

        Raises:
            AdmissionError: an array is missing, has another shape, or does not fit float32; nothing was counted.
        """
        total = self._total + site.weight
        if not math.isfinite(total):
            raise refuse("weight", "the sum of the weights is not finite", remedy="use weights of a smaller unit")
        taken = {name: self._take(site, name) for name in self._mean}
        for name, array in taken.items():
            self._mean[name] += (site.weight / total) * (array - self._mean[name])
        self._total = total

    def finish(self) -> dict[str, NDArray[np.float32]]:
        """The global arrays with the averaged ones put in, float32."""
        result = {name: array.copy() for name, array in self._global.items()}
        if self._total > 0:
            result |= {name: mean.astype(np.float32) for name, mean in self._mean.items()}
        return result

    def _take(self, site: SiteFactors, name: str) -> NDArray[np.float64]:
        array = site.arrays.get(name)
        if array is None:
            raise refuse("missing-name", f"a site brings no {name!r}", remedy="ask the sites for what the rule trains")
        if array.shape != self._mean[name].shape:
            what = f"{name!r} has shape {array.shape}; the global one has {self._mean[name].shape}"
            raise refuse("wrong-shape", what, remedy="give all sites the global rank; this rule does not mix ranks")
        scaled = array.astype(np.float64) * (site.scale / self._scale if name.endswith(LORA_B) else 1.0)
        if not (np.abs(scaled) <= np.finfo(np.float32).max).all():
            raise refuse("not-finite", f"{name!r} does not fit float32", remedy="lower the site's learning rate")
        return scaled


def product_norm(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Frobenius norm of ``left @ right`` without forming it.

    left (d_out x R), right (R x d_in): with left = Q_l R_l and right^T = Q_r R_r, the norm is that of the small
    R_l R_r^T. O((d_out + d_in) R^2). The Gram form tr(left^T left right right^T) costs the same but squares first:
    it cannot see an error below 1e-8 of the factors; this one sees 1e-15.
    """
    small_left = np.linalg.qr(left).R
    small_right = np.linalg.qr(right.T).R
    return float(np.linalg.norm(small_left @ small_right.T))


def product_error(sites: Sequence[SiteFactors], result_arrays: Arrays, scale: float) -> float:
    """How far the global product is from the ideal: ``||s B A - Delta W||_F / ||Delta W||_F`` over all modules.

    Both norms run over the stacked factors ([B_1 .. B_K, B], [A_1; ..; A_K; A]), so no d_out x d_in matrix is made
    and the sites may differ in rank. Needs all the sites at once: a measurement, not part of a rule. Heads do not
    count.

    Args:
        sites: the sites that were added; one without some ``lora_A`` trained under the global A, which is then used.
        result_arrays: what the rule returned.
        scale: s of the global adapter.

    Raises:
        AdmissionError: no site at all, or a site without some ``lora_B``.

    | case | error |
    |---|---|
    | ideal 0 and global 0 (first round, nothing learnt), or no module | 0.0 |
    | ideal 0, global not | inf |
    """
    if not sites:
        raise refuse("missing-name", "there is no site to compare with", remedy="measure rounds that admitted a site")
    total = math.fsum(site.weight for site in sites)
    error = ideal = 0.0
    for module in modules(result_arrays):
        a, b = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
        if any(b not in site.arrays for site in sites):
            raise refuse("missing-name", f"a site brings no {b!r}", remedy="pass the sites' full factors")
        lefts = [site.arrays[b].astype(np.float64) * (site.weight / total * site.scale) for site in sites]
        rights = [site.arrays.get(a, result_arrays[a]).astype(np.float64) for site in sites]
        ideal = math.hypot(ideal, product_norm(np.hstack(lefts), np.vstack(rights)))
        lefts.append(result_arrays[b].astype(np.float64) * -scale)
        rights.append(result_arrays[a].astype(np.float64))
        error = math.hypot(error, product_norm(np.hstack(lefts), np.vstack(rights)))
    if ideal == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / ideal


def _check_adapter(arrays: Arrays, scale: float) -> None:
    """Refuse global arrays that are not pairs of factors plus a head."""
    remedy = "start from the arrays of an adapter: <module>.lora_A (r x d_in), <module>.lora_B (d_out x r), head.*"
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"the scale alpha/r of the global adapter is {scale}; it must be above 0", remedy=remedy)
    pairs = {f"{module}.{LORA_A}": f"{module}.{LORA_B}" for module in modules(arrays)}
    odd = set(arrays) ^ (set(pairs) | set(pairs.values()) | (set(arrays) & set(HEAD)))
    if odd:
        raise ModelError(f"{min(odd)!r} is not part of a pair of factors or of a head", remedy=remedy)
    for a, b in pairs.items():
        shapes = arrays[a].shape, arrays[b].shape
        if not (len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][0] == shapes[1][1]):
            raise ModelError(f"{a!r} and {b!r} have shapes {shapes[0]} and {shapes[1]}", remedy=remedy)
