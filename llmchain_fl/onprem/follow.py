"""One run followed to its end, and gone on with where only its process has died.

======================================================  ==========================================  =========
Flower's status, last word of the run's audit log       outcome                                     exit code
======================================================  ==========================================  =========
completed, ``done``                                     completed                                   0
any, ``budget``                                         its budget ended before its plan            3
stopped                                                 somebody stopped it                         1
failed, ``config``; a configuration that is none        failed: what it says                        2
failed, another code word                               failed: what it says                        1
over or unknown, no word: the process has died          gone on with, from its last checkpoint
failed, ``error``: a network or a disk gave up          the same
the same ``TRIES`` times without a round between        failed                                      1
======================================================  ==========================================  =========

Flower alone does not tell: ``flwr run --stream`` ends with 0 whatever became of the run. A word counts only where it
was written after the run was last submitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llmchain_fl.audit_log import read_log
from llmchain_fl.core.audit import FILE
from llmchain_fl.core.errors import LlmchainError, RunError
from llmchain_fl.onprem.control import Control, code_of
from llmchain_fl.onprem.runs import Runs, Status, Wish
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunStopped

LOOK, LOOK_AT_SITES, AFTER_FAULT = 1.0, 10.0, (3.0, 10.0, 30.0)
TRIES = len(AFTER_FAULT)
SILENT = 120.0
"""Seconds without an answer of the SuperLink after which a run is given up."""
COMPLETED, FAILED, CONFIG, BUDGET = 0, 1, 2, 3
_BAD_CONFIG = "the configuration has "


@dataclass(frozen=True)
class Outcome:
    """How a run ended; ``code``: of the command."""

    code: int
    text: str


@dataclass
class Follower:
    """Submits and watches.

    Args:
        runs: of the coordinator.
        control: the SuperLink's.
        rounds: shows the rounds of a run that are new, and says how many are done.
        say: one line.
        clock, sleep: of the machine.
    """

    runs: Runs
    control: Control
    rounds: Callable[[RunDir], int]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _here: dict[str, bool] = field(default_factory=dict)
    _looked: float = float("-inf")

    def play(self, bundle: bytes, wish: Wish) -> Outcome:
        """Start the run, or go on with it, and stay with it; see the table of the module."""
        run, faults, again = RunDir(wish.out), 0, wish.scenario is None
        while True:
            done, known = self.rounds(run) if again else 0, len(_log(run))
            number = self._start(bundle, wish, again)
            status = self._until_over(number, run)
            outcome = judged(status, [str(one["why"]) for one in _log(run)[known:] if one["type"] == "stopped"], faults)
            if outcome is not None:
                return outcome
            faults = 1 if self.rounds(run) > done else faults + 1
            details = status.details if status else "the SuperLink does not know it any more"
            if faults > TRIES:
                return Outcome(FAILED, f"the run died {faults} times without a round between: {details}")
            self.say(f"the run died ({details}); it is gone on with")
            self.sleep(AFTER_FAULT[faults - 1])
            again = run.begun or not run.discard()

    def _start(self, bundle: bytes, wish: Wish, again: bool) -> int:
        """The SuperLink may just be starting; what it refuses is refused at once. A run that goes on is not begun."""
        end, said = self.clock() + SILENT, False
        while True:
            try:
                going = self.runs.going(self.control, wish.out) if again else None
                if going is not None:
                    self.say(f"run {going} is going on already, and is watched: {wish.out}")
                    return going
                number = self.runs.start(self.control, bundle, wish, again=again)
            except RunError as error:
                if code_of(error.__cause__) is not None or self.clock() > end:
                    raise
                if not said:
                    self.say(f"{error.what}; asked again for {SILENT:.0f} s")
                said = True
                self.sleep(LOOK)
                continue
            self.say(f"run {number}: {wish.out}")
            return number

    def _until_over(self, number: int, run: RunDir) -> Status | None:
        heard = self.clock()
        while True:
            try:
                status = self.runs.look(self.control, number)
                self._sites()
                heard = self.clock()
            except RunError:
                if self.clock() - heard > SILENT:
                    raise
                self.sleep(LOOK)
                continue
            self.rounds(run)
            if status is None or status.over:
                return status
            self.sleep(LOOK)

    def _sites(self) -> None:
        """Say who is there, whenever that changes; looked at more often while somebody is away."""
        if self._here and all(self._here.values()) and self.clock() < self._looked + LOOK_AT_SITES:
            return
        self._looked, here = self.clock(), self.runs.sites(self.control)
        if here != self._here:
            self._here = here
            self.say(sites_line(here))


def sites_line(here: dict[str, bool]) -> str:
    """``2 of 3 sites there; away: west``."""
    away = [name for name, there in here.items() if not there]
    return f"{sum(here.values())} of {len(here)} sites there" + (f"; away: {', '.join(away)}" if away else "")


def judged(status: Status | None, words: list[str], faults: int) -> Outcome | None:
    """What became of a run that is over; None: its process died. ``words``: why it ended, by its own audit log."""
    word, details = (words[-1] if words else ""), (status.details if status else "")
    if word == "done":
        return Outcome(COMPLETED, "completed")
    if word == RunStopped.code:
        return Outcome(BUDGET, details)
    if status is not None and status.word == "stopped":
        return Outcome(FAILED, "somebody stopped it")
    raised = "exception: " in details
    if word == "config" or (not word and raised and _BAD_CONFIG in details and not faults):
        return Outcome(CONFIG, details)
    if word not in ("", "interrupted", LlmchainError.code) or (not word and raised and not faults):
        return Outcome(FAILED, details)
    return None


def _log(run: RunDir) -> list[dict[str, object]]:
    return read_log(run.audit / FILE)
