"""A log as a chain of JSON lines: what was written can be read for ever, and not be changed without a trace.

Line n is the canonical JSON (sorted keys, no spaces, ASCII) of an entry with ``seq`` = n, ``time`` (UTC, seconds),
``type``, the fields of that type, ``prev`` = hash of line n - 1 (64 zeros for the first) and

    hash = SHA-256(prev || "\\n" || canonical JSON of the entry without prev and hash)

so a changed, moved, missing or inserted line breaks the chain; the newest line's hash, the *head*, stands for all. The
privacy ledger (``privacy/book.py``) and the audit log (``audit.py``) are such chains.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64
COMMON = frozenset({"seq", "time", "type", "prev", "hash"})
"""Fields of every line."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def new_line(seq: int, prev: str, kind: str, values: Mapping[str, Any]) -> bytes:
    """Line ``seq`` after the line with hash ``prev``, with its end."""
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _encoded({"seq": seq, "time": time, "type": kind, **values}, prev) + b"\n"


def checked(line: bytes) -> dict[str, Any]:
    """The entry of a line, given without its end, that is byte for byte what :func:`new_line` writes.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: it is not.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError("no entry")
    content = {name: value for name, value in entry.items() if name not in ("prev", "hash")}
    if line != _encoded(content, entry["prev"]):
        raise ValueError("the chain is broken")
    if type(entry["seq"]) is not int or not _TIME.fullmatch(entry["time"]):
        raise ValueError("out of order")
    return entry


@dataclass
class Chain:
    """The verified lines. ``raw`` is their very bytes, ``hashes`` the hash of each."""

    raw: bytearray = field(default_factory=bytearray)
    hashes: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self.hashes[-1] if self.hashes else GENESIS

    @property
    def next(self) -> int:
        """Number of the line that would come next."""
        return len(self.hashes) + 1

    def holds(self, seq: int, head: str) -> bool:
        """Whether line ``seq`` is there and has this hash."""
        return 1 <= seq <= len(self.hashes) and self.hashes[seq - 1] == head

    def following(self, line: bytes) -> dict[str, Any]:
        """The entry of a line that continues the chain; changes nothing.

        Raises:
            ValueError, KeyError, TypeError, RecursionError: it does not, or is no line.
        """
        entry = checked(line)
        if entry["prev"] != self.head or entry["seq"] != self.next:
            raise ValueError("the chain is broken")
        return entry

    def take(self, line: bytes, entry: Mapping[str, Any]) -> None:
        """Count the line in that :meth:`following` has read."""
        self.hashes.append(entry["hash"])
        self.raw += line + b"\n"


def _encoded(content: Mapping[str, Any], prev: str) -> bytes:
    own = hashlib.sha256(f"{prev}\n{_canonical(content)}".encode()).hexdigest()
    return _canonical({**content, "prev": prev, "hash": own}).encode()
