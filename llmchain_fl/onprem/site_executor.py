"""The site's own executor: one resident process that answers Flower's messages with the *installed* ClientApp.

Nothing of the bundle that the server sends is unpacked, imported or executed. Its SHA-256 must stand in the site file
(``[approved] bundles``): then the site takes part only in runs of a version that somebody there has read.

======================================================  ==============================================================
a task                                                  outcome
======================================================  ==============================================================
bundle approved, message in time                        the installed app's reply
bundle not approved                                     ``bundle``: an error in place of a reply, no app is called, 0
                                                        epsilon
a task of another kind than ClientApp                   ``kind``: the same
a message of another run, or to another node            ``address``: the same
nobody waits for the answer any more (its ttl is over)  ``late``: the same
the site file cannot be read                            the same, without a line in the audit log: the file says where
                                                        it is
the app raises                                          ``failed``: an error without a word of what was raised
the message cannot be read                              ``unreadable``: the task is left; Flower answers for it after a
                                                        minute
the SuperNode is not reached for a while                the task is left
the reply is too odd to be pushed                       an error in its place
the run was stopped meanwhile                           the reply is dropped, and nothing is pushed in its place
Flower has given the task up                            the work is sealed, and the reply is not pushed
======================================================  ==============================================================

A word in the table is the decision of a line ``declined`` in the site's audit log, on the disk before the error leaves.
The site file is read anew for each message, so an approval or a limit counts at once.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message

from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.printable import printable
from llmchain_fl.onprem.heartbeat import Heartbeat
from llmchain_fl.onprem.task import NotWanted, Pulled, Task, Tasks
from llmchain_fl.onprem.waiting_work import work_from

log = logging.getLogger("llmchain_fl.site")
App = Callable[[Message, Context], Message]
PAUSE = 0.2
"""Seconds between two questions for work."""


@dataclass(frozen=True)
class Approval:
    """What the site file says now."""

    bundles: tuple[str, ...] = ()
    any: bool = False

    def allows(self, digest: str) -> bool:
        """Whether this very digest is listed."""
        return self.any or digest in self.bundles


@dataclass(frozen=True)
class Declined:
    """Why nothing is done for a message.

    Attributes:
        code: for the audit log; a word of the table of the module.
        words: for the site's own log.
    """

    code: str
    words: str


Enter = Callable[[Message | None, str, str], None]
"""Enters in the audit log: the message (None: it cannot be read), the code word, the bundle's SHA-256 ("": unknown)."""


@dataclass
class Meter:
    """What one message cost this process."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)
    modules: int = field(default_factory=lambda: len(sys.modules))

    def told(self) -> str:
        """``0.42 s, 0.31 CPU s, 0 modules imported``."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return f"{wall:.2f} s, {cpu:.2f} CPU s, {len(sys.modules) - self.modules} modules imported"


class SiteExecutor:
    """Answers tasks one after the other.

    Args:
        app: the installed ClientApp.
        approval: reads the site file.
        client_kind: what Flower calls the task of a ClientApp.
        enter: adds a line about a message that was not answered.
        now, sleep: the clock.
    """

    def __init__(
        self,
        app: App,
        approval: Callable[[], Approval],
        client_kind: str,
        enter: Enter,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._app, self._approval, self._kind = app, approval, client_kind
        self._write, self._now, self._sleep = enter, now, sleep
        self.busy = False
        """Within a message."""

    def serve(self, tasks: Tasks, going: Callable[[], bool] = lambda: True) -> None:
        """Ask for work and answer it, for as long as ``going()``."""
        for task in work_from("SuperNode", tasks.acquire, going, log, self._sleep, PAUSE):
            self.answer(task)

    def answer(self, task: Task) -> None:
        """One task, whatever happens; see the table of the module."""
        meter, name, self.busy = Meter(), "a message", True
        try:
            with Heartbeat(task.beat) as beat:
                pulled = self._pulled(task)
                name = _name(pulled.message)
                reply, done = self._reply(task.kind, pulled)
                if beat.lost:
                    log.warning("%s: Flower has given it up; its answer is not sent", name)
                    return
                self._push(task, pulled.message, reply)
                task.finish(done)
        except Exception as fault:
            log.error("%s: left without an answer: %s", name, type(fault).__name__)
        finally:
            self.busy = False
            task.close()
            log.info("%s: %s", name, meter.told())

    def _pulled(self, task: Task) -> Pulled:
        try:
            return task.pull()
        except OSError:
            raise
        except Exception:  # not reached is an OSError: this one was reached, and sent what is no message
            self._enter(None, "unreadable", "")
            raise

    def _reply(self, kind: str, pulled: Pulled) -> tuple[Message, bool]:
        digest = hashlib.sha256(pulled.bundle).hexdigest()
        why = self._refused(kind, pulled, f"sha256:{digest}")
        if why is not None:
            log.error("%s is refused: %s", _name(pulled.message), why.words)
            self._enter(pulled.message, why.code, digest)
            return _error(pulled.message, "the site takes no part in this", refused=True), False
        try:
            return self._app(pulled.message, pulled.context), True
        except Exception as fault:  # the app answers for itself; what is raised here is Flower's
            log.error("%s: the app raised %s", _name(pulled.message), type(fault).__name__)
            self._enter(pulled.message, "failed", digest)
            return _error(pulled.message, "the site's program failed"), False

    def _enter(self, message: Message | None, code: str, bundle: str) -> None:
        try:
            self._write(message, code, bundle)
        except Exception as fault:  # an error leaves either way, which says nothing
            log.error("it cannot be entered in the audit log: %s", printable(type(fault).__name__))

    def _refused(self, kind: str, pulled: Pulled, digest: str) -> Declined | None:
        """Why nothing is done for this message; None if it is."""
        metadata, context = pulled.message.metadata, pulled.context
        try:
            approval = self._approval()
        except LlmchainError as fault:
            return Declined("config", f"what it approves cannot be read: {fault}")
        if kind != self._kind:
            return Declined("kind", f"a task of kind {printable(kind)}, which this site does not run")
        if not approval.allows(digest):
            return Declined(
                "bundle",
                f"bundle {digest} is not approved\n  -> where you have found its code right, add the digest to "
                "[approved] bundles in the site file; it counts at once",
            )
        if (metadata.run_id, metadata.dst_node_id) != (context.run_id, context.node_id):
            return Declined("address", "it is of another run, or to another node")
        late = self._now() - metadata.created_at - metadata.ttl
        return Declined("late", f"its time ended {late:.0f} s ago") if late > 0 else None

    def _push(self, task: Task, message: Message, reply: Message) -> None:
        """Each message gets one reply at most: a SuperNode takes a second one for the answer to the next message."""
        try:
            task.push(reply)
        except NotWanted:
            log.info("%s: its run was stopped; nobody wants the answer", _name(message))
        except OSError:
            raise
        except Exception as fault:
            log.error("%s: the answer cannot be sent: %s", _name(message), type(fault).__name__)
            task.push(_error(message, "the site's answer cannot be sent"))


def _error(message: Message, text: str, *, refused: bool = False) -> Message:
    from llmchain_fl.onprem.flower_runtime import RAISED, REFUSED  # after Flower's version was looked at

    return Message(Error(code=REFUSED if refused else RAISED, reason=text), reply_to=message)


def _name(message: Message) -> str:
    metadata = message.metadata
    number = f", round {printable(metadata.group_id[:20])}" if metadata.group_id else ""
    return f"{printable(metadata.message_type[:40])}{number}"
