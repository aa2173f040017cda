"""What the last lines of a Flower process mean, in words; the table grows with what is met."""

from __future__ import annotations

import re
from collections.abc import Iterable

MEANINGS = (
    (
        r"\[code: 2004\]",
        "the coordinator does not take this key now: it is not registered there, or a SuperNode with it was alive "
        "within the last minute\n  -> wait a minute; if it stays so, ask the coordinator whether the key is registered",
    ),
    (
        r"\[code: 1001\]|[Ii]ncompatible.*version",
        "site and coordinator run different versions of Flower\n  -> install the same flwr on both sides",
    ),
    (
        r"Invalid SuperNode authentication|401 Unauthorized",
        "the coordinator does not know this SuperNode any more\n  -> it was started anew, or the key was taken back; "
        "it is tried again",
    ),
    (
        r"SSL/TLS handshake error",
        "the TLS connection broke\n  -> it is tried again; see the certificate if it stays so",
    ),
    (r"address already in use", "its port is taken\n  -> end the other process, or give another --port"),
    (r"database is locked", "the state file was locked\n  -> it is started again; see docs/on-premise.md"),
)


def meaning(lines: Iterable[str]) -> str:
    """The words for the last line that is known; "" if none is."""
    for line in reversed(list(lines)):
        for pattern, words in MEANINGS:
            if re.search(pattern, line):
                return words
    return ""
