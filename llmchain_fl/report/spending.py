"""What each site has spent of its privacy: ``privacy.json`` and the epsilon rows read together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmchain_fl.planning.trusted_peers import FIELD, in_words
from llmchain_fl.report import wording
from llmchain_fl.report.noised import noise_words
from llmchain_fl.report.readings import Readings, Row

LARGEST_EPSILON = 20.0
PROTECTED = {
    "record": "one record",
    "person": "all records of one person",
    "patient": "all records of one patient",
    "customer": "all records of one customer",
    "entity": "all records of one person or entity",
    "site": "all records of one site",
}


@dataclass(frozen=True)
class SiteSpending:
    """One site's cumulative epsilon; ``rdp`` is the independent check; NaN and None where not known."""

    epsilon: float
    rdp: float = math.nan
    rounds: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Spending:
    """A run's privacy; ``private`` is False where no differential privacy was asked for."""

    private: bool
    delta: float
    unit: str
    accountant: str
    target: float | None
    sites: dict[str, SiteSpending]
    noise: str = ""
    """Who adds it (``noised.py``); "" in runs of earlier versions."""
    by_trusted_peers: Mapping[int, float] = field(default_factory=dict)
    """Shared noise: epsilon of the site that has spent most, by how many of the others it trusts."""

    @classmethod
    def of(cls, run: Readings, privacy: Mapping[str, Any]) -> Spending:
        """Reads both sources; where they differ on a site's epsilon the larger one counts.

        Args:
            run: the run's rows; those of metric ``epsilon`` carry delta, unit and accountant.
            privacy: ``privacy.json``, or an empty dict where only the rows are at hand.
        """
        rows = [row for row in run.rows if row["metric"] == "epsilon"]
        last: Row = rows[-1] if rows else {}
        booked: Mapping[str, Mapping[str, Any]] = privacy.get("sites") or {}
        sites = {site: _site(entry) for site, entry in booked.items()}
        for site, curve in run.site_curves("epsilon").items():
            mine = sites.get(site, SiteSpending(0.0))
            worst = max((mine.epsilon, *(value for _, value in curve)), key=_severity)
            sites[site] = SiteSpending(worst, mine.rdp, mine.rounds, mine.steps)
        return cls(
            private=bool(privacy.get("private", bool(sites))),
            delta=_number(privacy.get("delta", last.get("delta"))),
            unit=str(privacy.get("unit") or last.get("unit") or "not stated"),
            accountant=str(privacy.get("accountant") or last.get("accountant") or "not stated"),
            target=privacy.get("target_epsilon"),
            sites=dict(sorted(sites.items())),
            noise=str(privacy.get("noise") or last.get("noise") or ""),
            by_trusted_peers={int(h): _number(value) for h, value in dict(privacy.get(FIELD) or {}).items()},
        )

    @property
    def highest(self) -> tuple[str, SiteSpending] | None:
        """The site that has spent the most; an epsilon without a finite bound is above all others."""
        return max(self.sites.items(), key=lambda item: _severity(item[1].epsilon), default=None)

    @property
    def guarantee(self) -> str:
        """``delta 1e-5, per record, PLD accountant, noise added at each site``."""
        return wording.guarantee(self.delta, self.unit, self.accountant, self.noise)

    @property
    def protects(self) -> str:
        """The privacy unit in plain words."""
        return PROTECTED.get(self.unit, f"one {self.unit}")

    @property
    def meaning(self) -> str:
        """The guarantee of the site that has spent most, in plain words: odds change by at most e^epsilon."""
        if not self.private or self.highest is None:
            return "Differential privacy was asked for."
        epsilon = self.highest[1].epsilon
        if not math.isfinite(epsilon) or epsilon > LARGEST_EPSILON:
            return f"At the highest epsilon the guarantee says nothing useful about {self.protects}."
        factor = math.exp(epsilon)
        odds = f"{factor:,.2f}" if factor < 10 else f"{factor:,.0f}"
        many = " Somebody with several records is protected less." if self.unit == "record" else ""
        return (
            f"For {noise_words(self.noise, self.unit).seen_by}, the odds of guessing whether {self.protects} took part "
            f"improve by a factor of at most {odds} (e to the power of epsilon), apart from a chance of about "
            f"{wording.power(self.delta)}.{many}"
        )

    @property
    def who_says(self) -> str:
        """Whose word it is, who has to be trusted, and the independent check."""
        trusted = noise_words(self.noise, self.unit).trusted
        checks = [mine.rdp for mine in self.sites.values() if math.isfinite(mine.rdp)]
        check = f" The RDP accountant, a check, says {wording.epsilon_text(max(checks))} at most." if checks else ""
        return (
            f"{trusted} The server computed this epsilon from public constants; each site keeps its own ledger and "
            f"refuses what its limit does not allow (`llmchain-fl privacy ledger`).{check}"
        )

    @property
    def with_others(self) -> str:
        """Shared noise: what epsilon is if some of the other sites, or all, are with the server; "" of any other."""
        words = in_words(self.by_trusted_peers) if self.private else ""
        return f"{words} (highest of the sites, with the same delta, unit and accountant)." if words else ""

    def over(self, site: str) -> bool:
        """True where a site has spent more than the target; the last digits of a calibration do not count."""
        return self.target is not None and _severity(self.sites[site].epsilon) > self.target * (1 + 1e-6)


def _site(entry: Mapping[str, Any]) -> SiteSpending:
    return SiteSpending(
        _number(entry.get("epsilon")), _number(entry.get("epsilon_rdp")), entry.get("rounds"), entry.get("steps")
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _severity(epsilon: float) -> float:
    return epsilon if math.isfinite(epsilon) else math.inf
