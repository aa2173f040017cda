"""The ledger's folder: everything in it is verified whenever it is opened, everything new is on the disk before use.

::

    STATE/events.jsonl      the log (book.py)              ANCHOR (anywhere else)   how far the log had come (anchor.py)
    STATE/site.key          the site's secret (site_key.py)
    STATE/members/          keyed hashes of people (register.py)
    STATE/sealed/           the last sealed updates
    STATE/lock              held during every call

Making a ledger: secret key, opening line (with the key's digest), anchor. Adding to it: files, log line, anchor. A
crash between two steps leaves something that the next opening completes or ignores. All of it is its owner's alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.anchor import Anchor, gone, read_anchor, write_anchor
from llmchain_fl.core.privacy.book import FORMAT, Book, find_old
from llmchain_fl.core.privacy.durable import append, content, disk_errors, locked, make_folder, sync, tighten
from llmchain_fl.core.privacy.plan import UNITS
from llmchain_fl.core.privacy.receipt import mark
from llmchain_fl.core.privacy.register import Register
from llmchain_fl.core.privacy.release import ADJACENCY, Terms
from llmchain_fl.core.privacy.site_key import digest_of, make_key, read_key


@dataclass
class Read:
    """What this process has read of a log. The file is compared with it, byte for byte, before it is used."""

    book: Book = field(default_factory=Book)


@lru_cache(maxsize=1024)
def read_before(folder: Path) -> Read:
    """The same for each opening of a ledger in ``folder`` by this process."""
    return Read()


class Store:
    """Folder and anchor of one site. All work happens inside ``with store.opened() as book``.

    Raises:
        PrivacyError: the anchor would lie in the folder, and so be rolled back with it.
    """

    def __init__(self, path: Path, anchor: Path, terms: Terms) -> None:
        if anchor.resolve().is_relative_to(path.resolve()):
            raise PrivacyError(
                f"the anchor {anchor} lies in the ledger's own folder", remedy="keep it on another disk, or beside it"
            )
        self.register, self.sealed, self._key = Register(path / "members"), path / "sealed", path / "site.key"
        self._path, self._log, self._anchor, self._terms = path, path / "events.jsonl", anchor, terms
        self._read = read_before(path.resolve())

    def make(self) -> None:
        """Make the ledger if there is nothing yet, and verify it."""
        with disk_errors():
            if not (self._log.exists() and self._anchor.exists()):  # written after the folders' names were flushed
                for folder in (self._path, self.register.folder, self.sealed, self._anchor.parent):
                    make_folder(folder)
            with locked(self._path / "lock"):
                tighten(self._path)
                self._read_log()
                if not self._book.hashes and not self._was_used():
                    find_old(self._path.parent.iterdir())
                    whose = {"site": self._terms.site, "unit": self._terms.unit, "adjacency": ADJACENCY}
                    key = digest_of(make_key(self._key))
                    self.append(self._book, "open", format=FORMAT, **whose, site_key=key)
                self._verified()

    @contextmanager
    def opened(self) -> Iterator[Book]:
        """Lock the folder, verify everything, give what the log says.

        Raises:
            PrivacyError: anything is missing, damaged, rolled back or somebody else's; or the disk failed.
        """
        with disk_errors(), locked(self._path / "lock"):
            yield self._verified()

    def append(self, book: Book, kind: str, **values: Any) -> None:
        """Add one line: on the disk, and anchored, when it returns.

        The book takes it first: a line that could not be read back is never written. If the disk then fails, the book
        is ahead of the file, which the next opening notices and reads the file anew.
        """
        size, line = len(book.raw), book.next_line(kind, **values)
        book.add(line[:-1])
        append(self._log, size, line)
        write_anchor(self._anchor, Anchor(len(book.hashes), book.head))

    def secret(self) -> bytes:
        """The site's secret key; only inside ``opened``, which has verified it."""
        return read_key(self._key)

    def _read_log(self) -> int:
        """Bring ``_book`` to what the file says now, whatever it said before; the number of its bytes.

        Only lines that follow the very bytes that were read before are replayed.
        """
        data = content(self._log) or b""
        if not data.startswith(bytes(self._book.raw)):
            self._read.book = Book()
        self._book.extend(data, self._log)
        return len(data)

    @property
    def _book(self) -> Book:
        return self._read.book

    def _was_used(self) -> bool:
        return self._anchor.exists() or any(self.register.folder.iterdir()) or any(self.sealed.iterdir())

    def _verified(self) -> Book:
        size, book = self._read_log(), self._book
        anchor = read_anchor(self._anchor)
        self._check_owner(book)
        if anchor is None and (len(book.hashes) > 1 or size > len(book.raw)):
            raise gone(self._anchor)
        if anchor is not None and not book.holds(anchor.seq, anchor.head):
            raise PrivacyError(
                f"the ledger {self._log} was rolled back or replaced: it lacks the line that its anchor names",
                remedy="put back the latest state folder; what it has spent since the copy was made is not in this one",
            )
        self._check_files(book)
        if anchor is None or anchor.seq < len(book.hashes):
            sync(self._log)
            write_anchor(self._anchor, Anchor(len(book.hashes), book.head))
        return book

    def _check_owner(self, book: Book) -> None:
        if not book.hashes:
            raise PrivacyError(
                f"the ledger {self._log} is gone or empty, but its anchor or other files show that it was in use",
                remedy="put back the latest state folder; a fresh ledger would forget what was spent",
            )
        mine = {"site": self._terms.site, "unit": self._terms.unit, "adjacency": ADJACENCY}
        for name, value in mine.items():
            if book.opening[name] != value:
                raise PrivacyError(
                    f"the ledger {self._log} has {name} {book.opening[name]!r}, not {value!r}",
                    remedy="one state folder per site and unit; give this one a folder of its own",
                )
        if digest_of(read_key(self._key)) != book.opening["site_key"]:
            raise PrivacyError(
                f"the site's secret key {self._key} is not the one that this ledger was opened with",
                remedy="restore it from where the state folder was kept",
            )

    def _check_files(self, book: Book) -> None:
        self.register.verify(book.members)
        foreign = {file.stem for file in self.sealed.glob("[0-9a-f]*.bin")} - {mark(key) for key in book.reserved}
        if foreign:
            raise PrivacyError(
                f"the ledger {self._log} was rolled back: there is a sealed update that it knows nothing of",
                remedy="put back the latest log; an older one forgets what was spent",
            )


def unit_of(folder: Path) -> str:
    """The unit that the ledger was opened with, not verified yet; any unit where the first line does not say."""
    first = (content(folder / "events.jsonl") or b"").partition(b"\n")[0]
    try:
        unit = json.loads(first)["unit"]
    except (ValueError, KeyError, TypeError):
        unit = None
    return unit if isinstance(unit, str) and unit in UNITS else next(iter(UNITS))
