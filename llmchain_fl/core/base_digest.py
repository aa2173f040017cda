"""Which base model a folder holds, by its content: a name on a disk can be given to anything."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from llmchain_fl.core.errors import ModelError


def base_digest(folder: Path) -> str:
    """``sha256:`` over the names and contents of the folder's own files.

    ====================================  =====================================
    changed                               digest
    ====================================  =====================================
    a byte, a name, one file more         another
    hidden files, folders in it, times    the same
    no folder, or without a config.json   ModelError
    ====================================  =====================================

    Raises:
        ModelError: it cannot be read.
    """
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        if not any(file.name == "config.json" for file in files):
            raise ModelError(f"{folder} has no config.json", remedy="give a folder written by save_pretrained")
        return _digest_of(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}", remedy="give a readable model folder") from None


@functools.lru_cache(maxsize=8)
def _digest_of(files: tuple[tuple[str, int, int], ...]) -> str:
    """Kept for as long as sizes and times of the files stay: a large base is not read at every message."""
    total = hashlib.sha256()
    for name, size, _ in files:
        with open(name, "rb") as opened:
            total.update(json.dumps([Path(name).name, size]).encode())
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256:{total.hexdigest()}"
