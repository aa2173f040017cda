"""Telling Flower that a task is being worked on, from a thread that can do no harm to the work."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

EVERY = 10.0
"""Seconds between two beats; Flower gives a task up after a minute without one."""


class Heartbeat:
    """Beats while its block runs; ``lost``: Flower has given the task up.

    ================================  ========================================
    a beat                            then
    ================================  ========================================
    the task is ours                  the next one after ``every``
    the task is no longer ours        ``lost``, and no further beat
    anything is raised                the next one after ``every``
    ================================  ========================================

    Nothing is raised, and no signal is sent, in any of these cases: the work goes on and its answer is sealed.
    """

    def __init__(self, beat: Callable[[], bool], every: float = EVERY) -> None:
        self._beat, self._every, self._over = beat, every, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=self._every)

    def _run(self) -> None:
        while not self._over.is_set() and not self.lost:
            with contextlib.suppress(Exception):  # the next beat may come through
                self.lost = not self._beat()
            self._over.wait(self._every)
