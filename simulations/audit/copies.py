"""What a restarted, cloned or restored program would do: the same work in copies of this very process.

A copy starts with every bit of memory that this process has, so any generator with a state gives all copies the same
numbers: the worst case of a restart with the same seed, of a virtual machine set back, of a forked worker.
"""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from llmchain_fl.core.errors import TrainingError

Floats = npt.NDArray[np.float64]

PATIENCE = 120.0


def in_a_copy(work: Callable[[], Floats]) -> Floats:
    """``work()`` done in a forked copy of this process; its array comes back through a pipe. POSIX only.

    The caller keeps torch at one thread: a copy has no others.

    Raises:
        TrainingError: the copy failed or did not end within PATIENCE seconds.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, fork may lead to deadlocks": one is used
        child = os.fork()
    if child == 0:
        _answer(work, read, write)
    os.close(write)
    try:
        data = _everything(read)
    except TrainingError:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(read)
        code = os.waitpid(child, 0)[1]
    if code:
        raise TrainingError("the copy of the process failed", remedy="run the check alone and read its log")
    return np.frombuffer(data, dtype=np.float64)


def _answer(work: Callable[[], Floats], read: int, write: int) -> None:
    """The copy's whole life; never returns."""
    code = 1
    try:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(np.ascontiguousarray(work(), dtype=np.float64).tobytes())
        code = 0
    finally:
        os._exit(code)


def _everything(read: int) -> bytes:
    parts: list[bytes] = []
    until = time.monotonic() + PATIENCE
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TrainingError(f"the copy did not end within {PATIENCE:g} seconds", remedy="set OMP_NUM_THREADS=1")
        part = os.read(read, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
