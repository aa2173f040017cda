"""The supervisor: each row of its table, over processes and a clock that are not real."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmchain_fl.core.errors import RunError
from llmchain_fl.onprem.supervisor import LOOK, PATIENCE, STEADY, Part, Supervisor


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The supervisor's log, whoever has turned it away from the root before."""
    log = logging.getLogger("llmchain_fl.up")
    before = log.propagate
    log.propagate = True
    with caplog.at_level(logging.INFO, "llmchain_fl.up"):
        yield
    log.propagate = before


class Line:
    """Processes that are started one after the other; ``lives``: seconds until each ends."""

    def __init__(self, make: Any, clock: Any, lives: list[float], code: int = 0) -> None:
        self._make, self._clock, self._lives, self._code = make, clock, lives, code
        self.starts: list[float] = []
        self.made: list[Any] = []

    def start(self) -> Any:
        self.starts.append(self._clock.now)
        self.made.append(self._make())
        return self.made[-1]

    def end(self) -> None:
        for process, since, life in zip(self.made, self.starts, self._lives, strict=False):
            if process.code is None and self._clock.now >= since + life:
                process.code = self._code


def run(clock: Any, until: float, *parts: Part, each: Callable[[], None] = lambda: None) -> None:
    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        each()

    Supervisor(parts, clock, sleep).run(lambda: bool(clock.now < until))


@pytest.mark.parametrize("code", [0, 1, -9])
def test_what_ends_is_started_again_whatever_its_exit_code(clock: Any, process: Any, code: int) -> None:
    line = Line(process, clock, [5.0], code)
    run(clock, 10, Part("node", line.start), each=line.end)
    assert len(line.starts) == 2


def test_waits_grow_and_little_is_lost_after_the_minute_in_which_a_supernode_is_turned_away(
    clock: Any, process: Any
) -> None:
    line = Line(process, clock, [0.5] * 20)
    run(clock, 90, Part("node", line.start), each=line.end)
    waits = [round(b - a - 0.5) for a, b in zip(line.starts, line.starts[1:], strict=False)]
    assert waits[:6] == [1, 2, 4, 8, 10, 10]
    assert sum(start <= 60 for start in line.starts) <= 9
    assert any(60 < start < 71 for start in line.starts)


def test_a_process_that_was_up_for_a_while_is_started_again_at_once(clock: Any, process: Any) -> None:
    line = Line(process, clock, [0.5, 0.5, 0.5, STEADY + 1, 0.5])
    run(clock, 90, Part("node", line.start), each=line.end)
    assert line.starts[4] - (line.starts[3] + STEADY + 1) < 2


def test_a_part_that_cannot_be_started_yet_says_so_once_and_starts_when_it_can(
    clock: Any, process: Any, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line(process, clock, [])
    run(clock, 60, Part("node", line.start, lambda: "the clock is wrong" if clock.now < 30 else ""))
    assert len(line.starts) == 1
    assert line.starts[0] >= 30
    assert caplog.text.count("the clock is wrong") == 1


def test_the_words_of_what_it_last_said_stand_in_the_log(
    clock: Any, process: Any, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line(lambda: process(["[code: 2004] Failed to activate SuperNode."]), clock, [0.5])
    run(clock, 3, Part("node", line.start), each=line.end)
    assert "ended with exit code 0: the coordinator does not take this key now" in caplog.text


def test_it_is_greeted_once_after_each_start_and_again_until_that_works(clock: Any, process: Any) -> None:
    line, greeted = Line(process, clock, [30.0]), []

    def greet() -> None:
        greeted.append(clock.now)
        if len(greeted) == 1:
            raise RunError("a key was not taken", remedy="try again")

    run(clock, 60, Part("link", line.start, answers=lambda: clock.now > 5, answered=greet), each=line.end)
    assert len(greeted) == 3
    assert greeted[0] > 5
    assert greeted[2] > 30


@pytest.mark.parametrize("stubborn", [False, True])
def test_nothing_is_left_when_it_is_stopped(clock: Any, process: Any, stubborn: bool) -> None:
    line = Line(lambda: process(stubborn=stubborn), clock, [])
    run(clock, 5, Part("a", line.start), Part("b", line.start))
    assert all(one.gone() for one in line.made)
    assert [one.killed for one in line.made] == [stubborn, stubborn]
    assert clock.now <= 5 + 2 * LOOK + (PATIENCE + 2 * LOOK if stubborn else LOOK)


def test_what_a_dead_process_has_left_behind_is_ended_too(clock: Any, process: Any) -> None:
    """A ServerApp outlives the executor that forked it, and belongs to its group."""

    class Group(process):  # type: ignore[misc]
        left = True

        def gone(self) -> bool:
            return not self.left

        def terminate(self) -> None:
            self.left = False

    line = Line(Group, clock, [1.0])
    run(clock, 10, Part("executor", line.start), each=line.end)
    assert len(line.made) == 2
    assert not any(one.left for one in line.made)


def test_ctrl_c_stops_everything_and_is_passed_on(clock: Any, process: Any) -> None:
    line = Line(process, clock, [])

    def interrupt() -> None:
        if clock.now > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clock, 10, Part("a", line.start), each=lambda: interrupt() if line.made[0].code is None else None)
    assert line.made[0].gone()
