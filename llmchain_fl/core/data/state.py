"""Whether a source is still what it was: records that were erased must not be trained on from memory.

==================================================================  ============================================
the source                                                          its state
==================================================================  ============================================
a file                                                              device, inode, size, times of both changes
a folder                                                            the same of every file below it, with its path
changed less than ``SETTLED`` seconds ago, or in the future         None: a second change might look the same
missing, or no file at all (a hub, generated records)               None
==================================================================  ============================================

The time of an inode's change cannot be set by whoever writes the file, so an edit that keeps size and time is seen too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from llmchain_fl.core.data.source import path_of

SETTLED = 2.0
"""Seconds; the coarsest clock of a file system (FAT)."""
State = tuple[tuple[str, int, int, int, int, int], ...]


def state_of(source: str, now: float | None = None) -> State | None:
    """What two equal states of a source prove to be the same records; None proves nothing."""
    path = path_of(source)
    try:
        files = [] if path is None else sorted(_files(path))
        states = tuple(_told(file) for file in files)
    except OSError:
        return None
    newest = max((max(state[4], state[5]) for state in states), default=0)
    settled = newest / 1e9 < (time.time() if now is None else now) - SETTLED
    return states if states and settled else None


def _files(path: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]


def _told(file: Path) -> tuple[str, int, int, int, int, int]:
    seen = file.stat()
    return str(file), seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
