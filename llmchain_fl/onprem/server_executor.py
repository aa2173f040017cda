"""The coordinator's executor: each ServerApp is played in a fork of a process that has imported everything already.

A ServerApp that imports torch under its own heartbeat is what kills runs on a busy machine. What plays is the installed
``server.app``; of the bundle only the settings are read. No GPU may be touched before the fork: a CUDA context does not
survive it.

====================================  =======================================================
case                                  outcome
====================================  =======================================================
a task                                a fork plays it, others may be played beside it
CUDA was touched in this process      RunError before the fork; the supervisor starts anew
a fork ends                           its number and exit code are logged
the executor is killed                runs under way go on: they watch the supervisor alone
the supervisor is gone                this process and its forks end
====================================  =======================================================
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Protocol

from llmchain_fl.core.errors import RunError
from llmchain_fl.onprem.waiting_work import work_from

log = logging.getLogger("llmchain_fl.coordinator")
PAUSE = 0.3


class Tokens(Protocol):
    """Where tasks come from."""

    def token(self) -> tuple[str, str] | None: ...


class ServerExecutor:
    """Forks for each task.

    Args:
        play: plays the task with this token in the forked process.
        touched: whether CUDA has been touched in this process.
        fork, sleep: of the machine.
    """

    def __init__(
        self,
        play: Callable[[str], None],
        touched: Callable[[], bool],
        fork: Callable[[], int] = os.fork,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._play, self._touched, self._fork, self._sleep = play, touched, fork, sleep

    def serve(self, tokens: Tokens, going: Callable[[], bool]) -> None:
        """Ask for runs and play them, for as long as ``going()``."""
        for _, token in work_from("SuperLink", lambda: self._next(tokens), going, log, self._sleep, PAUSE):
            self.start(token)

    def _next(self, tokens: Tokens) -> tuple[str, str] | None:
        self._reap()
        return tokens.token()

    def start(self, token: str) -> int:
        """Fork, and play there; the number of the new process."""
        if self._touched():
            raise RunError(
                "CUDA was touched before the fork", remedy="see what imports it: a run could not use the GPU"
            )
        sys.stdout.flush()
        sys.stderr.flush()
        child = self._fork()
        if child:
            log.info("a run is played by process %d", child)
            return child
        os._exit(self._played(token))

    def _played(self, token: str) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        logging.getLogger("llmchain_fl").handlers.clear()  # the ServerApp brings its own
        try:
            self._play(token)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except BaseException as fault:
            log.error("the run's process failed: %s", type(fault).__name__)
            return 1
        return 0

    def _reap(self) -> None:
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                log.info("the run of process %d ended with exit code %d", ended[0], os.waitstatus_to_exitcode(ended[1]))
        except ChildProcessError:
            return
