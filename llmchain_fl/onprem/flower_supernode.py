"""Where Flower's SuperNode waits for ever, or longer than it need; mended before it starts. One message at a time.

==============================================  ==============================  ========================================
what happens                                    Flower alone                    here
==============================================  ==============================  ========================================
a run is stopped while the objects of its       task and message stay; an       what Flower does where objects cannot be
message are fetched                             executor waits for objects      fetched: both are dropped, and the task
                                                that never come                 has failed
an executor is killed between a reply and the   the SuperNode waits for the     after ``PATIENCE`` seconds the reply is
last of its objects                             one that is missing             dropped, and it goes on; for the server
                                                                                the site is lost in this round
there is no message                             it looks again after 3 s        after ``LOOK`` seconds
==============================================  ==============================  ========================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal as inside

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds without the next object of a reply."""
LOOK = 1.0
"""Seconds between two looks for a message: a round waits for one at its start and at its end."""
TAKES, SENDS, CLOCK = "_pull_and_store_message", "_push_messages", "time"


class RunStopped(Exception):
    """The run was stopped while its message was fetched."""


class ReplyIncomplete(Exception):
    """An object of a reply does not come."""


class PatientStore:
    """Flower's store of objects, which tells of one that does not come.

    Args:
        store: Flower's.
        clock: in seconds.
    """

    def __init__(self, store: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock, self._since = store, clock, dict[str, float]()

    def get(self, number: str) -> bytes | None:
        """An object; b"" while it is awaited.

        Raises:
            ReplyIncomplete: for longer than ``PATIENCE``.
        """
        content: bytes | None = self._store.get(number)
        now = self._clock()
        if content == b"" and now - self._since.setdefault(number, now) > PATIENCE:
            raise ReplyIncomplete
        return content

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Watch:
    """The module ``time`` as Flower sees it: no sleep is longer than ``LOOK``."""

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(min(seconds, LOOK))

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def fails_where_stopped(call: Callable[..., T]) -> Callable[..., T]:
    """``call``, with the end of the run as a failure like any other."""

    def mended(*words: Any) -> T:
        try:
            return call(*words)
        except RunNotRunningException:
            raise RunStopped from None

    return mended


def mend() -> None:
    """Put all in place, for the SuperNode of this process."""
    take, send = getattr(inside, TAKES), getattr(inside, SENDS)

    def taken(*, pull_object: Callable[..., Any], confirm_message_received: Callable[..., Any], **parts: Any) -> Any:
        return take(
            pull_object=fails_where_stopped(pull_object),
            confirm_message_received=fails_where_stopped(confirm_message_received),
            **parts,
        )

    def sent(*, object_store: Any, **parts: Any) -> None:
        send(object_store=PatientStore(object_store), **parts)

    setattr(inside, CLOCK, Watch())
    setattr(inside, TAKES, taken)
    setattr(inside, SENDS, sent)
