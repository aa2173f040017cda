"""Files that are replaced as a whole: a reader, or a crash, sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path


def atomic_write(path: Path, data: bytes) -> None:
    """Replaces ``path`` by ``data`` as a whole: temporary file beside it, fsync, rename, fsync of the folder.

    Args:
        path: the file; folders above it are made.
        data: its new content.

    Raises:
        OSError: the disk said no; the old file is untouched and no temporary file stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, value: object) -> None:
    """Replaces ``path`` by ``value`` as indented JSON; numbers that are not finite become null."""
    atomic_write(path, (json.dumps(finite(value), indent=2, allow_nan=False) + "\n").encode())


def finite(value: object) -> object:
    """``value`` as JSON can hold it: numpy and torch scalars as numbers, numbers that are not finite as None.

    =====================  ======================
    value                  becomes
    =====================  ======================
    dict, list, tuple      dict, list, list; inside likewise
    NaN, +inf, -inf        None
    numpy.float32(0.5)     0.5
    anything else          itself
    =====================  ======================
    """
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if not isinstance(value, str | int | float | None) and hasattr(value, "item"):
        value = value.item()  # a numpy or torch scalar
    return None if isinstance(value, float) and not math.isfinite(value) else value
