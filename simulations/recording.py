"""A grid that keeps every message: what the server of a run has ever seen of its sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from flwr.app import Message
from flwr.clientapp import ClientApp

from llmchain_fl.core.array_record import unpack
from llmchain_fl.core.secure.query import read_secure_query
from llmchain_fl.core.wire import read_train_task
from llmchain_fl.privacy.attacks.secure_view import Heard
from llmchain_fl.replies import Refusal, read_secure_reply
from llmchain_fl.secure_sum import Kind
from server.secure_sums import QUERY
from simulations.grid import InProcessGrid

STEPS: Mapping[str, Kind] = MappingProxyType(
    {"key": "key", "shares": "share", "confirm": "survivors", "unmask": "answer"}
)
"""Step of a query -> what its answer is."""


class Passed(NamedTuple):
    """A message and what came back."""

    site: str
    sent: Message
    reply: Message


class RecordingGrid(InProcessGrid):
    """An in-process grid; ``log``: all that passed, in order."""

    def __init__(self, client_app: ClientApp, sites: Iterable[str], run_id: int = 1) -> None:
        super().__init__(client_app, sites, run_id)
        self.log: list[Passed] = []

    def _deliver(self, message: Message, number: str) -> Message:
        reply = super()._deliver(message, number)
        context = self._context(message)
        self.log.append(Passed(str(context.node_config["site-name"]) if context else "", message, reply))
        return reply


def heard(log: Iterable[Passed]) -> list[Heard]:
    """What of ``log`` belongs to secure sums: keys, shares, uploads, confirmations, answers."""
    messages: list[Heard] = []
    for site, sent, reply in log:
        if reply.has_error() or "refused" in reply.content.config_records.get("config", ()):
            continue
        if sent.metadata.message_type == QUERY:
            query, answer = read_secure_query(sent.content), read_secure_reply(reply.content)
            if not isinstance(answer, Refusal):
                messages.append(Heard(STEPS[query.step], query.round, site, answer.data))
                messages += [Heard("share", query.round + 1, site, answer.more)] if answer.more else []
        elif "arrays" in reply.content.array_records:
            arrays, number = unpack(reply.content.array_records["arrays"]), read_train_task(sent.content).round
            if "sum" in arrays:
                messages.append(Heard("upload", number, site, arrays["sum"].tobytes()))
                messages.append(Heard("key", number + 1, site, arrays["key"].tobytes()))
    return messages
