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
from collections.abc import Iterable, Iterator

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE, FIRST_NODE = 1, 2


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
        self._names, self._first = list(sites), FIRST_NODE
        self._contexts: dict[int, Context] = {}
        """Of the nodes whose app has left something in its context; the others' are made anew each time."""
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
        return range(self._first, self._first + len(self._names))

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
        context, own = self._context(message), numbered_copy(message, number)
        if context is None:
            return no_such_node(message)
        reply = answered(self._app, own, context)
        if context.state:
            self._contexts[context.node_id] = context
        return reply

    def _context(self, message: Message) -> Context | None:
        """What Flower would tell the node that the message goes to; None: there is no such node."""
        node = message.metadata.dst_node_id
        place = node - self._first
        if not 0 <= place < len(self._names):
            return None
        config: dict[str, bool | float | int | str] = {"partition-id": place, "num-partitions": len(self._names)}
        config["site-name"] = self._names[place]
        context = self._contexts.get(node)
        return context or Context(self._run.run_id, node, node_config=config, state=RecordDict(), run_config={})


def numbered_copy(message: Message, number: str) -> Message:
    """The message under a number, with records of its own: strategies put one in all, and mods take from it."""
    message.metadata.__dict__["_message_id"] = number
    own = copy.copy(message)
    own.content = RecordDict(dict(message.content))
    return own


def answered(app: ClientApp, message: Message, context: Context) -> Message:
    """What the app makes of a message; an app that raises gives an error reply."""
    try:
        return _numbered(app(message, context))
    except Exception as error:
        return broken(message, f"{type(error).__name__}: {error}")


def broken(message: Message, reason: str) -> Message:
    """The reply of a node whose app gave none."""
    return _numbered(Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message))


def no_such_node(message: Message) -> Message:
    """The reply in place of a node that is not there."""
    return _numbered(Message(Error(ErrorCode.NODE_UNAVAILABLE, "there is no such node"), reply_to=message))


def _numbered(reply: Message) -> Message:
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return reply
