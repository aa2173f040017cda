"""The streaming mean behind every linear rule. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.factors import Adapter, Arrays, SiteFactors, check_adapter, rescaled, scaled_names
from llmchain_fl.core.errors import ModelError

BLOCK = 32_768
"""Numbers handled at once: three blocks of float64 fit a core's cache, and no temporary is as large as an array."""
_LARGEST = float(np.finfo(np.float32).max)

Noise = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]
"""Name and mean of one array -> the same with noise on it: central DP."""


def blend(mean: NDArray[np.float64], array: NDArray[np.floating], share: float, ratio: float = 1.0) -> None:
    """``mean <- mean + share (ratio array - mean)`` in place, float64, block by block."""
    mean, array = np.atleast_1d(mean), np.atleast_1d(array)
    rows = max(1, BLOCK // max(1, mean[:1].size))
    buffer = np.empty(mean[:rows].shape)
    for start in range(0, len(mean), rows):
        part = mean[start : start + rows]
        step = buffer[: len(part)]
        np.multiply(array[start : start + rows], ratio, out=step, dtype=np.float64)
        step -= part
        step *= share
        part += step


def fits(array: NDArray[np.floating], ratio: float = 1.0) -> bool:
    """Whether ``ratio array`` is finite and within float32; makes no temporary array."""
    if not array.size:
        return True
    return max(-float(array.min()), float(array.max())) * ratio <= _LARGEST  # NaN is in both, and not <= anything


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

    ``mean <- mean + (w_k / W)(x_k - mean)`` with W the weights so far (West 1979): float64, memory of one adapter
    whatever the number of sites, and a single site or equal sites give their own arrays bit for bit. The order of the
    sites shows in the last digits of float64 only.

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
        self._scale = scale
        self._mean = {name: np.zeros(self._global[name].shape) for name in names}
        self._frozen = [name for name in self._global if name.rpartition(".")[2] in frozen]
        self._scaled = scaled_names(self._global)
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
        total = self._total + site.weight
        if not math.isfinite(total):
            raise refuse("weight", "the sum of the weights is not finite", remedy="use weights of a smaller unit")
        self._check_frozen(site)
        for name in self._mean:
            self._check(site, name)
        for name, mean in self._mean.items():
            blend(mean, site.arrays[name], site.weight / total, self._ratio(site, name))
        self._total = total

    def finish(self, noise: Noise | None = None) -> Adapter:
        """The global arrays with the averaged ones put in, float32; ``noise`` acts on each averaged array."""
        result = {name: array.copy() for name, array in self._global.items()}
        if self.counted:
            means = {name: mean.astype(np.float32) for name, mean in self._mean.items()}
            result |= means if noise is None else {name: noise(name, mean) for name, mean in means.items()}
        return result

    def _ratio(self, site: SiteFactors, name: str) -> float:
        return site.scale / self._scale if name in self._scaled else 1.0

    def _check(self, site: SiteFactors, name: str) -> None:
        array = site.arrays.get(name)
        if array is None:
            raise refuse("missing-name", f"a site brings no {name!r}", remedy="ask the sites for what the rule trains")
        if array.shape != self._mean[name].shape:
            message = f"{name!r} has shape {array.shape}; the global one has {self._mean[name].shape}"
            raise refuse("wrong-shape", message, remedy="give all sites the global rank; this rule does not mix ranks")
        if not fits(array, self._ratio(site, name)):
            raise refuse("not-finite", f"{name!r} does not fit float32", remedy="lower the site's learning rate")

    def _check_frozen(self, site: SiteFactors) -> None:
        brought = [name for name in self._frozen if name in site.arrays]
        handed = rescaled(self._global, self._scale / site.scale) if brought else {}
        for name in brought:
            if not np.array_equal(site.arrays[name], handed[name]):
                message = f"{name!r} of a site differs from the one it was handed, which this rule keeps frozen"
                raise refuse("foreign-factor", message, remedy="train on this site what the rule trains in this round")
