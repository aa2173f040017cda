"""Keeps a few processes up: whatever ends is started again, with growing waits, until the supervisor is told to stop.

=======================================================  ===========================================================
case                                                     outcome
=======================================================  ===========================================================
a process ends, with any exit code, 0 as well            started again after 1, 2, 4, 8, 10, 10 ... s
it had been up for ``STEADY`` seconds                    the waits begin anew
it cannot be started yet (``Part.hindered`` says why)    said once, asked again after the same waits
it answers for the first time after a start              ``Part.answered`` is called, until it is through
told to stop                                             SIGTERM to each with its children, SIGKILL after ``PATIENCE``
the supervisor itself is killed                          each process sees it within a second and ends (``child.py``)
=======================================================  ===========================================================

A SuperNode that comes back within a minute is turned away by the SuperLink (exit code 305): it is asked again
at least every ten seconds, so that little is lost beyond that minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.onprem.words import meaning

log = logging.getLogger("llmchain_fl.up")
WAITS = (1.0, 2.0, 4.0, 8.0, 10.0)
STEADY = 60.0
PATIENCE = 15.0
LOOK = 0.2


class Process(Protocol):
    """A process with all that it has started."""

    def ended(self) -> int | None: ...
    def tail(self) -> Sequence[str]: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def gone(self) -> bool: ...


@dataclass(frozen=True)
class Part:
    """One process to keep up. ``answers``, ``answered``: what to do when it first answers after a start."""

    name: str
    start: Callable[[], Process]
    hindered: Callable[[], str] = lambda: ""
    answers: Callable[[], bool] = lambda: True
    answered: Callable[[], None] = lambda: None


@dataclass
class _State:
    process: Process | None = None
    since: float = 0.0
    due: float = 0.0
    faults: int = 0
    greeted: bool = False
    said: str = ""
    old: list[Process] = field(default_factory=list)


class Supervisor:
    """Keeps ``parts`` up; ``clock`` and ``sleep`` are the machine's."""

    def __init__(
        self,
        parts: Sequence[Part],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._parts = [(part, _State()) for part in parts]
        self._clock, self._sleep = clock, sleep

    def run(self, going: Callable[[], bool] = lambda: True) -> None:
        """Until ``going()`` is false or something is raised (Ctrl-C); then everything is stopped."""
        try:
            while going():
                for part, state in self._parts:
                    self._look(part, state)
                self._sleep(LOOK)
        finally:
            self.stop()

    def _look(self, part: Part, state: _State) -> None:
        if state.process is None:
            if self._clock() >= state.due:
                self._start(part, state)
            return
        code = state.process.ended()
        if code is not None:
            self._ended(part, state, code)
        elif not state.greeted and self._clock() >= state.due and part.answers():
            state.greeted = self._greet(part, state)

    def _start(self, part: Part, state: _State) -> None:
        why = part.hindered()
        if why:
            self._fault(part, state, why)
            return
        state.process, state.since, state.greeted = part.start(), self._clock(), False
        log.info("%s: started", part.name)

    def _greet(self, part: Part, state: _State) -> bool:
        try:
            part.answered()
        except LlmchainError as fault:
            self._fault(part, state, str(fault))
            return False
        state.said = ""
        return True

    def _ended(self, part: Part, state: _State, code: int) -> None:
        process = state.process
        if process is None:
            return
        if self._clock() - state.since >= STEADY:
            state.faults, state.said = 0, ""
        state.process = None
        state.old = [one for one in (*state.old, process) if not one.gone()]
        words = meaning(process.tail())
        self._fault(part, state, f"ended with exit code {code}" + (f": {words}" if words else ""))

    def _fault(self, part: Part, state: _State, why: str) -> None:
        wait = WAITS[min(state.faults, len(WAITS) - 1)]
        state.faults += 1
        state.due = self._clock() + wait
        level = logging.DEBUG if why == state.said else logging.WARNING
        log.log(level, "%s: %s (tried again in %.0f s)", part.name, why, wait)
        state.said = why

    def stop(self) -> None:
        """End every process and all that they have started."""
        left = [one for _, state in self._parts for one in (state.process, *state.old) if one is not None]
        for process in left:
            process.terminate()
        end = self._clock() + PATIENCE
        while (left := [one for one in left if not one.gone()]) and self._clock() < end:
            self._sleep(LOOK)
        for process in left:
            process.kill()
