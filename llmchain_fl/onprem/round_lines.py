"""A line for each round of a run, from its folder alone: what the server's own files say, not what a log says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmchain_fl.config.read import read_config
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.printable import printable
from llmchain_fl.metrics_file import ALL_SITES
from llmchain_fl.report.wording import count, epsilon_text, guarantee
from llmchain_fl.run_dir import RunDir

SECONDS, SKIPPED, EPSILON = "seconds", "skipped", "epsilon"
Row = dict[str, Any]


class RoundLines:
    """Says each round once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._size, self._done, self._total = say, -1, 0, 0

    def __call__(self, run: RunDir) -> int:
        """Say what is new; how many rounds are done."""
        size = run.metrics.stat().st_size if run.metrics.exists() else -1
        if size in (-1, self._size):
            return self._done
        rows = run.rows()
        if any(row["metric"] == EPSILON for row in rows) and not run.privacy.exists():
            return self._done  # its terms are written next
        self._size = size
        for number in sorted(rounds_of(rows)):
            if number > self._done:
                self._total = self._total or planned(run)
                self._say(line(rows, number, self._total, str(terms(run))))
                self._done = number
        return self._done


def rounds_of(rows: list[Row]) -> set[int]:
    """Rounds that are over."""
    return {row["round"] for row in rows if row["metric"] in (SECONDS, SKIPPED) and row["round"] > 0}


def planned(run: RunDir) -> int:
    """Rounds of the plan."""
    return sum(stage.rounds for stage in read_config(run.config).stage)


def terms(run: RunDir) -> str:
    """At what delta, for whom, counted how."""
    try:
        tree = run.read_privacy()
    except LlmchainError:
        return ""
    return (
        guarantee(tree["delta"], tree["unit"], tree["accountant"], tree.get("noise", "")) if tree.get("private") else ""
    )


def line(rows: list[Row], number: int, total: int, terms: str) -> str:
    """``round 3/9 cards: 3 sites, largest epsilon 1.2 (...), refused: west (budget)``."""
    here = [row for row in rows if row["round"] == number]
    stage = next((row["task"] for row in here if row["metric"] == SECONDS), "")
    parts = [f"round {number}/{total}" + (f" {stage}" if stage else "")]
    skipped = [str(row.get("reason", "")) for row in here if row["metric"] == SKIPPED]
    parts += [f"skipped: {why}" for why in skipped] or [count(_how_many(here, "bytes_up"), "site")]
    spent = [row["value"] for row in here if row["metric"] == EPSILON and row["scope"] in ("site", ALL_SITES)]
    parts += [f"largest epsilon {epsilon_text(max(spent), terms)}"] if spent else []
    refused = [
        f"{row['site'] or count(row['n'], 'site')} ({row.get('reason', '')})"
        for row in here
        if row["metric"] == "refused"
    ]
    parts += [f"refused: {', '.join(refused)}"] if refused else []
    away = [str(row["site"] or count(row["n"], "site")) for row in here if row["metric"] == "away"]
    parts += [f"away: {', '.join(away)}"] if away else []
    return printable(", ".join(parts))


def _how_many(rows: list[Row], metric: str) -> int:
    return sum(row["n"] if row["scope"] == ALL_SITES else 1 for row in rows if row["metric"] == metric)
