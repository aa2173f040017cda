"""A whole stream: topics, drift of the inputs, what people are told."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from llmchain_fl.monitor.drift import Drift, Reference, Vectors
from llmchain_fl.monitor.rates import NO_ERRORS, Confusion
from llmchain_fl.monitor.settings import ALL, INPUTS, OTHER, MonitorSettings
from llmchain_fl.monitor.states import Alarm, State, Turn
from llmchain_fl.monitor.topic import SHOWN, Topic

LIKELY = 0.01
"""A window of inputs that is at least so likely without drift is calm."""


@dataclass(frozen=True)
class Notice:
    """What the log, the page and the webhook say. Nothing of it is a text or a source."""

    kind: str
    topic: str
    window: int
    value: float
    usual: float | None
    at: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def words(self) -> str:
        """One line."""
        if self.topic == INPUTS:
            begins = f"texts no longer look like the public ones (distance {self.value:.1f}, usual about 1)"
            return (
                f"{self.kind}: {begins if self.kind == Turn.BEGINS else 'texts look as before'}, window {self.window}"
            )
        usual = "" if self.usual is None else f", usual {self.usual:.1%}"
        return f"{self.kind}: {self.topic} {self.value:.1%}{usual}, window {self.window}"


@dataclass
class Watch:
    """Takes one text after the other and remembers counts.

    Args:
        settings: the monitor's file.
        confusion: of the classifier, on public records.
        reference: what public texts look like; None: drift is not looked for.
        tell: is given each notice.
    """

    settings: MonitorSettings
    confusion: Confusion = NO_ERRORS
    reference: Reference | None = None
    tell: Callable[[Notice], None] = lambda notice: None
    clock: Callable[[], float] = time.time
    topics: dict[str, Topic] = field(default_factory=dict)
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=50))
    drifts: deque[Drift] = field(default_factory=lambda: deque(maxlen=SHOWN))
    inputs: Alarm = field(init=False)
    texts: int = 0
    bad_lines: int = 0
    windows: int = 0
    _vectors: list[Vectors] = field(default_factory=list)
    _drifted: int = 0

    def __post_init__(self) -> None:
        self.inputs = Alarm(self.settings.limits.calm)
        for name in [*self.settings.topics, OTHER] if self.settings.topics else [ALL]:
            self.topics[name] = Topic(name, self.settings.limits, self.confusion)

    def see(self, yes: bool, topic: str = "", source: str = "", vector: Vectors | None = None) -> bool:
        """One text; whether a window is full by it.

        | topic | counts for |
        |---|---|
        | one of ``settings.topics`` | it |
        | any other, none | ``other`` |
        | no topics in the settings | ``all`` |
        """
        self.texts += 1
        watched = self.topics.get(topic) or self.topics.get(OTHER) or self.topics[ALL]
        window = watched.see(yes, source)
        if window is not None:
            self.windows += 1
            self._note(window.turn, watched.name, window.number, window.rate, watched.usual)
        return self._see_input(vector) or window is not None

    def _see_input(self, vector: Vectors | None) -> bool:
        if self.reference is None or vector is None:
            return False
        self._vectors.append(vector)
        if len(self._vectors) < self.settings.limits.window:
            return False
        drift = self.reference.drift(np.stack(self._vectors))
        self._vectors, self._drifted = [], self._drifted + 1
        self.drifts.append(drift)
        level = np.log(max(drift.chance, 1e-300)) / np.log(self.settings.limits.drift_chance)
        self._note(self.inputs.see(float(level), drift.chance >= LIKELY), INPUTS, self._drifted, drift.distance, None)
        return True

    def _note(self, turn: Turn, topic: str, window: int, value: float, usual: float | None) -> None:
        if turn == Turn.NONE:
            return
        notice = Notice(turn.value, topic, window, value, usual, self.clock())
        self.notices.append(notice)
        self.tell(notice)

    @property
    def alarmed(self) -> list[str]:
        """Topics, and inputs, with an alarm that is not over."""
        states = {**{name: one.alarm.state for name, one in self.topics.items()}, INPUTS: self.inputs.state}
        return [name for name, state in states.items() if state in (State.ALARM, State.HOLD)]
