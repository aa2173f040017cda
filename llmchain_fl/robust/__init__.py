"""The table of robust steps; a new one is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmchain_fl.registry import Table
from llmchain_fl.robust.protocol import Robust, RobustSettings, Screened

ROBUST: Mapping[str, Callable[[RobustSettings], Robust]] = Table(
    "robust",
    {
        "norm-bound": "llmchain_fl.robust.norm_bound:NormBound",
        "median": "llmchain_fl.robust.coordinate:Median",
        "trimmed-mean": "llmchain_fl.robust.coordinate:TrimmedMean",
        "krum": "llmchain_fl.robust.krum:Krum",
        "multi-krum": "llmchain_fl.robust.krum:MultiKrum",
        "geometric-median": "llmchain_fl.robust.geometric_median:GeometricMedian",
    },
    type,
)
"""Name in the configuration -> the step under these settings. ``none`` is no step at all."""

__all__ = ["ROBUST", "Robust", "RobustSettings", "Screened"]
