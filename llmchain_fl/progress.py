"""What a run tells whoever watches it: a terminal, a log, nobody."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

from llmchain_fl.core.printable import printable
from llmchain_fl.report.wording import epsilon_text

log = logging.getLogger("llmchain_fl")


@dataclass(frozen=True)
class RoundReport:
    """What is known at the end of a round. ``epsilon``: largest over sites, with ``privacy`` saying at what terms."""

    round: int
    total: int
    stage_name: str
    admitted: int
    asked: int
    seconds: float
    score_name: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    epsilon: float | None = None
    privacy: str = "no differential privacy"
    bytes_up: int = 0
    bytes_down: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class Progress(Protocol):
    """Called by the server's loop; the default methods of ``Silent`` do nothing."""

    def started(self, total: int, done: int, sites: int, privacy: str, upload: str = "") -> None: ...

    def round_started(self, number: int, stage_name: str, sites: int) -> None: ...

    def site_finished(self, site: str, tokens: int, seconds: float) -> None: ...

    def round_finished(self, report: RoundReport) -> None: ...

    def finished(self, note: str) -> None: ...


class Silent:
    """Tells nobody."""

    def started(self, total: int, done: int, sites: int, privacy: str, upload: str = "") -> None:
        """Nothing."""

    def round_started(self, number: int, stage_name: str, sites: int) -> None:
        """Nothing."""

    def site_finished(self, site: str, tokens: int, seconds: float) -> None:
        """Nothing."""

    def round_finished(self, report: RoundReport) -> None:
        """Nothing."""

    def finished(self, note: str) -> None:
        """Nothing."""


class Logged(Silent):
    """One log line a round: for a ServerApp without a terminal."""

    def round_finished(self, report: RoundReport) -> None:
        """``round 3/9 cards: 6/6 sites, accuracy cards 0.81, epsilon 2.1 (...)``."""
        scores = printable(" ".join(f"{task} {value:.3f}" for task, value in report.scores.items()))
        spent = report.privacy if report.epsilon is None else f"epsilon {epsilon_text(report.epsilon, report.privacy)}"
        log.info(
            "round %d/%d %s: %d/%d sites, %s %s, %s, %.1f s",
            report.round,
            report.total,
            printable(report.stage_name),
            report.admitted,
            report.asked,
            report.score_name,
            scores,
            spent,
            report.seconds,
        )

    def finished(self, note: str) -> None:
        """Where the results are."""
        log.info("%s", printable(note))
