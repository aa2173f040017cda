"""What every process of a supervisor does first: end when the supervisor is gone, and write its log line by line."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

ORPHANED = 3


def end_with(parent: int, end: Callable[[int], None] = os._exit, every: float = 1.0) -> None:
    """End this process within a second after ``parent`` has, however that came about."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        end(ORPHANED)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def begin_log() -> None:
    """This project's log on standard error, with the time; Flower's own log stays as it is."""
    handler, ours = logging.StreamHandler(sys.stderr), logging.getLogger("llmchain_fl")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    logging.getLogger("flwr").propagate = False  # it has a handler of its own
