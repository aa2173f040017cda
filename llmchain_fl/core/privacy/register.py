"""Which groups a person is in: keyed hashes on the site's disk, no names, over all data sets of the site.

A person pays what all groups of that person pay. So the ledger must know them, for ever: nobody takes part in a release
who does not stand here under a group that pays for it. Who joins which group, and who leaves one because that person's
own budget is used up, is decided by ``entry.py``; this file writes it down and reads it back.

A person stands here as HMAC-SHA256(k, id in UTF-8) with k = HKDF(site's secret, "register"). The hashes of those who
join or leave a group, sorted, stand in ``members/<SHA-256 of the content>.bin``; the line of the log that names the
digest comes after the file is on the disk, and that line is the very reservation for which they join or leave.

===========================================  ==============================================================
case                                         result
===========================================  ==============================================================
the same id twice in one call                the same answer twice
ids that differ in a blank or in case        different people: make ids equal where records are read
a file that is missing or not as sealed      :class:`PrivacyError` at every call of the ledger
a line that puts somebody into two groups    :class:`PrivacyError`
of which one excludes the other
a file that no line of the log names         nobody joined by it (a crash); removed when the next is written
===========================================  ==============================================================

Not promised: whoever has the site's secret and a list of ids can test who is in it; the sizes of the files tell the
site's own administrators how many joined when. Nobody is ever forgotten: spent budget cannot be unspent.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.durable import content, remove, replace
from llmchain_fl.core.privacy.groups import excludes
from llmchain_fl.core.privacy.site_key import derive

SIZE = 32
"""Bytes of one hash."""


class Stay(NamedTuple):
    """Somebody in a group: all that it has ever paid counts, or all before the line ``until`` of the log."""

    group: str
    until: int = 0
    """0: still in it."""


Profile = frozenset[Stay]
"""All groups of a person; no group twice."""

NOBODY: Profile = frozenset()
"""Of somebody who is in no group: pays what everybody pays."""


class Entry(NamedTuple):
    """What a line of the log says about the register: the people of a file join ``group``, or have left it."""

    line: int
    group: str
    digest: str
    left: bool = False


class Register:
    """The files of ``folder`` as people and their groups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: list[Entry] = []
        self._people: dict[bytes, Profile] = {}

    def people(self, entries: Sequence[Entry]) -> dict[bytes, Profile]:
        """Keyed hash -> groups, of everybody who was ever in one.

        Raises:
            PrivacyError: a file is missing or changed, or a line cannot be true.
        """
        if self._read != list(entries[: len(self._read)]):
            self._read, self._people = [], {}
        for entry in entries[len(self._read) :]:
            self._replay(entry)
            self._read.append(entry)
        return self._people

    def verify(self, entries: Iterable[Entry]) -> None:
        """Only the check that every file is there and unchanged."""
        for digest in {entry.digest for entry in entries}:
            _verified(self.folder, digest)

    def write(self, groups: Sequence[Iterable[bytes]], entries: Iterable[Entry]) -> list[str]:
        """Write one file for each of ``groups``, on the disk when it returns. Returns the digests for the log."""
        known = {_file(self.folder, entry.digest) for entry in entries}
        for file in set(self.folder.iterdir()) - known:
            remove(file)
        digests = []
        for people in groups:
            data = b"".join(sorted(set(people)))
            digests.append(hashlib.sha256(data).hexdigest())
            replace(_file(self.folder, digests[-1]), data)
        return digests

    def _replay(self, entry: Entry) -> None:
        data = _verified(self.folder, entry.digest)
        moved: dict[Profile, Profile] = {}
        for start in range(0, len(data), SIZE):
            person = data[start : start + SIZE]
            before = self._people.get(person, NOBODY)
            if before not in moved:
                moved[before] = left(before, entry.group, entry.line) if entry.left else joined(before, entry.group)
            self._people[person] = moved[before]


def hashed(secret: bytes, people: Sequence[str]) -> list[bytes]:
    """One keyed hash for each of ``people``, in their order."""
    key = derive(secret, "register")
    return [hmac.digest(key, person.encode(errors="surrogatepass"), "sha256") for person in people]


def joined(profile: Profile, group: str) -> Profile:
    """``profile`` with ``group``; who had left it is in it again, with all that it has paid.

    Raises:
        PrivacyError: they are in it, or in one that excludes it.
    """
    if Stay(group) in profile or excluded(profile, group):
        raise _damaged("puts somebody into a group twice, or into two that exclude each other")
    return frozenset({*(stay for stay in profile if stay.group != group), Stay(group)})


def left(profile: Profile, group: str, line: int) -> Profile:
    """``profile`` without what ``group`` pays from ``line`` on.

    Raises:
        PrivacyError: they are not in it.
    """
    if Stay(group) not in profile:
        raise _damaged("takes somebody out of a group who is not in it")
    return frozenset({*(profile - {Stay(group)}), Stay(group, line)})


def excluded(profile: Profile, group: str) -> bool:
    """Whether somebody may never be in ``group``: the first of several that exclude each other is for ever."""
    return any(excludes(stay.group, group) for stay in profile)


def _verified(folder: Path, digest: str) -> bytes:
    data = content(_file(folder, digest))
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise _damaged("is missing" if data is None else "has changed")
    return data


def _file(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.bin"


def _damaged(how: str) -> PrivacyError:
    return PrivacyError(
        f"a file of the register of people {how}",
        remedy="restore the state folder's members/ from where it was kept: without it somebody could be counted twice",
    )
