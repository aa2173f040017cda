"""A grid around Flower's own: replies in the order asked, and a wait that can be ended.

Flower hands replies on in the order in which sites finish, which differs from run to run and shows in the last digits
of a sum; and nothing can end its waiting for a reply.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message, MessageType
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from llmchain_fl.progress import Progress
from llmchain_fl.run_ends import RunPaused
from server.grid_around import GridAround

PAUSE = 0.05
"""Seconds between two looks for replies."""

log = logging.getLogger("llmchain_fl")


@dataclass
class Stop:
    """Set by Ctrl-C. A plain value: a signal handler must not take a lock."""

    wanted: bool = False


class OrderedGrid(GridAround):
    """Flower's grid of a simulation: replies are handed on in the order asked, and waiting can be ended.

    Args:
        grid: the grid that Flower made.
        stop: ends the run at the next look.
        progress: told of every reply to a train message.
    """

    def __init__(self, grid: Grid, stop: Stop, progress: Progress) -> None:
        super().__init__(grid)
        self._stop, self._progress = stop, progress

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are registered by now.

        Raises:
            RunPaused: the run was stopped.
        """
        self._go_on()
        return super().get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The same, with the names of their keys."""
        self._go_on()
        return super().get_nodes()

    def _go_on(self) -> None:
        if self._stop.wanted:
            raise _stopped()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies one by one, in the order of ``messages``; those that are missing after ``timeout`` are left out.

        Who is asked its name is being started on this machine: that takes as long as it takes.

        Raises:
            RunPaused: the run was stopped.
        """
        questions = list(messages)
        named = any(message.metadata.message_type == MessageType.QUERY for message in questions)
        end = float("inf") if timeout is None or named else time.monotonic() + timeout
        ids = list(self._grid.push_messages(questions))
        come: dict[str, Message] = {}
        missing, given = set(ids), 0
        while missing:
            for reply in self._grid.pull_messages(missing):
                come[reply.metadata.reply_to_message_id] = reply
                if reply.metadata.message_type == MessageType.TRAIN:
                    self._progress.site_finished("", 0, 0.0)
            missing -= come.keys()
            while given < len(ids) and ids[given] in come:
                yield come.pop(ids[given])
                given += 1
            if time.monotonic() > end:
                break
            if missing:
                self._go_on()
                time.sleep(PAUSE)
        yield from (come[number] for number in ids if number in come)


def _stopped() -> RunPaused:
    log.warning("stopping as soon as the sites at work are done; Ctrl-C once more breaks them off")
    return RunPaused("the simulation was stopped", remedy="every finished round is kept")
