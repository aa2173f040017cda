"""The log as it is read: a chain of JSON lines (``core/chain.py``), replayed into what was reserved, for whom, sealed.

================  ==================================================  ==========================================
type              fields                                              meaning
================  ==================================================  ==========================================
open              format, site, unit, adjacency, site_key             whose ledger it is; always the first line
reserve           those of ``Release``, members, left                 paid for, whatever happens next, and who joins
                                                                      or leaves a group by it: {group: digest of file}
admit             key, members                                        people join for a release that is reserved
seal              key, sha256                                         the only bytes that will leave under ``key``
ack               key                                                 a server has shown that it got them
anchor-renewed    was                                                 the data holder made a new anchor
================  ==================================================  ==========================================

No epsilon stands in it: it follows from the events, and better accountants may come. Anything else is refused, also
entries of a later version: what is not understood may have cost something.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from llmchain_fl.core.chain import COMMON, Chain, new_line
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.groups import EVERYBODY, check_group
from llmchain_fl.core.privacy.register import Entry
from llmchain_fl.core.privacy.release import Release
from llmchain_fl.core.privacy.totals import Paid

FORMAT = 2
FIELDS: dict[str, frozenset[str]] = {
    "open": frozenset({"format", "site", "unit", "adjacency", "site_key"}),
    "reserve": frozenset({*(field.name for field in fields(Release)), "members", "left"}),
    "admit": frozenset({"key", "members"}),
    "seal": frozenset({"key", "sha256"}),
    "ack": frozenset({"key"}),
    "anchor-renewed": frozenset({"was"}),
}
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass
class Book(Chain):
    """What the verified lines say."""

    opening: dict[str, Any] = field(default_factory=dict)
    members: list[Entry] = field(default_factory=list)
    reserved: dict[str, Release] = field(default_factory=dict)
    paid: list[Paid] = field(default_factory=list)
    seals: dict[str, str] = field(default_factory=dict)
    acks: set[str] = field(default_factory=set)

    def newest(self, count: int) -> list[str]:
        """Keys whose bytes may be asked for again: the last ones sealed, those not acknowledged before the others."""
        return sorted(self.seals, key=lambda key: key not in self.acks)[-count:]  # stable: each half as it was sealed

    def latest(self, run: str) -> int:
        """The highest round that was reserved for ``run``; 0 for none."""
        tails = (key.removeprefix(f"{run}/") for key in self.reserved if key.startswith(f"{run}/"))
        return max((int(tail) for tail in tails if tail.isascii() and tail.isdigit()), default=0)

    def next_line(self, kind: str, **values: Any) -> bytes:
        """The line that would continue the chain; changes nothing."""
        return new_line(self.next, self.head, kind, values)

    def add(self, line: bytes) -> None:
        """Verify and replay one line, given without its end.

        Raises:
            ValueError, KeyError, TypeError, PrivacyError: it cannot be believed; the book is as before.
        """
        entry = self.following(line)
        kind = entry["type"]
        if entry.keys() != COMMON | FIELDS[kind]:
            raise ValueError("other fields")
        if (kind == "open") != (not self.hashes):
            raise ValueError("out of order")
        _REPLAY[kind](self, {name: entry[name] for name in FIELDS[kind]})
        self.take(line, entry)

    def extend(self, data: bytes, where: Path) -> bool:
        """Read on in ``data``, which begins with ``raw``; True when a torn piece of a line is left over at the end.

        Raises:
            PrivacyError: a whole line that cannot be believed, or a ledger of an earlier format.
        """
        *lines, torn = data[len(self.raw) :].split(b"\n")
        for line in lines:
            try:
                self.add(line)
            except (ValueError, KeyError, TypeError, RecursionError, PrivacyError) as fault:
                if not self.hashes and _is_old(line):
                    raise _too_old(where) from None
                raise PrivacyError(
                    f"line {self.next} of {where} cannot be trusted: {type(fault).__name__}",
                    remedy="restore the ledger from where it was kept; never delete lines, they are spent budget",
                ) from fault
        return bool(torn)


def _open(book: Book, values: dict[str, Any]) -> None:
    if values["format"] != FORMAT:
        raise ValueError("another format")
    book.opening = values


def _reserve(book: Book, values: dict[str, Any]) -> None:
    moves = {name: values.pop(name) for name in ("members", "left")}
    release = Release.from_dict(values)
    if release.key in book.reserved:
        raise ValueError("reserved twice")
    for charge in release.charges:
        check_group(charge.group)
    moved = [*_moved(book, release, moves["left"], left=True), *_moved(book, release, moves["members"])]
    book.members += moved
    book.reserved[release.key] = release
    book.paid += [(book.next, charge) for charge in release.charges]


def _admit(book: Book, values: dict[str, Any]) -> None:
    if values["key"] in book.seals:
        raise ValueError("somebody joins a sealed release")
    book.members += _moved(book, book.reserved[values["key"]], values["members"])


def _moved(book: Book, release: Release, files: dict[str, str], *, left: bool = False) -> list[Entry]:
    """Who joins or leaves which of the groups that pay for ``release``."""
    if not isinstance(files, dict) or not files.keys() <= {charge.group for charge in release.charges} - {EVERYBODY}:
        raise ValueError("a group that does not pay")
    if not all(_HEX.fullmatch(digest) for digest in files.values()):
        raise ValueError("no digest")
    return [Entry(book.next, group, digest, left) for group, digest in files.items()]


def _seal(book: Book, values: dict[str, Any]) -> None:
    if values["key"] not in book.reserved or values["key"] in book.seals or not _HEX.fullmatch(values["sha256"]):
        raise ValueError("sealed without a reservation, or twice")
    book.seals[values["key"]] = values["sha256"]


def _ack(book: Book, values: dict[str, Any]) -> None:
    if values["key"] not in book.seals or values["key"] in book.acks:
        raise ValueError("acknowledged without a seal, or twice")
    book.acks.add(values["key"])


def _renewed(book: Book, values: dict[str, Any]) -> None:
    if values["was"] not in ("gone", "damaged"):
        raise ValueError("nothing to renew")


_REPLAY: dict[str, Callable[[Book, dict[str, Any]], None]] = {
    "open": _open,
    "reserve": _reserve,
    "admit": _admit,
    "seal": _seal,
    "ack": _ack,
    "anchor-renewed": _renewed,
}


def _is_old(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and "type" in entry and ("hash" not in entry or "data_set" in entry)


def find_old(folders: Iterable[Path]) -> None:
    """Refuse to begin anew where one of ``folders`` holds the ledger of an earlier format.

    Raises:
        PrivacyError: one of them does.
    """
    for log in sorted(folder / "events.jsonl" for folder in folders):
        if os.access(log, os.R_OK) and _is_old(log.read_bytes().partition(b"\n")[0]):
            raise _too_old(log)


def _too_old(where: Path) -> PrivacyError:
    return PrivacyError(
        f"{where} is the ledger of one data set, as earlier versions kept it; now a site has one for all its records",
        remedy="keep it; give the site a new state folder and lower limits.epsilon by what the old one has spent "
        "(the version that wrote it tells); the same people must not get a fresh budget",
    )
