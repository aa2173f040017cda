"""A grid around Flower's own that fetches replies one by one.

Flower 1.41 fetches all replies of a round in one call and unpacks them there: one that a site has pushed past its
ClientApp, and that cannot be unpacked, raises out of that call, takes the others with it and ends the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

from server.grid_around import GridAround

log = logging.getLogger("llmchain_fl")
PAUSE = 3.0
"""Seconds between two looks for replies; Flower's own."""
SLACK = 30.0
"""Seconds that a message lives on after ``timeout``, for clocks that differ. Flower's own is 12 hours: a site that was
away would find every round that it missed in the queue."""


class OneByOne(GridAround):
    """Hands replies on as they come, and leaves out those that cannot be unpacked.

    ========================================  ================================================================
    a look for one reply                      then
    ========================================  ================================================================
    it has come                               it is handed on
    it has not                                it is looked for again until ``timeout``
    the network or the SuperLink failed       the error rises (httpx, OSError): that is nobody's reply
    any other exception                       the reply is dropped; for the caller that site gave no answer
    ========================================  ================================================================

    Args:
        grid: the grid that Flower made.
        pause: seconds between two looks.
    """

    def __init__(self, grid: Grid, pause: float = PAUSE) -> None:
        super().__init__(grid)
        self._pause = pause

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies one by one; see the class. A question is worth nothing once nobody waits for its answer."""
        questions = list(messages)
        if timeout is not None:
            for message in questions:
                message.metadata.ttl = timeout + SLACK
        waiting = list(self._grid.push_messages(questions))
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while waiting:
            left = []
            for number in waiting:
                replies = self._look(number)
                left += [number] if replies == [] else []
                yield from replies or ()
            waiting = left
            if time.monotonic() > end:
                break
            if waiting:
                time.sleep(self._pause)

    def _look(self, number: str) -> list[Message] | None:
        """The reply to message ``number``; [] if it has not come, None if it is none."""
        try:
            return list(self._grid.pull_messages([number]))
        except (httpx.HTTPError, OSError):
            raise
        except Exception as error:
            log.warning("a reply cannot be unpacked and is left out: %s", type(error).__name__)
            return None
