"""What is on the disk when the call returns, and who may write; POSIX only.

Order matters more than speed: content, ``fsync`` of the file, rename, ``fsync`` of the directory (a rename or a new
name is durable only after the latter). Every change goes through ``os.open``, ``os.write``, ``os.ftruncate``,
``os.replace``, ``os.unlink`` and ``os.fsync``, so that a test can stop the process before, between and in the middle
of them. New files and folders are for their owner alone (0600, 0700).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmchain_fl.core.errors import PrivacyError

OWNER_ONLY, OWNERS_FOLDER = 0o600, 0o700


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    with _opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it; when it returns, all their names are on the disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=OWNERS_FOLDER, exist_ok=True)
    sync(path.parent)


def tighten(path: Path) -> None:
    """Take ``path`` and everything in it from everybody but its owner."""
    for one in (path, *path.rglob("*")):
        if not one.is_symlink() and one.stat().st_mode & 0o077:
            os.chmod(one, OWNERS_FOLDER if one.is_dir() else OWNER_ONLY)


def append(path: Path, size: int, line: bytes) -> None:
    """Put ``line`` at offset ``size`` of ``path``, cutting off whatever (torn) bytes stood there; makes the file."""
    with _opened(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        if not size:  # a file with a line in it has its name for good
            sync(path.parent)
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
        _write(descriptor, line)
        os.fsync(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path``: a crash leaves the old content or the new one, never half of one.

    The draft beside it always has the same name, so crashes leave at most one behind; the caller holds the lock.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        with _opened(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            _write(descriptor, data)
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        remove(draft)
        raise
    sync(path.parent)


def remove(path: Path) -> None:
    """Take a file away if it is there. Not flushed: that it comes back after a power cut must do no harm."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def content(path: Path) -> bytes | None:
    """The bytes of a file, None when there is none."""
    return path.read_bytes() if path.exists() else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` alone, among threads and processes; the kernel frees it when a process dies."""
    with _opened(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors(of: str = "the ledger") -> Iterator[None]:
    """Turn an ``OSError`` into a :class:`PrivacyError` that names no path."""
    try:
        yield
    except OSError as fault:
        raise PrivacyError(
            f"{of} cannot be read or written (errno {fault.errno})",
            remedy="free or repair the site's disk, then ask again; nothing may be trained or sent before that",
        ) from fault


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, OWNER_ONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
