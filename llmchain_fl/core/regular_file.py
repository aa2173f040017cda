"""Files that somebody else wrote: opened without ever waiting, read up to a bound, or one ``OSError``.

A path may name a pipe, a device or a folder; opening a pipe waits for a writer that never comes. Every reader of this
project opens its file here.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

Kind = Literal["file", "folder", "other", ""]


def kind_of(path: Path) -> Kind:
    """What stands at ``path``, links followed. Never raises.

    ===========================================================  ==========
    at ``path`` is                                               result
    ===========================================================  ==========
    a regular file                                               "file"
    a folder                                                     "folder"
    a pipe, a socket, a device                                   "other"
    nothing; a name that is too long, holds NUL or half a pair;  ""
    something in a folder that may not be entered
    ===========================================================  ==========
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: anything else stands there, or it cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "not a file name") from None
    file = os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def read_regular(path: Path, most: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: as ``open_regular``; more than ``most`` bytes.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes")
    return data
