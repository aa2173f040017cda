"""Counts and times of the server, in the text format of Prometheus (version 0.0.4). No tenant, no text, no path.

Labels are words of this program alone, so that no request can make a new series or put anything into the page.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass
class Histogram:
    """Cumulative counts. ``bounds``: upper ends, ascending."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def see(self, value: float) -> None:
        """One observation; a bound belongs to its bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """All of them. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._histograms = {"request_seconds": Histogram(SECONDS), "pass_rows": Histogram(tuple(map(float, ROWS)))}
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += by

    def see(self, name: str, value: float) -> None:
        """Add to a histogram."""
        with self._lock:
            self._histograms[name].see(value)

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """A value that is read when the page is asked for."""
        self._gauges[name] = read

    def page(self) -> str:
        """Everything."""
        with self._lock:
            counts, lines = dict(self._counts), list[str]()
            for name in sorted({name for name, _ in counts}):
                lines.append(f"# TYPE llmchain_{name} counter")
                lines += [f"llmchain_{one}{_labels(dict(told))} {value}"
                          for (one, told), value in sorted(counts.items()) if one == name]  # fmt: skip
            for name, histogram in sorted(self._histograms.items()):
                lines += _histogram(f"llmchain_{name}", histogram)
        for name, read in sorted(self._gauges.items()):
            lines += [f"# TYPE llmchain_{name} gauge", f"llmchain_{name} {read():g}"]
        return "\n".join(lines) + "\n"


def _histogram(name: str, told: Histogram) -> list[str]:
    lines, running = [f"# TYPE {name} histogram"], 0
    for bound, count in zip([*map("{:g}".format, told.bounds), "+Inf"], told.counts, strict=True):
        running += count
        lines.append(f'{name}_bucket{{le="{bound}"}} {running}')
    return [*lines, f"{name}_sum {told.total:.6f}", f"{name}_count {running}"]


def _labels(told: Mapping[str, str]) -> str:
    if not told:
        return ""
    shown = (f'{key}="{_escaped(value)}"' for key, value in told.items())
    return "{" + ",".join(shown) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
