"""The rows of a run by series and by event: what happened, site by site and round by round. No score is judged here.

Where a measurement was written twice, as after a resumed round, the last one counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from llmchain_fl.metrics_file import ALL_SITES

Row = Mapping[str, Any]
Curve = list[tuple[int, float]]
"""(round, value), by round, one value a round."""

STOPPED = "stopped"
SPREAD = {"lowest": 0, "middle": 2, "highest": 4}
EVERYTHING = "all"
"""The task name of records that belong to no single stage."""


class RunRows:
    """A run's rows (``RunDir.rows``), read once; what they say is worked out when it is asked for."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: Sequence[Row] = list(rows)
        self.series: dict[tuple[str, str, str], dict[int, float]] = {}
        for row in self.rows:
            self.series.setdefault(series_of(row), {})[row["round"]] = float(row["value"])

    @cached_property
    def sites(self) -> list[str]:
        """The names of all sites that occur, sorted."""
        return sorted({who for scope, who, _ in self.series if scope == "site"})

    @cached_property
    def rounds(self) -> int:
        """The last round written; 0 where nothing but the score before training is there."""
        return max((row["round"] for row in self.rows if row["metric"] != STOPPED), default=0)

    @cached_property
    def stopped(self) -> tuple[int, int, str] | None:
        """(rounds done, rounds planned, why) of a run that ended before its plan did; None of any other."""
        rows = [row for row in self.rows if row["metric"] == STOPPED]
        return (int(rows[-1]["value"]), int(rows[-1]["planned"]), str(rows[-1]["reason"])) if rows else None

    @cached_property
    def skipped(self) -> dict[int, str]:
        """Round -> why nobody trained in it."""
        return {row["round"]: str(row["reason"]) for row in self.rows if row["metric"] == "skipped"}

    def run_curve(self, metric: str) -> Curve:
        """One metric of the whole run, round by round."""
        return self.values("run", "", metric)

    def run_curves(self, beginning: str) -> dict[str, Curve]:
        """Every metric of the whole run whose name begins so, sorted by name."""
        names = sorted(metric for scope, _, metric in self.series if scope == "run" and metric.startswith(beginning))
        return {name: self.run_curve(name) for name in names}

    def site_curves(self, metric: str) -> dict[str, Curve]:
        """One metric of each site, round by round; sites sorted by name, those without it left out."""
        curves = {site: self.values("site", site, metric) for site in self.sites}
        return {site: curve for site, curve in curves.items() if curve}

    @cached_property
    def many(self) -> dict[str, dict[int, Row]]:
        """Metric -> round -> the one row of very many sites together (``metrics_file.by_site``)."""
        table: dict[str, dict[int, Row]] = {}
        for row in self.rows:
            if row.get("scope") == ALL_SITES:
                table.setdefault(str(row["metric"]), {})[row["round"]] = row
        return table

    @property
    def site_count(self) -> int:
        """How many sites have a row, alone or together."""
        together = (int(row["n"]) for rounds in self.many.values() for row in rounds.values())
        return max(len(self.sites), *together, 0)

    def curves_of_sites(self, metric: str) -> dict[str, Curve]:
        """One metric of each site; of very many together, the lowest, the median and the highest."""
        rounds = self.many.get(metric)
        if not rounds:
            return self.site_curves(metric)
        parts = {f"{name} of {max(row['n'] for row in rounds.values()):,}": part for name, part in SPREAD.items()}
        return {
            name: [(at, row["quartiles"][part]) for at, row in sorted(rounds.items())] for name, part in parts.items()
        }

    @cached_property
    def quarantines(self) -> list[tuple[int, str, str, int, int]]:
        """(round, site, why, last round of it, how often so far) of each quarantine; why "" and 0: the site is back."""
        rows = [row for row in self.rows if row["metric"] == "quarantine"]
        return sorted((row["round"], row["site"], row["reason"], row["until"], row["times"]) for row in rows)

    def bytes_per_round(self, metric: str) -> Curve:
        """``bytes_up`` or ``bytes_down``, summed over the sites, round by round."""
        totals: dict[int, float] = {}
        for curve in self.site_curves(metric).values():
            for round, value in curve:
                totals[round] = totals.get(round, 0.0) + value
        for round, row in self.many.get(metric, {}).items():
            totals[round] = totals.get(round, 0.0) + row["total"]
        return sorted(totals.items())

    @cached_property
    def updates(self) -> dict[str, list[int]]:
        """Site -> the rounds in which it sent an update that was not refused."""
        refused = {(round, site) for round, site, _ in self.refusals}
        curves = self.site_curves("bytes_up")
        return {site: [at for at, _ in curves.get(site, []) if (at, site) not in refused] for site in self.sites}

    @cached_property
    def refusals(self) -> list[tuple[int, str, str]]:
        """(round, site, reason) of every update that was not summed, by round."""
        refused = (row for row in self.rows if row["metric"] == "refused")
        return sorted({(row["round"], _who(row), _why(row)) for row in refused})

    def values(self, scope: str, who: str, metric: str) -> Curve:
        """One series, round by round."""
        return sorted(self.series.get((scope, who, metric), {}).items())


def _who(row: Row) -> str:
    return f"{row['n']:,} sites" if row.get("scope") == ALL_SITES else str(row.get("site"))


def _why(row: Row) -> str:
    why = row.get("reason", "")
    return ", ".join(f"{word}: {times:,}" for word, times in why.items()) if isinstance(why, dict) else str(why)


def total(curve: Iterable[tuple[int, float]]) -> float:
    """The sum of a curve's values that could be measured."""
    return math.fsum(value for _, value in curve if math.isfinite(value))


def series_of(row: Row) -> tuple[str, str, str]:
    """(scope, site or task, metric): what makes one series."""
    scope = str(row.get("scope", "global"))
    who = row.get("site") if scope == "site" else row.get("task", EVERYTHING) if scope == "global" else ""
    return scope, str(who), str(row["metric"])
