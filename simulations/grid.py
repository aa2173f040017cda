"""A Flower ``Grid`` that runs every site in this process, one after the other, over one resident base model.

No server to start, no process, no network, no copy of the base for each site. Messages are the same objects that
travel between a SuperLink and its SuperNodes, made and read by the same code; only the transport is missing.
``send_and_receive`` is lazy: a site trains when its reply is asked for, so the server's running sum holds one update.

Written against flwr 1.41: ``Message`` reads the task identity of its process, a private name that is set here and
nowhere else (``tests/simulations/test_grid.py`` fails if it moves).
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE = 1


class InProcessGrid(Grid):
    """Nodes ``2 .. n+1``, one for each site, all served by one ``ClientApp``.

    Args:
        client_app: the app that every site runs.
        sites: site names; node N's context has ``partition-id`` N-2 and ``site-name``.
        run_id: Flower's number of the run.
    """

    def __init__(self, client_app: ClientApp, sites: Iterable[str], run_id: int = 1) -> None:
        self._app = client_app
        self._run = Run.create_empty(run_id)
        names = list(sites)
        self._contexts: Mapping[int, Context] = {
            number + 2: Context(
                run_id=run_id,
                node_id=number + 2,
                node_config={"partition-id": number, "num-partitions": len(names), "site-name": name},
                state=RecordDict(),
                run_config={},
            )
            for number, name in enumerate(names)
        }
        self._waiting: dict[str, Message] = {}
        self._identify()

    def _identify(self) -> None:
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SERVER_NODE
        TaskIdentity.task_id = 1

    def set_run(self, run: Run) -> None:
        """Flower's hook."""
        self._run = run
        self._identify()

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Every site is always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled."""
        ids = []
        for message in messages:
            number = uuid.uuid4().hex
            self._waiting[number] = message
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the sites whose replies are asked for."""
        return [self._deliver(self._waiting.pop(number), number) for number in message_ids if number in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies one by one; each site works when its reply is taken. There is nothing to wait for, so no timeout."""
        for message in messages:
            yield self._deliver(message, uuid.uuid4().hex)

    def _deliver(self, message: Message, number: str) -> Message:
        """One site's reply. As in Flower, a ClientApp that raises and a node that is not there give error replies."""
        message.metadata.__dict__["_message_id"] = number
        own = copy.copy(message)
        own.content = RecordDict(
            dict(message.content)
        )  # strategies put one record in all messages, and mods take from it
        context = self._contexts.get(message.metadata.dst_node_id)
        if context is None:
            return _numbered(Message(Error(ErrorCode.NODE_UNAVAILABLE, "there is no such node"), reply_to=message))
        try:
            return _numbered(self._app(own, context))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return _numbered(Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message))


def _numbered(reply: Message) -> Message:
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return reply
