"""Appends that are on the disk when they return, and who may make them; POSIX only. Whole files: ``atomic_file.py``.

Order matters more than speed: content, ``fsync`` of the file, rename, ``fsync`` of the directory (a rename or a new
name is durable only after the latter).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmchain_fl.errors import PrivacyError


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, size: int, line: bytes) -> None:
    """Put ``line`` at offset ``size`` of ``path``, cutting off whatever (torn) bytes stood there; makes the file."""
    with path.open("r+b" if path.exists() else "x+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` alone, among threads and processes; the kernel frees it when a process dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an ``OSError`` into a :class:`PrivacyError` that names no path."""
    try:
        yield
    except OSError as fault:
        raise PrivacyError(
            f"the ledger cannot be read or written (errno {fault.errno})",
            remedy="free or repair the site's disk, then ask again; nothing may be trained or sent before that",
        ) from fault
