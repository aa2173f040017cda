"""How an executor waits for work: what both of them do between two tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
AFTER_FAULT = 2.0
"""Seconds after a question that failed."""


def work_from(
    whom: str,
    ask: Callable[[], T | None],
    going: Callable[[], bool],
    log: logging.Logger,
    sleep: Callable[[float], None],
    pause: float,
) -> Iterator[T]:
    """Each piece of work that ``ask`` finds, for as long as ``going()``.

    ==================================================  =====================================================
    a question                                          then
    ==================================================  =====================================================
    finds work                                          it is handed on
    finds none                                          asked again after ``pause`` seconds
    raises: ``whom`` restarts, or is not up yet         said once in the log, asked again after ``AFTER_FAULT``
    ==================================================  =====================================================
    """
    said = ""
    while going():
        try:
            work = ask()
        except Exception as fault:
            text = f"no work from the {whom}: {type(fault).__name__}"
            log.log(logging.INFO if text != said else logging.DEBUG, text)
            said = text
            sleep(AFTER_FAULT)
            continue
        said = ""
        if work is None:
            sleep(pause)
        else:
            yield work
