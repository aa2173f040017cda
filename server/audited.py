"""The coordinator's half of the audit log: every task that goes to a site, and what comes back, in one place.

A grid around the run's own. A line is on the disk before a task goes out, and before a reply is looked at. Where a site
gives no answer in time, a line says so; a task without either was open when the server died.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from llmchain_fl import __version__
from llmchain_fl.audit_log import read_log
from llmchain_fl.core.audit import AuditLog, by_whom
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.fingerprint import decision_of, fingerprint, place_of, work_of
from llmchain_fl.core.printable import printable
from llmchain_fl.run_dir import RunDir
from server.grid_around import GridAround
from server.state import RunState


class AuditedGrid(GridAround):
    """Hands everything on to ``grid``, and enters it.

    Args:
        grid: the grid of the run.
        run: whose log it is.
        state: who the nodes are.
    """

    def __init__(self, grid: Grid, run: RunDir, state: RunState) -> None:
        super().__init__(grid)
        self._run, self._state = run, state
        self._log = audit_log(run)
        self._policy = policy_of(run)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Nobody here sends without waiting for replies: it would not be entered.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("every message goes through send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See :meth:`push_messages`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("every message goes through send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies as they come; the lines that tell of them are written first."""
        told = list(messages)
        waiting = {message.metadata.dst_node_id: self._asked(message) for message in told}
        asked = dict(waiting)
        for reply in self._grid.send_and_receive(told, timeout=timeout):
            node = reply.metadata.src_node_id
            waiting.pop(node, None)
            if node in asked:
                self._received(node, reply, asked[node])
            yield reply
        for node, place in waiting.items():
            self._enter("lost", node, **place)

    def _asked(self, message: Message) -> dict[str, Any]:
        """Enter a task. Returns what the line of its end repeats."""
        task = fingerprint(message.content)
        place = {**place_of(message), "task": task.sha256}
        node, work = message.metadata.dst_node_id, work_of(message.content)
        self._enter("asked", node, **place, task_bytes=task.size, work=work)
        return place

    def _received(self, node: int, reply: Message, place: Mapping[str, Any]) -> None:
        """Enter what came back; nothing of it is believed."""
        if reply.has_error():
            return self._enter("received", node, **place, decision="failed", reply="", reply_bytes=0)
        found, claims = fingerprint(reply.content), ""
        if place["kind"] == MessageType.QUERY and "config" in reply.content.config_records:
            claims = printable(str(reply.content.config_records["config"].get("site", "")))[:64]
        told = {"decision": decision_of(reply.content), "reply": found.sha256, "reply_bytes": found.size}
        return self._enter("received", node, claims, **place, **told)

    def _enter(self, type_: str, node: int, claims: str = "", /, **values: Any) -> None:
        """``claims``: the name that a node gives itself, for one that is no site of the run yet."""
        names = {number: name for name, number in self._state.nodes.items()}
        self._log.enter(type_, self._policy, site=names.get(node, claims), node=node, **values)


@contextmanager
def entered(run: RunDir) -> Iterator[None]:
    """Enter that the run is played, and why it ended; a log that cannot be believed is not gone on with.

    Raises:
        PrivacyError: a line was changed since it was written; ``llmchain-fl audit-log verify`` says which.
    """
    log, policy, why = audit_log(run), policy_of(run), "interrupted"
    read_log(log.file)
    log.enter("started", policy, by=by_whom(), version=__version__)
    try:
        yield
        why = "done"
    except LlmchainError as error:
        why = error.code
        raise
    except Exception:
        why = LlmchainError.code
        raise
    finally:
        log.enter("stopped", policy, by=by_whom(), why=why)


def audit_log(run: RunDir) -> AuditLog:
    """The coordinator's log of a run."""
    return AuditLog(run.audit, "coordinator", run.path.name)


def policy_of(run: RunDir) -> str:
    """SHA-256 of the run's settings."""
    return hashlib.sha256(run.config.read_bytes()).hexdigest()
