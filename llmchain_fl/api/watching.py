"""Callbacks: each round's figures and rows, while the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmchain_fl.progress import Logged, RoundReport
from llmchain_fl.run_dir import RunDir

Callback = Callable[[RoundReport, list[dict[str, Any]]], None]
"""``(figures of the round, its rows of metrics.jsonl) -> None``; what it raises ends the run, which can be resumed."""


class Watching(Logged):
    """Tells the log (``llmchain_fl``, level INFO) and every callback of each round."""

    def __init__(self, run: RunDir, callbacks: Sequence[Callback]) -> None:
        self._run, self._callbacks = run, tuple(callbacks)

    def round_finished(self, report: RoundReport) -> None:
        """The round is on disk."""
        super().round_finished(report)
        if self._callbacks:
            rows = [row for row in self._run.rows() if row["round"] == report.round]
            for callback in self._callbacks:
                callback(report, rows)
