"""Plays one cell to its end in its own run directory, and keeps its numbers.

| the cell's folder | then |
|---|---|
| not there, or nothing in it was a run yet | a new run |
| a run without ``cell.json`` | goes on after its last finished round |
| a refusal of our own (``LlmchainError``) before anything was measured | refused with its reason; the folder goes |
| its budget ends before its plan does | measured as far as it went |
| anything else goes wrong | the error rises; the folder stays, and is gone on with next time |
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmchain_fl.cli.apps import simulator
from llmchain_fl.compare.folder import tidy
from llmchain_fl.compare.outcome import Outcome, load, measured, missed, save
from llmchain_fl.compare.plan import Cell
from llmchain_fl.core.errors import ConfigError, LlmchainError, RunError
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunStopped

Tell = Callable[[int, int], None]
"""Called with rounds done and rounds in all."""


@dataclass(frozen=True)
class Job:
    """What a worker process is given: the cell, its folder, its settings in full as TOML."""

    cell: Cell
    folder: Path
    config: str


class Told(Silent):
    """Passes on how far the run is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def started(self, total: int, done: int, sites: int, privacy: str, upload: str = "") -> None:
        """Rounds done before."""
        self._tell(done, total)

    def round_finished(self, report: RoundReport) -> None:
        """One more."""
        self._tell(report.round, report.total)


def play_cell(job: Job, tell: Tell) -> Outcome:
    """Play it, or take it as it is if it is finished.

    Raises:
        LlmchainError: the run failed.
    """
    outcome = load(job.folder) or _play(job, tell)
    if outcome.status == "finished":
        tidy(job.folder)
    return outcome


def _play(job: Job, tell: Tell) -> Outcome:
    run = _run_of(job)
    tool = simulator()
    config, _ = tool.reopen(run.path)
    try:
        tool.share_outputs(config)
        tool.simulate(config, run, Told(tell))
    except RunStopped:  # its budget ended early: it is measured as far as it went
        pass
    except LlmchainError as error:
        if run.rows() or not run.discard():
            raise
        reason = "; ".join(error.faults) if isinstance(error, ConfigError) else error.what
        return missed(job.cell, "refused", reason)
    outcome = measured(job.cell, run, config)
    save(run.path, outcome)
    return outcome


def _run_of(job: Job) -> RunDir:
    """The run that was begun, or a new one."""
    try:
        return RunDir.open(job.folder)
    except RunError:
        shutil.rmtree(job.folder, ignore_errors=True)  # ended before it was a run
        return RunDir.create(job.folder, job.config)
