"""A measurement and the epsilon at which it stands: rows of ``metrics.jsonl`` joined. No epsilon without its terms.

A score says little without what was spent for it, and an epsilon says nothing without delta, unit and accountant. So
everything that prints or plots a score of a private run takes it from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmchain_fl.core.errors import RunError

Row = Mapping[str, Any]
TERMS = ("delta", "unit", "accountant")


@dataclass(frozen=True)
class Guarantee:
    """What had been spent by the end of a round: the site that spent most; inf where there is no finite bound."""

    epsilon: float
    delta: float
    unit: str
    accountant: str
    site: str = ""
    noise: str = ""
    """Who adds the noise (``report/noised.py``); "" in runs of earlier versions."""


ALL = ""
"""Stands for the sites of a row that is of many; no site has this name."""


@dataclass(frozen=True)
class Priced:
    """A row, and what had been spent when it was measured; None in a run without differential privacy."""

    row: Row
    guarantee: Guarantee | None


class Spent:
    """The epsilon rows of a run, looked up by round.

    Args:
        rows: all rows; those with metric ``epsilon`` count.

    Raises:
        RunError: an epsilon without delta, unit or accountant, or two that are not stated in the same terms.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        stated = [row for row in rows if row.get("metric") == "epsilon"]
        terms = {tuple(row.get(name) for name in TERMS) for row in stated}
        if len(terms) > 1 or any(term is None for term in next(iter(terms), ())):
            raise RunError(
                f"epsilons are stated in the terms {sorted(terms, key=str)}",
                remedy="every epsilon of a run needs the same delta, unit and accountant",
            )
        self._terms = next(iter(terms), None)
        self._noise = str(stated[-1].get("noise") or "") if stated else ""
        self._sites: dict[str, dict[int, float]] = {}
        for row in stated:
            value, curve = row.get("value"), self._sites.setdefault(str(row.get("site") or ALL), {})
            finite = isinstance(value, int | float) and not math.isnan(value)
            curve[row["round"]] = float(row["value"]) if finite else math.inf

    def by(self, number: int, site: str | None = None) -> Guarantee | None:
        """What had been spent by the end of round ``number``: by one site, or by the site that spent most.

        | case | guarantee |
        |---|---|
        | no epsilon in the whole run | None: no differential privacy |
        | before the first round, or a site that was never asked | epsilon 0, in the run's terms |
        | a site that was not in this round | what it had spent before |
        | a row of very many sites together (scope `sites`) | counts for each of them: it is the largest |
        """
        if self._terms is None:
            return None
        delta, unit, accountant = (str(term) for term in self._terms)
        names: Sequence[str] = sorted(self._sites) if site is None else [site, ALL]
        spent = {
            name: max((value for at, value in self._sites.get(name, {}).items() if at <= number), default=0.0)
            for name in names
        }
        worst = max(spent, key=lambda name: spent[name])
        return Guarantee(
            spent[worst], float(delta), unit, accountant, worst if spent[worst] and worst != ALL else "", self._noise
        )


def at_epsilon(rows: Sequence[Row], metrics: Iterable[str]) -> list[Priced]:
    """Every row of one of ``metrics`` with what had been spent by the end of its round.

    A row of scope ``site`` stands beside the epsilon of that site, every other row beside the largest of all sites.

    Raises:
        RunError: as :class:`Spent`.
    """
    wanted, spent = set(metrics), Spent(rows)
    return [
        Priced(row, spent.by(row["round"], str(row["site"]) if row.get("scope") == "site" else None))
        for row in rows
        if row.get("metric") in wanted
    ]
