"""From numbers to alarms that do not flicker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a topic is in."""

    WARM_UP = "warm-up"
    OK = "ok"
    WATCH = "watch"
    ALARM = "alarm"
    HOLD = "hold"


class Turn(StrEnum):
    """What is told to people: an alarm begins, an alarm is over. Nothing else."""

    NONE = ""
    BEGINS = "alarm"
    OVER = "over"


@dataclass
class Alarm:
    """The state of one topic; one :meth:`see` a window.

    | state | window | next | told |
    |---|---|---|---|
    | ok, watch | level >= 1 | alarm | begins |
    | ok | level >= ``watch_at``, or another detector speaks | watch | |
    | watch | neither, ``calm`` windows in a row | ok | |
    | alarm | calm | hold | |
    | hold | not calm | alarm | nothing: it is the same alarm |
    | hold | calm, the ``calm``-th in a row | ok | over |
    """

    calm: int
    watch_at: float = 0.5
    state: State = State.OK
    quiet: int = 0
    """Quiet windows in a row."""

    def see(self, level: float, is_calm: bool, other: bool = False) -> Turn:
        """One window.

        Args:
            level: 1 is an alarm.
            is_calm: whether the window by itself looks as before.
            other: whether another detector speaks.
        """
        if self.state in (State.ALARM, State.HOLD):
            return self._within(is_calm)
        if level >= 1:
            self.state, self.quiet = State.ALARM, 0
            return Turn.BEGINS
        if level >= self.watch_at or other:
            self.state, self.quiet = State.WATCH, 0
        elif self.state == State.WATCH:
            self.quiet += 1
            if self.quiet >= self.calm:
                self.state, self.quiet = State.OK, 0
        return Turn.NONE

    def _within(self, is_calm: bool) -> Turn:
        self.quiet = self.quiet + 1 if is_calm else 0
        self.state = State.HOLD if is_calm else State.ALARM
        if self.quiet < self.calm:
            return Turn.NONE
        self.state, self.quiet = State.OK, 0
        return Turn.OVER
