"""The streaming mean behind every linear rule. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import Adapter, Arrays, SiteFactors, check_adapter, rescaled, scaled_names
from llmchain_fl.aggregation.packed import Packing, RunningMean
from llmchain_fl.core.errors import AdmissionError, ModelError

_LARGEST = float(np.finfo(np.float32).max)

Noise = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]
"""Name and mean of one array -> the same with noise on it: central DP."""


def fits(array: NDArray[np.floating], ratio: float = 1.0) -> bool:
    """Whether ``ratio array`` is finite and within float32; makes no temporary array."""
    if not array.size:
        return True
    return max(-float(array.min()), float(array.max())) * ratio <= _LARGEST  # NaN is in both, and not <= anything


def short(vector: NDArray[np.float32], ratio: float = 1.0) -> bool:
    """Whether the vector, and ``ratio`` times it, are so short that every number, and every product of two of them,
    fits float32: one pass. False where that is not sure: ``fits`` looks at each number then.

    ``n = x . x`` in float32 is NaN or infinite where a number is, and else ``|x_i x_j| <= n``.

    | vector | short |
    |---|---|
    | empty | if the ratio is |
    | NaN or infinity in it, or as the ratio | no |
    | longer than 1e19 | no |
    """
    with np.errstate(all="ignore"):
        square = float(np.dot(vector, vector))
    return 2.0 * max(square, 1.0) * max(ratio, 1.0) <= _LARGEST  # NaN is not <= anything


def no_noise(noise: Noise | None) -> None:
    """Refuse central noise where the result is more than a function of one sum.

    Raises:
        ModelError: there is noise.
    """
    if noise is not None:
        message = "noise on the sum protects nobody here: the result depends on the sites in other ways too"
        raise ModelError(message, remedy="choose a linear rule, or let the sites add the noise")


class FactorMean:
    """Streaming weighted mean of some arrays of an adapter; every ``lora_B`` (or core) is first scaled by s_k / s.

    ``sum_k w_k x_k / sum_k w_k`` in float64 (:class:`.packed.RunningMean`), in the memory of a few adapters whatever
    the number of sites; a single site or equal sites of scale s give their own arrays bit for bit.

    | sites | result |
    |---|---|
    | none | the global arrays |
    | one with scale s | its arrays |
    | one refused among others | as if it had not been there |
    | one that brings a frozen factor, equal to what it was handed | fine |
    | one that brings a frozen factor that differs in one bit or in shape | AdmissionError foreign-factor |

    Args:
        global_arrays: the adapter of the last round; arrays not in ``names`` come back as they are.
        scale: s of the global adapter.
        names: the arrays to average.
        frozen: endings of the factors that no site may have changed in this round.

    Raises:
        ModelError: names, shapes or scale that make no adapter.
    """

    def __init__(self, global_arrays: Arrays, scale: float, names: Sequence[str], frozen: tuple[str, ...] = ()) -> None:
        check_adapter(global_arrays, scale)
        self._global = {name: np.array(array, dtype=np.float32) for name, array in global_arrays.items()}
        self._scale, self._names = scale, list(names)
        self._frozen = [name for name in self._global if name.rpartition(".")[2] in frozen]
        self._scaled = scaled_names(self._global)
        ordered = sorted(names, key=lambda name: name not in self._scaled)
        self._packing = Packing({name: self._global[name].shape for name in ordered})
        self._mean = RunningMean(self._packing.size, sum(self._global[n].size for n in names if n in self._scaled))
        self._total = 0.0

    @property
    def counted(self) -> bool:
        """Whether any site was added."""
        return self._total > 0

    def add(self, site: SiteFactors) -> None:
        """Count one site in.

        Raises:
            AdmissionError: an array is missing, has another shape, does not fit float32, or is a frozen one that
                differs; nothing was counted.
        """
        total, ratio = self._total + site.weight, site.scale / self._scale
        if not math.isfinite(total):
            raise refuse("weight", "the sum of the weights is not finite", remedy="use weights of a smaller unit")
        self._check_frozen(site)
        for name, shape in self._packing.shapes.items():
            array = site.arrays.get(name)
            if array is None or array.shape != shape:
                raise _odd(name, array, shape)
        row = self._mean.row
        self._packing.fill(row, site.arrays)
        if not short(row, ratio):
            self._check_numbers(site, ratio)
        self._mean.count(site.weight, ratio)
        self._total = total

    def finish(self, noise: Noise | None = None) -> Adapter:
        """The global arrays with the averaged ones put in, float32; ``noise`` acts on each averaged array."""
        means: Adapter = {}
        if self.counted:
            vector = self._mean.value().astype(np.float32)
            means = {name: self._packing.view(vector, name) for name in self._names}
            means = means if noise is None else {name: noise(name, mean) for name, mean in means.items()}
        return {name: means[name] if name in means else array.copy() for name, array in self._global.items()}

    def _check_numbers(self, site: SiteFactors, ratio: float) -> None:
        for name in self._names:
            if not fits(site.arrays[name], ratio if name in self._scaled else 1.0):
                raise refuse("not-finite", f"{name!r} does not fit float32", remedy="lower the site's learning rate")

    def _check_frozen(self, site: SiteFactors) -> None:
        brought = [name for name in self._frozen if name in site.arrays]
        handed = rescaled(self._global, self._scale / site.scale) if brought else {}
        for name in brought:
            if not np.array_equal(site.arrays[name], handed[name]):
                message = f"{name!r} of a site differs from the one it was handed, which this rule keeps frozen"
                raise refuse("foreign-factor", message, remedy="train on this site what the rule trains in this round")


def _odd(name: str, array: NDArray[np.floating] | None, shape: tuple[int, ...]) -> AdmissionError:
    if array is None:
        return refuse("missing-name", f"a site brings no {name!r}", remedy="ask the sites for what the rule trains")
    message = f"{name!r} has shape {array.shape}; the global one has {shape}"
    return refuse("wrong-shape", message, remedy="give all sites the global rank; this rule does not mix ranks")
