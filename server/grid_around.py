"""A grid around another one: hands everything on to it, so that a subclass says only what it does otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class GridAround(Grid):
    """Hands everything on to ``grid``; ``send_and_receive`` is its subclasses'."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.at_once: int = getattr(grid, "at_once", 1)
        """How many messages may be entered in a log by one write: several where all sites are in this process."""

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
        """Nodes that are connected."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The same with the names of their keys."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to Flower."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there."""
        return self._grid.pull_messages(message_ids)
