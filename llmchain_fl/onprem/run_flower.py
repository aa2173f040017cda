"""Flower's SuperNode or SuperLink in a process that ends when its work has; started by ``site up``, ``coordinator up``.

A SuperNode may live on for ever without a connection: its main thread gives up after a fault of TLS, and a thread
that serves the executor keeps the process. Here the process ends in each case of the table, and the supervisor, which
watches processes, starts it again.

============================================================  ===========
the process                                                   exit code
============================================================  ===========
was asked to stop                                             0
ended by itself                                               as it ended
gave up its connection: its main thread returned              ``LOST``
SuperNode: lost a thread to an exception (its heartbeat)      ``LOST``
... heard nothing from the SuperLink for ``QUIET`` seconds    ``LOST``
its supervisor is gone                                        ``ORPHANED``
============================================================  ===========

What it hears is read from the log of ``httpx``, which has a line for each answer; a SuperNode sends a heartbeat every
20 seconds whatever else it does.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import entry_points

from llmchain_fl.onprem.child import begin_log, end_with
from llmchain_fl.onprem.flower_version import check_flower

log = logging.getLogger("llmchain_fl.flower")
LOST = 75
QUIET = 300.0


class Contact(logging.Handler):
    """When the SuperLink last answered; a handler for the log of ``httpx``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.INFO)
        self._clock, self.last = clock, clock()

    def emit(self, record: logging.LogRecord) -> None:
        """A line for one answer: method, address, version, status, words."""
        fields = record.args if isinstance(record.args, tuple) else ()
        if len(fields) >= 4 and isinstance(fields[3], int) and fields[3] < 500:
            self.last = self._clock()

    def quiet(self) -> float:
        """Seconds without an answer."""
        return self._clock() - self.last


def play(program: Callable[[], object]) -> int:
    """Run the main function of a program; the exit code of the table."""
    try:
        program()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as fault:
        log.error("it failed: %s", type(fault).__name__)
        return LOST
    log.error("it gave up its connection")
    return LOST


def watch(contact: Contact, limit: float, end: Callable[[int], None]) -> None:
    """End the process where the SuperLink has been silent for longer than ``limit``, or a thread has died."""

    def died(args: threading.ExceptHookArgs) -> None:
        log.error("the SuperNode lost its %s: %s", getattr(args.thread, "name", "thread"), args.exc_type.__name__)
        end(LOST)

    def look() -> None:
        while contact.quiet() <= limit:
            time.sleep(1.0)
        log.error("the coordinator has not answered for %.0f s", contact.quiet())
        end(LOST)

    threading.excepthook = died
    threading.Thread(target=look, name="contact", daemon=True).start()


def main() -> None:
    """``--parent PID flower-supernode ARGUMENTS``, or ``flower-superlink``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("program", choices=("flower-supernode", "flower-superlink"))
    parser.add_argument("words", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    end_with(options.parent)
    begin_log()
    check_flower()
    program = next(iter(entry_points(group="console_scripts", name=options.program))).load()
    sys.argv = [options.program, *options.words]
    if options.program == "flower-supernode":
        from llmchain_fl.onprem.flower_supernode import mend  # after Flower's version was looked at

        mend()
        contact, heard = Contact(), logging.getLogger("httpx")
        heard.addHandler(contact)
        heard.setLevel(logging.INFO)
        heard.propagate = False
        watch(contact, QUIET, os._exit)
    code = play(program)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
