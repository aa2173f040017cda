"""Calls into libraries that read what somebody else wrote: one guarded conversion of whatever they raise.

On a damaged file pyarrow, ``datasets`` and others raise far more than they document (``OverflowError`` for a far date,
``UnicodeDecodeError``, ``RecursionError``, ``IndexError``), and their texts quote cells. Here every one of them becomes
None, and no text is kept; the caller says in its own words what could not be read. Raise outside of ``except`` blocks:
a chained exception would carry the text along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | None:
    """What ``call`` gives, or None where it raises any ``Exception`` (also ``MemoryError``, ``RecursionError``)."""
    try:
        return call()
    except Exception:
        return None
