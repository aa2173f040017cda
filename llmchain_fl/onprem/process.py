"""A process of the supervisor: a group of its own, its output passed on line by line, the last lines kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO

KEPT = 40
"""Last lines of the output that are looked at when it ends."""


class RealProcess:
    """Starts ``command``; Ctrl-C at the terminal does not reach it, the supervisor ends it."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._popen = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._pump = threading.Thread(target=self._pass_on, args=(name, self._popen.stdout), daemon=True)
        self._pump.start()

    def _pass_on(self, name: str, output: IO[bytes] | None) -> None:
        for line in output or ():
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            if text:
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(f"[{name}] {text}\n")
                    sys.stderr.flush()

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        return self._popen.pid

    def ended(self) -> int | None:
        """Its exit code, None while it lives."""
        code = self._popen.poll()
        if code is not None and self._pump.is_alive():
            self._pump.join(timeout=0.3)  # what it has started may still hold the pipe
        return code

    def tail(self) -> Sequence[str]:
        """The last lines of its output."""
        return tuple(self._lines)

    def terminate(self) -> None:
        """Ask it, and what it started, to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and what it started."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=5)

    def gone(self) -> bool:
        """Whether nothing of it is left."""
        self._popen.poll()
        try:
            os.killpg(self._popen.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)
