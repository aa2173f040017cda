"""The table of robust steps; a new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from llmchain_fl.robust.coordinate import Median, TrimmedMean
from llmchain_fl.robust.geometric_median import GeometricMedian
from llmchain_fl.robust.krum import Krum, MultiKrum
from llmchain_fl.robust.norm_bound import NormBound
from llmchain_fl.robust.protocol import Robust, RobustSettings, Screened

ROBUST: dict[str, Callable[[RobustSettings], Robust]] = {
    NormBound.name: NormBound,
    Median.name: Median,
    TrimmedMean.name: TrimmedMean,
    Krum.name: Krum,
    MultiKrum.name: MultiKrum,
    GeometricMedian.name: GeometricMedian,
}
"""Name in the configuration -> the step under these settings. ``none`` is no step at all."""

__all__ = ["ROBUST", "Robust", "RobustSettings", "Screened"]
