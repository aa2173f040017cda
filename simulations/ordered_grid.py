"""A grid around Flower's own: replies in the order asked, and a wait that can be ended.

Flower hands replies on in the order in which sites finish, which differs from run to run and shows in the last digits
of a sum; and nothing can end its waiting for a reply.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from llmchain_fl.core.errors import RunPaused
from llmchain_fl.progress import Progress

PAUSE = 0.05
"""Seconds between two looks for replies."""

log = logging.getLogger("llmchain_fl")


@dataclass
class Stop:
    """Set by Ctrl-C. A plain value: a signal handler must not take a lock."""

    wanted: bool = False


class OrderedGrid(Grid):
    """Flower's grid of a simulation: replies are handed on in the order asked, and waiting can be ended.

    Args:
        grid: the grid that Flower made.
        stop: ends the run at the next look.
        progress: told of every reply to a train message.
    """

    def __init__(self, grid: Grid, stop: Stop, progress: Progress) -> None:
        self._grid, self._stop, self._progress = grid, stop, progress

    def set_run(self, run: Run) -> None:
        """Flower's hook."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are registered by now.

        Raises:
            RunPaused: the run was stopped.
        """
        if self._stop.wanted:
            raise _stopped()
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to Flower."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies one by one, in the order of ``messages``; those that are missing after ``timeout`` are left out.

        Who is asked its name is being started on this machine: that takes as long as it takes.

        Raises:
            RunPaused: the run was stopped.
        """
        told = list(messages)
        named = any(message.metadata.message_type == MessageType.QUERY for message in told)
        end = float("inf") if timeout is None or named else time.monotonic() + timeout
        asked = list(self._grid.push_messages(told))
        come: dict[str, Message] = {}
        missing, given = set(asked), 0
        while missing:
            for reply in self._grid.pull_messages(missing):
                come[reply.metadata.reply_to_message_id] = reply
                if reply.metadata.message_type == MessageType.TRAIN:
                    self._progress.site_finished("", 0, 0.0)
            missing -= come.keys()
            while given < len(asked) and asked[given] in come:
                yield come.pop(asked[given])
                given += 1
            if time.monotonic() > end:
                break
            if missing and self._stop.wanted:
                raise _stopped()
            if missing:
                time.sleep(PAUSE)
        yield from (come[number] for number in asked if number in come)


def _stopped() -> RunPaused:
    log.warning("stopping as soon as the sites at work are done; Ctrl-C once more breaks them off")
    return RunPaused("the simulation was stopped", remedy="every finished round is kept")
