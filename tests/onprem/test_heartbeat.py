"""The heartbeat: each row of its table."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from llmchain_fl.onprem.heartbeat import Heartbeat


def beaten(beat: Callable[[], bool], until: Callable[[], bool]) -> Heartbeat:
    with Heartbeat(beat, every=0.01) as heart:
        end = time.monotonic() + 5
        while not until() and time.monotonic() < end:
            time.sleep(0.005)
    return heart


def test_it_beats_for_as_long_as_its_block_runs() -> None:
    beats: list[int] = []
    heart = beaten(lambda: bool(beats.append(1) or True), lambda: len(beats) >= 3)
    seen = len(beats)
    time.sleep(0.05)
    assert (heart.lost, len(beats)) == (False, seen)


def test_a_task_that_is_no_longer_ours_is_lost_without_a_signal_to_this_process() -> None:
    beats: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: pytest.fail("a signal"))
    try:
        heart = beaten(lambda: bool(beats.append(1)), lambda: bool(beats))
    finally:
        signal.signal(signal.SIGINT, before)
    assert heart.lost
    assert len(beats) == 1


def test_a_beat_that_raises_is_tried_again() -> None:
    beats: list[int] = []

    def beat() -> bool:
        beats.append(1)
        if len(beats) < 3:
            raise RuntimeError("no connection")
        return True

    heart = beaten(beat, lambda: len(beats) >= 4)
    assert not heart.lost
    assert len(beats) >= 4
