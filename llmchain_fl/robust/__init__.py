"""The table of robust steps; a new one is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmchain_fl.registry import Table
from llmchain_fl.robust.protocol import Robust, RobustSettings, Screened

_HERE = "llmchain_fl.robust"
ROBUST: Mapping[str, Callable[[RobustSettings], Robust]] = Table(
    "robust",
    {
        "norm-bound": f"{_HERE}.norm_bound:NormBound",
        "median": f"{_HERE}.coordinate:Median",
        "trimmed-mean": f"{_HERE}.coordinate:TrimmedMean",
        "krum": f"{_HERE}.krum:Krum",
        "multi-krum": f"{_HERE}.krum:MultiKrum",
        "geometric-median": f"{_HERE}.geometric_median:GeometricMedian",
    },
    type,
)
"""Name in the configuration -> the step under these settings. ``none`` is no step at all."""

__all__ = ["ROBUST", "Robust", "RobustSettings", "Screened"]
