"""Faults of the outside world: a full disk, a file that may not be read, a library that gives up.

Whoever sits at the command line gets one line that says what, and one that says what is kept and how to go on. The
traceback goes into a file: of the run if there is one, else of the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmchain_fl.core.errors import LlmchainError, RunError
from llmchain_fl.extras import how_to_install

if TYPE_CHECKING:
    from llmchain_fl.run_dir import RunDir

LOG = "error.log"
LONGEST = 300
REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EACCES: "see who may read and write it",
    errno.EPERM: "see who may read and write it",
    errno.EROFS: "name a folder that can be written",
    errno.ENOENT: "check the path",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENOTDIR: "a part of the path is a file: name a folder",
    errno.EEXIST: "name another path, or move away what is there",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


def sentence(error: BaseException) -> str:
    """What happened, in one line.

    ============================  ==========================================
    error                         line
    ============================  ==========================================
    of a file                     FILE: what the system says
    of the system, without one    what the system says
    memory that ran out           out of memory
    a missing package             the package NAME is not installed
    any other                     TYPE: its first line
    ============================  ==========================================
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name} is not installed"
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:LONGEST].rstrip(": ")


def remedy_of(error: BaseException) -> str:
    """What can be done about it, where the error itself says so."""
    if isinstance(error, ModuleNotFoundError):
        return how_to_install(error.name or "")
    return REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def write_log(error: BaseException, folder: Path | None = None) -> Path | None:
    """The traceback in ``folder/error.log``, else in a temporary file that only its owner can read.

    Returns:
        Where it is; None where nothing can be written at all.
    """
    text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace")
    if folder is not None:
        with contextlib.suppress(OSError):
            (folder / LOG).write_bytes(text)
            return folder / LOG
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="llmchain-fl-", suffix=".log")
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        return Path(name)
    return None


def full_text(error: BaseException, next_step: str = "", folder: Path | None = None) -> str:
    """The lines for the terminal: what; what to do, what is kept, where the traceback is."""
    log = write_log(error, folder)
    where = f"the traceback is in {log}" if log else "no traceback could be written"
    return f"{sentence(error)}\n  -> {'; '.join(filter(None, [remedy_of(error), next_step, where]))}"


@contextlib.contextmanager
def kept_in(run: RunDir) -> Iterator[None]:
    """Whatever goes wrong within, beside our own errors, becomes one that says what of ``run`` is kept.

    Raises:
        RunError: for any ``Exception`` that is not of this project.
    """
    try:
        yield
    except LlmchainError:
        raise
    except Exception as error:
        begun = run.begun
        again = f"llmchain-fl simulate --resume {shlex.quote(str(run.path))}"
        nothing = "no round was finished, so nothing is kept"
        next_step = f"every finished round is kept, go on with: {again}" if begun else nothing
        message, _, remedy = full_text(error, next_step, run.path if begun else None).partition("\n  -> ")
        raise RunError(message, remedy=remedy) from error
