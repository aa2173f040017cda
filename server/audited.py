"""The coordinator's half of the audit log: every task that goes to a site, and what comes back, in one place.

A grid around the run's own. A line is on the disk before a task goes out, and before a reply is looked at. Where a site
gives no answer in time, a line says so; a task without either was open when the server died.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

AT_ONCE_BYTES = 2**22
"""Replies of a simulation are held until they are this many bytes, or ``at_once``."""
Place = dict[str, Any]
Line = tuple[str, dict[str, Any]]


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
        """Replies as they come; the lines that tell of them are written first, of ``at_once`` messages by one write."""
        names = {number: name for name, number in self._state.nodes.items()}
        places: dict[int, Place] = {}
        waiting: dict[int, Place] = {}
        replies = self._grid.send_and_receive(self._asked(messages, names, places, waiting), timeout=timeout)
        for several in _in_parts(replies, self.at_once):
            lines = []
            for reply in several:
                node = reply.metadata.src_node_id
                waiting.pop(node, None)
                if node in places:
                    lines.append(_received(names, node, reply, places[node]))
            self._enter(lines)
            yield from several
        self._enter([_line(names, "lost", node, **place) for node, place in waiting.items()])

    def _asked(
        self,
        messages: Iterable[Message],
        names: Mapping[int, str],
        places: dict[int, Place],
        waiting: dict[int, Place],
    ) -> Iterator[Message]:
        """The messages, each entered before it is handed on; what the line of its end repeats goes into both tables."""
        for several in _in_parts(messages, self.at_once):
            lines = []
            for message in several:
                task, node = fingerprint(message.content), message.metadata.dst_node_id
                places[node] = waiting[node] = {**place_of(message), "task": task.sha256}
                fields = {"task_bytes": task.size, "work": work_of(message.content)}
                lines.append(_line(names, "asked", node, **places[node], **fields))
            self._enter(lines)
            yield from several

    def _enter(self, lines: Sequence[Line]) -> None:
        if lines:
            self._log.enter_all(lines, self._policy)


def _line(names: Mapping[int, str], kind: str, node: int, claims: str = "", /, **values: Any) -> Line:
    """``claims``: the name that a node gives itself, for one that is no site of the run yet."""
    return kind, {"site": names.get(node, claims), "node": node, **values}


def _received(names: Mapping[int, str], node: int, reply: Message, place: Place) -> Line:
    """What came back; nothing of it is believed."""
    if reply.has_error():
        return _line(names, "received", node, **place, decision="failed", reply="", reply_bytes=0)
    digest, claims = fingerprint(reply.content), ""
    if place["kind"] == MessageType.QUERY and "config" in reply.content.config_records:
        claims = printable(str(reply.content.config_records["config"].get("site", "")))[:64]
    fields = {"decision": decision_of(reply.content), "reply": digest.sha256, "reply_bytes": digest.size}
    return _line(names, "received", node, claims, **place, **fields)


def _in_parts(messages: Iterable[Message], most: int) -> Iterator[list[Message]]:
    """The messages, at most so many and about ``AT_ONCE_BYTES`` at a time, taken as they are needed."""
    part, size = list[Message](), 0
    for message in messages:
        part.append(message)
        held = message.content.array_records.values() if message.has_content() else ()
        size += sum(len(array.data) for arrays in held for array in arrays.values())
        if len(part) >= most or size >= AT_ONCE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


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
