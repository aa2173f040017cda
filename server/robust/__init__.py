"""The table of robust steps; a new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from server.robust.coordinate import Median, TrimmedMean
from server.robust.geometric_median import GeometricMedian
from server.robust.krum import Krum, MultiKrum
from server.robust.norm_bound import NormBound
from server.robust.protocol import Robust, RobustSettings, Screened

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
