"""One topic of a stream: its windows, what was usual, and whether it has changed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmchain_fl.monitor.adwin import Adwin
from llmchain_fl.monitor.cusum import EDGE, Cusum
from llmchain_fl.monitor.rates import NO_ERRORS, Confusion, highest_rate
from llmchain_fl.monitor.settings import Limits
from llmchain_fl.monitor.states import Alarm, State, Turn

BASE_CHANCE = 5e-4
"""That the usual rate is higher than the one that is used."""
SHOWN = 200
"""Windows that the page shows."""


@dataclass(frozen=True)
class Window:
    """One that is full.

    Attributes:
        number: from 1.
        observed: share of texts that were said to be of a watched label.
        rate: the same, corrected for the classifier's errors.
        passed_over: texts of a source that had its share already.
    """

    number: int
    observed: float
    rate: float
    passed_over: int
    level: float
    state: State
    turn: Turn


@dataclass
class Topic:
    """Counts alone: no text, and no source beyond the window that is being filled.

    | case | what |
    |---|---|
    | a source posts more than its share | passed over; the window waits for others |
    | ``base_rate`` is given | no warm-up |
    | the warm-up had no yes, or only yes | the exact interval's end, 1 at most: then no rise can be seen, state ok |
    """

    name: str
    limits: Limits
    confusion: Confusion = NO_ERRORS
    windows: deque[Window] = field(default_factory=lambda: deque(maxlen=SHOWN))
    base: float | None = None
    """The usual observed rate at most (of the direction that is watched)."""
    alarm: Alarm = field(init=False)
    _cusum: Cusum | None = None
    _adwin: Adwin | None = None
    _texts: list[bool] = field(default_factory=list)
    _sources: Counter[str] = field(default_factory=Counter)
    _passed: int = 0
    _count: int = 0
    _warm: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.alarm = Alarm(self.limits.calm)
        if self.limits.adwin_delta:
            self._adwin = Adwin(self.limits.adwin_delta)
        if self.limits.base_rate is not None:
            self._begin(self._turned(self.confusion.observed(self.limits.base_rate)))
        else:
            self.alarm.state = State.WARM_UP

    def see(self, yes: bool, source: str) -> Window | None:
        """One text; the window that is full by it."""
        if source and self._sources[source] >= self.limits.per_source:
            self._passed += 1
            return None
        if source:
            self._sources[source] += 1
        self._texts.append(yes)
        return self._full() if len(self._texts) == self.limits.window else None

    @property
    def usual(self) -> float | None:
        """The usual rate at most (a fall: at least), corrected; None during the warm-up."""
        return None if self.base is None else self.confusion.corrected(self._turned(self.base))

    def _turned(self, rate: float) -> float:
        """Of a fall, the rate of the other labels: it rises."""
        return rate if self.limits.direction == "rise" else 1 - rate

    def _full(self) -> Window:
        texts = [one if self.limits.direction == "rise" else not one for one in self._texts]
        level, turn = self._judged(texts)
        observed = sum(self._texts) / len(self._texts)
        self._count += 1
        window = Window(
            self._count, observed, self.confusion.corrected(observed), self._passed, level, self.alarm.state, turn
        )
        self.windows.append(window)
        self._texts, self._passed = [], 0
        self._sources.clear()
        return window

    def _judged(self, texts: Sequence[bool]) -> tuple[float, Turn]:
        rose, yes = self._adwin.see(texts) if self._adwin else False, sum(texts)
        if self._cusum is None or self.base is None:
            self._warm = (self._warm[0] + yes, self._warm[1] + len(texts))
            if self._warm[1] >= self.limits.warm_up * self.limits.window:
                self._begin(highest_rate(*self._warm, BASE_CHANCE))
            return 0.0, Turn.NONE
        level = self._cusum.see(yes, len(texts))
        calm = yes / len(texts) <= self.base + self._step / 2
        turn = self.alarm.see(level, calm, rose)
        if turn == Turn.OVER:
            self._cusum.reset()
        return level, turn

    @property
    def _step(self) -> float:
        return self.limits.least_change * self.confusion.gap

    def _begin(self, base: float) -> None:
        self.base, self.alarm.state = min(base, 1 - 2 * EDGE), State.OK
        after = min(self.base + self._step, (1 + self.base) / 2)
        self._cusum = Cusum(self.base, after, self.limits.between)
