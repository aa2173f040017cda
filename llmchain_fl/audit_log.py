"""An audit log read back and believed, or not: by whoever starts on it, shows it, or proves something with it.

What stands in a line, and a site's own lines: ``core/audit.py``. A coordinator's are::

    asked      site, node, kind, run, round, task, task_bytes,     a coordinator asked a site
               work
    received   site, node, kind, run, round, task, decision,       what came back
               reply, reply_bytes
    lost       site, node, kind, run, round, task                  nothing came back in time
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchain_fl.core.chain import COMMON, Chain
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.durable import content

_MESSAGE = frozenset({"kind", "run", "round", "task"})
FIELDS: dict[str, frozenset[str]] = {
    "open": frozenset({"format", "side", "name"}),
    "started": frozenset({"by", "version"}),
    "stopped": frozenset({"by", "why"}),
    "approved": frozenset({"by", "what", "sha256"}),
    "changed": frozenset({"by", "was"}),
    "answered": _MESSAGE | {"task_bytes", "work", "decision", "reply", "reply_bytes", "before"},
    "declined": _MESSAGE | {"decision", "bundle"},
    "asked": _MESSAGE | {"site", "node", "task_bytes", "work"},
    "received": _MESSAGE | {"site", "node", "decision", "reply", "reply_bytes"},
    "lost": _MESSAGE | {"site", "node"},
}
_COMMON = COMMON | {"policy", "ledger"}


def read_log(file: Path) -> list[dict[str, Any]]:
    """All entries, verified; a torn last line is left out, and a log that is not there has none.

    Raises:
        PrivacyError: the first line that cannot be believed, by its number.
    """
    chain, entries = Chain(), list[dict[str, Any]]()
    for line in (content(file) or b"").split(b"\n")[:-1]:
        try:
            entry = chain.following(line)
            _check(entry, entries[-1] if entries else None)
        except (ValueError, KeyError, TypeError, RecursionError) as fault:
            raise PrivacyError(
                f"line {chain.next} of the audit log {file} was changed: {fault or type(fault).__name__}",
                remedy="keep the file as it is, find out who can write it, and compare it with a copy",
            ) from None
        chain.take(line, entry)
        entries.append(entry)
    return entries


def _check(entry: Mapping[str, Any], last: Mapping[str, Any] | None) -> None:
    kind = entry["type"]
    if entry.keys() != _COMMON | FIELDS[kind]:
        raise ValueError("other fields")
    if (kind == "open") != (last is None):
        raise ValueError("out of order")
    if last is not None and last["policy"] != entry["was" if kind == "changed" else "policy"]:
        raise ValueError("the settings are not those of the line before")
