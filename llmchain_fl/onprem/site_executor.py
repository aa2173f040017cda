"""The site's own executor: one resident process that answers Flower's messages with the *installed* ClientApp.

Nothing of the bundle that the server sends is unpacked, imported or executed. Its SHA-256 must stand in the site file
(``[approved] bundles``): then the site takes part only in runs of a version that somebody there has read.

======================================================  ==============================================================
a task                                                  outcome
======================================================  ==============================================================
bundle approved, message in time                        the installed app's reply
bundle not approved, or the site file cannot be read    an error in place of a reply, no app is called, 0 epsilon
a task of another kind than ClientApp                   the same
nobody waits for the answer any more (its ttl is over)  the same
the app raises                                          an error without a word of what was raised
the reply is too odd to be pushed                       an error in its place
the SuperNode is not reached for a while                the task is left; Flower answers for it after a minute
the message cannot be pulled                            the same
the run was stopped meanwhile                           the reply is dropped, and nothing is pushed in its place
Flower has given the task up                            the work is sealed, and the reply is not pushed
======================================================  ==============================================================

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
        now, sleep: the clock.
    """

    def __init__(
        self,
        app: App,
        approval: Callable[[], Approval],
        client_kind: str,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._app, self._approval, self._kind = app, approval, client_kind
        self._now, self._sleep = now, sleep
        self.busy = False
        """Within a message."""

    def serve(self, tasks: Tasks, going: Callable[[], bool] = lambda: True) -> None:
        """Ask for work and answer it, for as long as ``going()``."""
        for task in work_from("SuperNode", tasks.acquire, going, log, self._sleep, PAUSE):
            self.answer(task)

    def answer(self, task: Task) -> None:
        """One task, whatever happens; see the table of the module."""
        meter, what, self.busy = Meter(), "a message", True
        try:
            with Heartbeat(task.beat) as beat:
                pulled = task.pull()
                what = _name(pulled.message)
                reply, done = self._reply(task.kind, pulled)
                if beat.lost:
                    log.warning("%s: Flower has given it up; its answer is not sent", what)
                    return
                self._push(task, pulled.message, reply)
                task.finish(done)
        except Exception as fault:
            log.error("%s: left without an answer: %s", what, type(fault).__name__)
        finally:
            self.busy = False
            task.close()
            log.info("%s: %s", what, meter.told())

    def _reply(self, kind: str, pulled: Pulled) -> tuple[Message, bool]:
        why = self._refused(kind, pulled)
        if why:
            log.error("%s is refused: %s", _name(pulled.message), why)
            return _error(pulled.message, "the site takes no part in this", refused=True), False
        try:
            return self._app(pulled.message, pulled.context), True
        except Exception as fault:  # the app answers for itself; what is raised here is Flower's
            log.error("%s: the app raised %s", _name(pulled.message), type(fault).__name__)
            return _error(pulled.message, "the site's program failed"), False

    def _refused(self, kind: str, pulled: Pulled) -> str:
        """Why nothing is done for this message; "" if it is."""
        digest = f"sha256:{hashlib.sha256(pulled.bundle).hexdigest()}"
        try:
            approval = self._approval()
        except LlmchainError as fault:
            return f"what it approves cannot be read: {fault}"
        if kind != self._kind:
            return f"a task of kind {printable(kind)}, which this site does not run"
        if not approval.allows(digest):
            return (
                f"bundle {digest} is not approved\n  -> where you have found its code right, add the digest to "
                "[approved] bundles in the site file; it counts at once"
            )
        told = pulled.message.metadata
        late = self._now() - told.created_at - told.ttl
        return f"its time ended {late:.0f} s ago" if late > 0 else ""

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
    told = message.metadata
    number = f", round {printable(told.group_id[:20])}" if told.group_id else ""
    return f"{printable(told.message_type[:40])}{number}"
