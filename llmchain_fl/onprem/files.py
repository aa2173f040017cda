"""Files and folders of their owner alone, whatever the umask says. POSIX only.

============================================  ==================================================
written                                       then
============================================  ==================================================
a folder                                      0700
a file                                        0600
a key whose file is there already             ConfigError; the old key is untouched
any other file that is there already          replaced as a whole
the umask takes bits from the owner           the modes are the same
============================================  ==================================================
"""

from __future__ import annotations

import os
from pathlib import Path

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.privacy.durable import OWNER_ONLY, OWNERS_FOLDER, sync


def own_folder(path: Path) -> Path:
    """Make ``path`` and what is missing above it; 0700 for every folder that is made here, and for ``path``."""
    if not path.is_dir():
        if not path.parent.is_dir():
            own_folder(path.parent)
        path.mkdir()
    os.chmod(path, OWNERS_FOLDER)
    return path


def write_key(path: Path, data: bytes) -> None:
    """Write a private key where there is no file yet.

    Raises:
        ConfigError: something stands there.
    """
    try:
        _write(path, data, os.O_EXCL)
    except FileExistsError:
        raise taken(path) from None
    sync(path.parent)


def taken(path: Path) -> ConfigError:
    """The error of a key that is there already."""
    return ConfigError(
        [f"{path} is there already: a key is never written over"],
        remedy="use it, or move it away first; whoever holds the public half must then be told",
    )


def write_file(path: Path, data: bytes | str) -> None:
    """Replace ``path`` as a whole: a crash leaves the old content or the new one."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        _write(draft, data.encode() if isinstance(data, str) else data, os.O_EXCL)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _write(path: Path, data: bytes, more: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | more, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, OWNER_ONLY)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def open_to_others(path: Path) -> bool:
    """Whether somebody beside the owner may read, write or enter ``path``; False where nothing is there."""
    return path.exists() and bool(path.stat().st_mode & 0o077)


def readable_by_others(path: Path) -> bool:
    """Whether somebody beside the owner may read ``path`` and can get there; False where nothing is there."""
    whole = path.absolute()
    if not whole.exists() or not whole.stat().st_mode & 0o044:
        return False
    return all(folder.stat().st_mode & 0o011 for folder in whole.parents)
